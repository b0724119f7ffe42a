"""What forward and generate do with packed rows, prefixes, labels and recomputation."""

import copy

import pytest
import torch
from PIL import Image

from ovis_model.errors import ConfigError
from ovis_model.modeling import modeling_ovis2_5, visual_tokenizer
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.processing_ovis2_5 import pad_batch


@pytest.fixture(scope="module")
def prompts(processor):
    """Text only, one image, two images, a video: of different lengths."""
    image = Image.effect_noise((64, 96), 80).convert("RGB")
    wide = Image.effect_noise((64, 32), 80).convert("RGB")

    def prompt(text, *kinds, **media):
        parts = [{"type": kind} for kind in kinds] + [{"type": "text", "text": text}]
        message = {"role": "user", "content": parts}
        return processor.encode_prompt([message], enable_thinking=True, **media)

    return [
        prompt("Hi"),
        prompt("What?", "image", images=[image]),
        prompt("Compare them.", "image", "image", images=[image, wide]),
        prompt("What happens?", "video", frames=[image] * 3),
    ]


def media_of(prompts):
    shown = [one for one in prompts if one.pixel_values is not None]
    return {
        "pixel_values": torch.cat([one.pixel_values for one in shown]),
        "grid_thws": torch.cat([one.grid_thws for one in shown]),
    }


def alone(model, prompt, **arguments):
    return model(
        prompt.input_ids[None],
        pixel_values=prompt.pixel_values,
        grid_thws=prompt.grid_thws,
        **arguments,
    )


def labels_of(prompt):
    """Learn every other text token."""
    labels = prompt.input_ids.clone()
    labels[::2] = -100
    return labels.masked_fill(labels < 0, -100)


@pytest.mark.parametrize("implementation", ["auto", "sdpa", "eager"])
def test_a_packed_row_gives_each_sample_the_logits_it_gets_alone(model, prompts, implementation):
    model.set_attention(implementation)
    lengths = [len(prompt.input_ids) for prompt in prompts]
    row = torch.cat([prompt.input_ids for prompt in prompts])[None]
    packed = model(row, **media_of(prompts), sequence_lengths=lengths).logits[0]
    for prompt, logits in zip(prompts, packed.split(lengths), strict=True):
        torch.testing.assert_close(logits, alone(model, prompt).logits[0], atol=1e-5, rtol=1e-5)


def test_packed_padded_and_single_samples_give_the_same_loss_and_gradients(model, prompts):
    model.train()
    labels = [labels_of(prompt) for prompt in prompts]
    labels[1][0] = int(prompts[1].input_ids[0])  # a first token is predicted by nothing
    num_items = torch.tensor(sum(int((one[1:] != -100).sum()) for one in labels))

    def gradients(*losses):
        model.zero_grad()
        for loss in losses:
            loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return sum(loss.item() for loss in losses), grads

    single = gradients(
        *(
            alone(model, one, labels=wanted[None], num_items_in_batch=num_items).loss
            for one, wanted in zip(prompts, labels, strict=True)
        )
    )
    row = torch.cat([prompt.input_ids for prompt in prompts])[None]
    packed = gradients(
        model(
            row,
            **media_of(prompts),
            labels=torch.cat(labels)[None],
            sequence_lengths=[len(one) for one in labels],
            num_items_in_batch=num_items,
        ).loss
    )
    batch = pad_batch(prompts, pad_id=0, side="right")
    batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, True, -100)
    padded = gradients(model(**batch, num_items_in_batch=num_items).loss)
    for loss, grads in (packed, padded):
        assert loss == pytest.approx(single[0], rel=1e-5)
        assert grads.keys() == single[1].keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, single[1][name], atol=1e-5, rtol=1e-3, msg=name)


def test_a_packed_row_takes_no_mask(model, prompts):
    ids = prompts[0].input_ids[None]
    with pytest.raises(ValueError, match="a packed row has no padding"):
        model(ids, torch.ones_like(ids), sequence_lengths=[ids.shape[1]])


def test_a_large_training_batch_returns_no_logits_and_the_same_loss(model, prompts, monkeypatch):
    arguments = {"labels": labels_of(prompts[1])[None]}
    evaluated = alone(model, prompts[1], **arguments)
    model.train()
    small = alone(model, prompts[1], **arguments)
    assert small.logits.shape == evaluated.logits.shape
    monkeypatch.setattr(modeling_ovis2_5, "MAX_LOGITS_IN_TRAINING", 0)
    large = alone(model, prompts[1], **arguments)
    assert large.logits is None
    torch.testing.assert_close(large.loss, evaluated.loss)


@pytest.mark.parametrize("kept", [1, torch.tensor([0, 2])], ids=["the last", "chosen ones"])
def test_logits_to_keep_chooses_positions(model, prompts, kept):
    every = alone(model, prompts[1]).logits
    some = alone(model, prompts[1], logits_to_keep=kept).logits
    torch.testing.assert_close(some, every[:, -1:] if isinstance(kept, int) else every[:, kept])


def test_a_batch_in_which_nothing_is_learned_has_no_loss(model, prompts):
    ids = prompts[0].input_ids[None]
    assert model(ids, labels=torch.full_like(ids, -100)).loss.isnan()


def test_bytes_and_normalised_floats_are_the_same_input(model, prompts):
    as_floats = normalize_patches(prompts[1].pixel_values)
    with_floats = model(
        prompts[1].input_ids[None], pixel_values=as_floats, grid_thws=prompts[1].grid_thws
    )
    assert torch.equal(with_floats.logits, alone(model, prompts[1]).logits)


def test_every_byte_is_normalised_as_in_double_precision():
    values = torch.arange(256, dtype=torch.uint8)
    exact = (values.double() * 0.00392156862745098).float()
    assert torch.equal(normalize_patches(values), (exact - 0.5) / 0.5)


@pytest.mark.parametrize("parts", [("llm",), ("vit",), ("llm", "vit")], ids="+".join)
def test_recomputed_blocks_give_the_same_gradients(checkpoint, prompts, parts, monkeypatch):
    def gradients(model):
        model.train()
        alone(model, prompts[2], labels=labels_of(prompts[2])[None]).loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    # Chunks of one token, so that the visual words are recomputed as well.
    monkeypatch.setitem(visual_tokenizer.CHUNK_SIZE, "cpu", 1)
    plain = gradients(load_model(checkpoint))
    model = load_model(checkpoint)
    model.checkpointed_parts = parts
    model.activation_checkpointing_enable()
    recomputed = {
        name: any(getattr(m, "gradient_checkpointing", False) for m in part.modules())
        for name, part in (("llm", model.llm), ("vit", model.visual_tokenizer.vit))
    }
    assert recomputed == {"llm": "llm" in parts, "vit": "vit" in parts}
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, plain[name], msg=name)


@pytest.fixture
def questions(processor):
    image = Image.effect_noise((64, 96), 80).convert("RGB")
    texts = ["What?", "Why is it so, and since when?", "When?"]
    parts = [[{"type": "image"}, {"type": "text", "text": text}] for text in texts]
    return [
        processor.encode_prompt(
            [{"role": "user", "content": content}], images=[image], enable_thinking=True
        )
        for content in parts
    ]


def prefix_and_rest(questions, pad_id):
    rows = [question.input_ids.tolist() for question in questions]
    length = next(i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1)
    longest = max(map(len, rows)) - length
    rest = torch.full((len(rows), longest), pad_id)
    mask = torch.zeros_like(rest, dtype=torch.bool)
    for number, row in enumerate(rows):
        rest[number, longest - len(row) + length :] = torch.tensor(row[length:])
        mask[number, longest - len(row) + length :] = True
    return torch.tensor([rows[0][:length]]), rest, mask


def test_questions_on_one_image_read_it_once_and_answer_as_if_alone(model, processor, questions):
    start, rest, mask = prefix_and_rest(questions, processor.token_ids.pad)
    prefix = model.encode_prefix(start, questions[0].pixel_values, questions[0].grid_thws)
    settings = {"thinking_budget": 5, "max_new_tokens": 60}
    for _ in range(2):  # a prefix is not used up
        together = model.generate(rest, mask, prefix=prefix, **settings)
        for question, row in zip(questions, together, strict=True):
            single = model.generate(
                question.input_ids[None],
                pixel_values=question.pixel_values,
                grid_thws=question.grid_thws,
                **settings,
            )[0]
            assert torch.equal(row[: len(single)], single)
    assert prefix.length == start.shape[1]


def test_what_follows_a_prefix_may_show_more(model, prompts):
    first, second = prompts[1], prompts[3]
    whole = torch.cat([first.input_ids, second.input_ids])[None]
    expected = model.generate(whole, **media_of([first, second]), max_new_tokens=12)
    prefix = model.encode_prefix(first.input_ids[None], first.pixel_values, first.grid_thws)
    got = model.generate(
        second.input_ids[None],
        pixel_values=second.pixel_values,
        grid_thws=second.grid_thws,
        prefix=prefix,
        max_new_tokens=12,
    )
    assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", [(2, 3), (1, 0)], ids=["two rows", "nothing"])
def test_a_prefix_is_one_row(model, shape):
    with pytest.raises(ValueError, match="one row of at least one id"):
        model.encode_prefix(torch.ones(shape, dtype=torch.int64))


def test_interpolated_positions_are_kept_until_the_weights_may_change(model, prompts, monkeypatch):
    embeddings = model.visual_tokenizer.vit.vision_model.embeddings
    interpolate, made = embeddings._interpolate, []
    monkeypatch.setattr(
        embeddings, "_interpolate", lambda h, w: made.append((h, w)) or interpolate(h, w)
    )
    with torch.no_grad():
        before = alone(model, prompts[1]).logits
        alone(model, prompts[1])
        assert len(made) == 1
        model.train()
        embeddings.position_embedding.weight.data.mul_(2)  # unseen by the version counter
        model.eval()
        assert not torch.equal(alone(model, prompts[1]).logits, before)
        embeddings.position_embedding.weight.mul_(0.5)
        assert torch.equal(alone(model, prompts[1]).logits, before)
    assert len(made) == 3


def test_a_copy_and_a_model_in_16_bits_answer(model, prompts):
    exact = alone(model, prompts[1]).logits
    half = copy.deepcopy(model).to(torch.bfloat16)
    rough = alone(half, prompts[1]).logits
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)


def test_an_attention_that_does_not_exist_is_refused(model):
    with pytest.raises(ConfigError, match="attn_implementation is 'flash'"):
        model.set_attention("flash")
    assert model.attention_in_use["vit"] == "sdpa per frame"
