"""What saves memory or time changes no number: each way is held to the reference's own.

Released sizes take these ways by themselves; the tiny model has to be told.
"""

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.modeling import loss as loss_module
from ovis_model.modeling import visual_tokenizer as visual_tokenizer_module

from .conftest import (
    GOLDEN,
    assert_close,
    assert_logits,
    cases,
    inputs_of,
    manifest,
    needs_golden,
    norm_of,
    read,
    tensors,
)

pytestmark = needs_golden

#: Visual tokens, and learned positions, of which the probabilities exist at a time.
TOKENS_PER_CHUNK = 3


@pytest.fixture
def chunked(monkeypatch, model):
    """Let visual words and logits exist for a few positions at a time."""
    words = model.visual_tokenizer.num_words
    row_bytes = 4 * model.config.llm.vocab_size
    monkeypatch.setitem(visual_tokenizer_module.CHUNK_SIZE, "cpu", TOKENS_PER_CHUNK * words)
    monkeypatch.setattr(loss_module, "MIN_CHUNK_ROWS", 1)
    monkeypatch.setitem(loss_module.CHUNK_BYTES, "cpu", TOKENS_PER_CHUNK * row_bytes)
    assert loss_module.chunk_rows(model.config.llm.vocab_size, torch.device("cpu")) == 3


def assert_gradients(model, case):
    expected = read(f"model/{case['grads']}")
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        theirs = expected["parameters"][name]
        assert norm_of([gradient]) == pytest.approx(theirs["l2"], rel=1e-4), name
        element = 1e-4 * theirs["absmax"]
        assert gradient.flatten()[:4].tolist() == pytest.approx(theirs["first"], abs=element)
    assert norm_of(gradients.values()) == pytest.approx(expected["global_l2"], rel=1e-4)


@pytest.mark.parametrize("case", cases("model"))
def test_chunks_give_the_reference_loss_and_gradients(case, model, windows, chunked):
    windows(case["fullatt_block_indexes"])
    model.train("train mode" in case["reference"])
    model.zero_grad()
    stored = tensors("model", case)
    loss = model(**inputs_of(stored), labels=stored["labels"]).loss
    loss.backward()
    model.eval()
    assert loss.item() == pytest.approx(case["loss"], rel=5e-6)
    assert_gradients(model, case)


@pytest.mark.parametrize(
    "case", [case for case in cases("vit") if case.values[0]["storage"] == "full"]
)
@torch.no_grad()
def test_chunks_give_the_reference_visual_embeddings(case, model, windows, chunked):
    stored = tensors("vit", case)
    windows(case["fullatt_block_indexes"])
    visual = model.embed_media(stored["pixel_values_u8"], stored["grid_thws"])
    assert_close(visual, stored["visual_embeds"], of_max=0, atol=2e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("case", cases("model"))
@torch.no_grad()
def test_every_attention_gives_the_reference_logits(case, implementation, model, windows):
    windows(case["fullatt_block_indexes"])
    stored = tensors("model", case)
    real = stored["attention_mask"]
    model.set_attention(implementation)
    logits = model(**inputs_of(stored)).logits
    model.set_attention("auto")
    assert_logits(logits[real], stored["logits"][real])


@pytest.mark.parametrize(
    "case", [case for case in cases("model") if case.id.startswith("right_padded")]
)
def test_a_packed_row_gives_the_reference_logits_loss_and_gradients(case, model):
    """The padded batch of the reference, its padding taken out, as one row."""
    stored = tensors("model", case)
    real = stored["attention_mask"]
    model.zero_grad()
    packed = {
        "input_ids": stored["input_ids"][real][None],
        "pixel_values": stored["pixel_values"],
        "grid_thws": stored["grid_thws"],
        "sequence_lengths": real.sum(dim=1).tolist(),
    }
    assert_logits(model(**packed).logits[0], stored["logits"][real])
    loss = model(**packed, labels=stored["labels"][real][None]).loss
    assert loss.item() == pytest.approx(case["loss"], rel=5e-6)
    loss.backward()
    assert_gradients(model, case)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case["name"])
        for case in manifest("generate")["cases"]
        if case["name"] in ("image_nothink", "video_nothink", "budget_hit_image")
    ],
)
@pytest.mark.parametrize("rest", [1, 5], ids=["one id", "several ids"])
def test_a_prefix_read_before_gives_the_reference_ids(case, rest, model):
    stored = load_file(GOLDEN / "generate" / f"prompt_{case['prompt']}.safetensors")
    ids, arguments = stored["input_ids"], case["generate_kwargs"]
    prefix = model.encode_prefix(ids[:, :-rest], stored["pixel_values"], stored["grid_thws"])
    new_ids = model.generate(
        ids[:, -rest:],
        prefix=prefix,
        thinking_budget=arguments.get("thinking_budget"),
        max_new_tokens=arguments["max_new_tokens"],
    )
    assert new_ids[0].tolist() == case["output_ids"]
