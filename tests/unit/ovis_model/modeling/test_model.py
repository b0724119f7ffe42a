from dataclasses import replace

import pytest
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from ovis_model.modeling.thinking_budget import check_budget
from ovis_model.processing.processing_ovis2_5 import pad_batch

IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


@pytest.fixture(scope="module")
def prompts(processor):
    """Text only, one image, two images, a video: of different lengths."""
    image = Image.effect_noise((64, 96), 80).convert("RGB")
    two = [{"role": "user", "content": [{"type": "image"}] * 2}]
    video = [{"role": "user", "content": [{"type": "video"}]}]
    return [
        processor.encode_prompt([{"role": "user", "content": "Hi"}], enable_thinking=True),
        processor.encode_prompt(IMAGE, images=[image], enable_thinking=True),
        processor.encode_prompt(two, images=[image, image], enable_thinking=True),
        processor.encode_prompt(video, frames=[image] * 3, enable_thinking=True),
    ]


def decode(model, processor, batch, **arguments):
    inputs = pad_batch(batch, pad_id=processor.token_ids.pad, side="left")
    inputs.pop("labels")
    return model.generate(**inputs, max_new_tokens=60, **arguments)


def test_a_ragged_batch_decodes_like_single_runs(model, processor, prompts):
    together = decode(model, processor, prompts, thinking_budget=5)
    for row, prompt in zip(together, prompts, strict=True):
        alone = decode(model, processor, [prompt], thinking_budget=5)[0]
        assert torch.equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == processor.token_ids.pad).all()


def test_the_budget_forces_the_closing_sentence_in_its_place(model, processor, prompts):
    closing = processor.token_ids.closing_sentence
    forced = 0
    for row in decode(model, processor, prompts, thinking_budget=5).tolist():
        ended = processor.token_ids.im_end in row[:5] or processor.token_ids.think_close in row[:5]
        if not ended:
            assert tuple(row[5 : 5 + len(closing)]) == closing
            forced += 1
    assert forced


def test_the_budget_leaves_a_finished_thought_alone(model, processor, prompts):
    from ovis_model.modeling.thinking_budget import ThinkingBudgetLogitsProcessor  # noqa: PLC0415

    ids = processor.token_ids
    close = ThinkingBudgetLogitsProcessor(2, ids)
    scores = torch.zeros(3, 2000)
    generated = torch.tensor([[1, 2], [ids.think_close, 2], [1, ids.im_end]])
    assert torch.isinf(close(generated, scores)).any(dim=1).tolist() == [True, False, False]


def count_forwards(model, monkeypatch):
    forward, lengths = model.llm.model.forward, []

    def counted(**arguments):
        given = arguments.get("inputs_embeds")
        given = arguments["input_ids"] if given is None else given
        lengths.append(given.shape[1])
        return forward(**arguments)

    monkeypatch.setattr(model.llm.model, "forward", counted)
    return lengths


def test_a_closing_sentence_that_all_need_is_read_in_one_pass(
    model, processor, prompts, monkeypatch
):
    lengths = count_forwards(model, monkeypatch)
    new_ids = decode(model, processor, prompts[1:2], thinking_budget=5)[0]
    closing = processor.token_ids.closing_sentence
    assert tuple(new_ids[5 : 5 + len(closing)].tolist()) == closing
    assert lengths[6] == len(closing)
    assert len(lengths) == len(new_ids) - len(closing) + 1
    lengths.clear()
    by_logits = decode(
        model, processor, prompts[1:2], thinking_budget=5, return_dict_in_generate=True
    )
    assert torch.equal(by_logits.sequences[0], new_ids)
    assert len(lengths) == len(new_ids)


def test_rows_that_closed_their_thought_go_on_while_others_are_closed(model, processor, prompts):
    ids = processor.token_ids

    class CloseFirstRow(LogitsProcessor):
        def __call__(self, input_ids, scores):
            if input_ids.shape[1] == 2:
                scores[0] = -torch.inf
                scores[0, ids.think_close] = 0
            return scores

    rows = decode(
        model,
        processor,
        prompts[:2],
        thinking_budget=5,
        logits_processor=LogitsProcessorList([CloseFirstRow()]),
    ).tolist()
    place = slice(5, 5 + len(ids.closing_sentence))
    assert rows[0][2] == ids.think_close
    assert tuple(rows[0][place]) != ids.closing_sentence
    assert tuple(rows[1][place]) == ids.closing_sentence


def test_a_budget_and_sampling_repeat_with_the_same_seed(model, processor, prompts):
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(decode(model, processor, prompts, thinking_budget=5, do_sample=True))
    assert torch.equal(*outputs)
    closing = processor.token_ids.closing_sentence
    assert any(tuple(row[5 : 5 + len(closing)].tolist()) == closing for row in outputs[0])


@pytest.mark.parametrize(("max_new_tokens", "fits"), [(40, True), (39, False)])
def test_budget_closing_sentence_and_one_token_of_answer_must_fit(processor, max_new_tokens, fits):
    token_ids = replace(processor.token_ids, closing_sentence=tuple(range(24)))
    if fits:
        check_budget(15, max_new_tokens, token_ids)
    else:
        with pytest.raises(ValueError, match="set max_new_tokens to at least 40"):
            check_budget(15, max_new_tokens, token_ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"thinking_budget": 0}, "at least 1 token", id="no budget at all"),
        pytest.param({"thinking_budget": 59}, "leave no room for an answer", id="no answer"),
    ],
)
def test_a_budget_that_cannot_work_is_refused_before_decoding(
    model, processor, prompts, arguments, message
):
    with pytest.raises(ValueError, match=message):
        decode(model, processor, prompts, **arguments)


def test_media_that_do_not_fit_the_positions_are_refused(model, prompts):
    image = prompts[1]
    with pytest.raises(ValueError, match="no pixel_values"):
        model(image.input_ids[None])
    with pytest.raises(ValueError, match=r"reserve 2 .* give 1 visual"):
        model(image.input_ids[None], None, image.pixel_values[:4], torch.tensor([[1, 2, 2]]))
    with pytest.raises(ValueError, match="describe 4 patches"):
        model(image.input_ids[None], None, image.pixel_values, torch.tensor([[1, 2, 2]]))
    with pytest.raises(ValueError, match="unexpanded"):
        model(torch.tensor([[1, -200]]))


def test_a_text_only_batch_gives_visual_parameters_a_zero_gradient(model):
    model.train()
    ids = torch.tensor([[1, 2, 3]])
    model(ids, labels=ids).loss.backward()
    assert model.vte.weight.grad is not None
    assert not model.vte.weight.grad.any()
    assert model.get_input_embeddings().weight.grad.any()


def test_a_model_trains_on_a_shape_that_inference_met_first(model, processor):
    picture = Image.effect_noise((160, 96), 80).convert("RGB")
    prompt = processor.encode_prompt(IMAGE, images=[picture], enable_thinking=False)
    inputs = (prompt.input_ids[None], None, prompt.pixel_values, prompt.grid_thws)
    with torch.inference_mode():
        model(*inputs)
    model(*inputs, labels=prompt.input_ids[None].clamp(min=0)).loss.backward()
    assert model.visual_tokenizer.head[0].weight.grad.any()
