"""The FLOP counter, against torch's own on a tiny model and against the table for real ones."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_flop_count

from ovis_model.flops import PARTS, FlopCounter, FlopParts, Learning, peak_flops
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.tokens import IGNORE_ID, IMAGE_BEGIN_ID, IMAGE_END_ID, VISUAL_ATOM_ID
from tests.support.model_variants import LEARNING, learn, released
from tests.support.tiny_model import build_tokenizer, tiny_config

aten = torch.ops.aten
pytestmark = pytest.mark.usefixtures("plain_linear")
TEXT_TOKENS = 5
#: A sample as its grids; the text is five tokens, three of them learned.
SAMPLES = {
    "text": [[]],
    "image": [[(1, 4, 6)]],
    "video": [[(3, 4, 4)]],
    "several images": [[(1, 4, 6), (1, 2, 2), (1, 4, 6)]],
    "packed row": [[(1, 4, 6)], [], [(2, 2, 4)], [(1, 2, 2), (1, 8, 2)]],
}


def sdpa_on_cpu(query, key, value, dropout=0.0, is_causal=False, **_):
    """Torch's counter does not know the CPU's kernel; of causal attention, half is done."""
    flops = sdpa_flop_count(query.shape, key.shape, value.shape)
    return flops // 2 if is_causal else flops


def sdpa_on_cpu_backward(_grad, query, key, value, _out, _lse, dropout, is_causal, **_unused):
    """Twice the forward pass; the scores, which the kernel makes again, are left out."""
    return 2 * sdpa_on_cpu(query, key, value, is_causal=is_causal)


def raw(count):
    """Have torch's counter hand over the arguments as they are."""
    count._get_raw = True
    return count


#: What torch's counter does not know: two kernels of the CPU, and sums in place.
MAPPING = {
    aten.addmm_: lambda _sum, left, right, **_: mm_flop(left, right),
    aten._scaled_dot_product_flash_attention_for_cpu: raw(sdpa_on_cpu),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: raw(sdpa_on_cpu_backward),
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Ovis2_5ForConditionalGeneration(tiny_config(build_tokenizer())).train()


def inputs_of(samples):
    """Build one packed row and its shape."""
    rows, labels, lengths = [], [], []
    for grids in samples:
        ids = [1, 2]
        for t, h, w in grids:
            ids += [IMAGE_BEGIN_ID, *[VISUAL_ATOM_ID] * (t * h * w // 4), IMAGE_END_ID]
        learned = [IGNORE_ID] * len(ids) + [3, 4, 5]
        rows += [*ids, 3, 4, 5]
        labels += learned
        lengths.append(len(learned))
    grids = [grid for sample in samples for grid in sample]
    inputs = {"input_ids": torch.tensor([rows]), "labels": torch.tensor([labels])}
    if len(samples) > 1:
        inputs["sequence_lengths"] = lengths
    if grids:
        patches = sum(t * h * w for t, h, w in grids)
        inputs["pixel_values"] = torch.randint(256, (patches, 768), dtype=torch.uint8)
        inputs["grid_thws"] = torch.tensor(grids)
    return inputs, (lengths, grids, 3 * len(samples))


def measured(model, inputs, *, backward):
    with FlopCounterMode(display=False, custom_mapping=MAPPING) as counter:
        loss = model(**inputs, use_cache=False, logits_to_keep=1).loss
        if backward:
            loss.backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def one_logit(model):
    """The tiny model also returns the last position's logits, which a real one would not."""
    llm = model.config.llm
    return 2 * llm.hidden_size * llm.vocab_size


def dummy_image(model, shape, *, learning):
    """A sample without pictures runs the tower on 2 x 2 patches of zeros, if that learns."""
    counter = FlopCounter(model.config)
    if shape[1] or not learning.weights & {"vit", "head", "vte"}:
        return 0
    return counter.training([], [(1, 2, 2)], 0, learning=learning).total


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_forward_pass_is_counted_to_the_last_operation(model, kind):
    inputs, shape = inputs_of(SAMPLES[kind])
    learn(model, Learning(weights=frozenset()))
    counted = FlopCounter(model.config).forward(*shape).total
    extra = one_logit(model)
    assert measured(model, inputs, backward=False) == counted + extra


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("what", LEARNING)
def test_a_training_step_is_counted_to_the_last_operation(model, kind, what):
    learning = LEARNING[what]
    inputs, shape = inputs_of(SAMPLES[kind])
    learn(model, learning)
    counted = FlopCounter(model.config).training(*shape, learning=learning).total
    extra = one_logit(model) + dummy_image(model, shape, learning=learning)
    assert measured(model, inputs, backward=True) == counted + extra


@pytest.mark.parametrize("checkpointed", [("llm",), ("vit",), ("llm", "vit")], ids="+".join)
@pytest.mark.parametrize("what", ["all", "language model", "last block", "head"])
def test_what_is_computed_again_is_counted_again(model, what, checkpointed):
    learning = LEARNING[what]
    inputs, shape = inputs_of(SAMPLES["packed row"])
    learn(model, learning)
    model.checkpointed_parts = checkpointed
    model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        found = measured(model, inputs, backward=True)
    finally:
        model.activation_checkpointing_disable()
    counter = FlopCounter(model.config)
    counted = counter.training(*shape, learning=learning, checkpointed=checkpointed)
    expected = counted.total + one_logit(model) - not_again(model, shape, learning, checkpointed)
    assert found == expected


def not_again(model, shape, learning, checkpointed):
    """Torch stops computing a block again at the last product, of which nothing is kept."""
    lengths, grids, _ = shape
    llm, vit = model.config.llm, model.config.vit
    flops = 0
    if "llm" in checkpointed:
        tokens = sum(lengths)
        flops += 2 * tokens * llm.hidden_size * llm.intermediate_size * llm.num_hidden_layers
    if "vit" in checkpointed and learning.reached("vit"):
        blocks = learning.vit_blocks or vit.num_hidden_layers
        patches = sum(t * h * w for t, h, w in grids)
        flops += 2 * patches * vit.hidden_size * vit.intermediate_size * blocks
    return flops


# ---- released models ------------------------------------------------------------------------


SHARED = Path(__file__).parents[4] / "shared" / "ovis25-hf" / "config.json"


@pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared/ovis25-hf/config.json")
def test_the_released_configuration_counts_as_the_one_written_here():
    config = Ovis2_5Config.from_dict(json.loads(SHARED.read_text(encoding="utf-8")))
    shape = ([500, 900], [(1, 28, 28)], 70)
    assert FlopCounter(config).forward(*shape) == FlopCounter(released("9b")).forward(*shape)


#: TFLOP of one sample of 256 text tokens, forward, and three times the total, with the logits of
#: every position: ViT linear, ViT attention, head, VTE, LLM linear, LLM attention, lm_head, total.
#: Each image or frame is enclosed by two indicators.  Source: a count by hand, checked against
#: the number of parameters of the released models.
TABLE = [
    ("2b", (1, 28, 28), 1, (0.65, 0.08, 0.12, 0.05, 1.28, 0.02, 0.28, 2.48), 7.4),
    ("2b", (1, 56, 56), 1, (2.58, 1.22, 0.47, 0.21, 2.94, 0.12, 0.65, 8.20), 24.6),
    ("2b", (1, 84, 112), 1, (7.75, 11.01, 1.42, 0.63, 7.36, 0.78, 1.62, 30.6), 91.7),
    ("2b", (1, 112, 112), 1, (10.3, 19.6, 1.89, 0.84, 9.57, 1.32, 2.11, 45.7), 136.9),
    ("2b", (8, 28, 28), 8, (5.17, 0.61, 0.95, 0.42, 5.19, 0.39, 1.15, 13.9), 41.6),
    ("9b", (1, 28, 28), 1, (0.65, 0.08, 0.12, 0.11, 6.31, 0.06, 0.57, 7.88), 23.6),
    ("9b", (1, 56, 56), 1, (2.58, 1.22, 0.47, 0.42, 14.5, 0.32, 1.30, 20.8), 62.4),
    ("9b", (1, 84, 112), 1, (7.75, 11.01, 1.42, 1.26, 36.3, 2.01, 3.25, 63.0), 188.9),
    ("9b", (1, 112, 112), 1, (10.3, 19.6, 1.89, 1.68, 47.2, 3.40, 4.22, 88.3), 264.8),
    ("9b", (64, 28, 28), 64, (41.3, 4.89, 7.58, 6.73, 179.6, 49.3, 16.1, 305.5), 916.6),
]


@pytest.mark.parametrize(("size", "grid", "indicators", "expected", "trained"), TABLE)
def test_released_models_count_as_the_table_of_hand_made_numbers(
    size, grid, indicators, expected, trained
):
    t, h, w = grid
    tokens = 256 + t * h * w // 4 + 2 * indicators
    counter = FlopCounter(released(size))
    parts = counter.forward([tokens], [grid], tokens)
    found = (*asdict(parts).values(), parts.total)
    # Three digits are printed there, and two after the point.
    for value, printed in zip(found, expected, strict=True):
        assert value / 1e12 == pytest.approx(printed, rel=6e-3, abs=6e-3)
    whole = counter.training([tokens], [grid], tokens)
    # Three times the forward pass, less the patch embedding's gradient of the pixels.
    assert 3 * parts.total - whole.total == t * h * w * 2 * 768 * 1152
    assert whole.total / 1e12 == pytest.approx(trained, rel=1e-2)


@pytest.mark.parametrize(
    ("size", "token", "logits", "vte"),
    [("2b", 2.82, 0.622, 0.268), ("9b", 13.89, 1.245, 0.537)],
)
def test_units_of_released_models(size, token, logits, vte):
    counter = FlopCounter(released(size))
    assert counter.token / 1e9 == pytest.approx(token, abs=0.006)
    assert counter.lm_head / 1e9 == pytest.approx(logits, abs=0.0006)
    assert counter.vte / 1e9 == pytest.approx(vte, abs=0.0006)
    assert counter.head / 1e9 == pytest.approx(0.604, abs=0.0006)
    atom = counter.forward([], [(1, 2, 2)], 0)
    assert atom.vit_linear / 1e9 == pytest.approx(3.30, abs=0.006)


def test_windows_are_counted_as_the_model_cuts_them():
    windowed = tiny_config(build_tokenizer())
    windowed.vit.fullatt_block_indexes = "1"
    torch.manual_seed(0)
    model = Ovis2_5ForConditionalGeneration(windowed).train()
    inputs, shape = inputs_of([[(1, 8, 16)]])
    learn(model, Learning(weights=frozenset()))
    counted = FlopCounter(windowed).forward(*shape)
    whole = FlopCounter(tiny_config(build_tokenizer())).forward(*shape)
    assert counted.vit_attention < whole.vit_attention
    found = measured(model, inputs, backward=False)
    assert found == counted.total + one_logit(model)


# ---- small print ----------------------------------------------------------------------------


def test_adapters_let_gradients_pass_and_leave_weights_alone(model):
    counter = FlopCounter(model.config)
    shape = ([9], [(1, 2, 2)], 3)
    adapted = Learning(weights=frozenset(), adapters=frozenset({"llm"}))
    once, trained = counter.forward(*shape), counter.training(*shape, learning=adapted)
    assert trained.vision == once.vision
    assert trained.llm_linear == 2 * once.llm_linear
    assert trained.llm_attention == 3 * once.llm_attention
    assert trained.lm_head == 2 * once.lm_head


def test_when_nothing_learns_training_is_a_forward_pass(model):
    counter = FlopCounter(model.config)
    shape = ([9], [(1, 2, 2)], 3)
    nothing = Learning(weights=frozenset())
    assert counter.training(*shape, learning=nothing, checkpointed=PARTS) == counter.forward(
        *shape
    )


def test_parts_add_up(model):
    counter = FlopCounter(model.config)
    one, other = counter.forward([9], [(1, 2, 2)], 3), counter.forward([5, 7], [], 4)
    assert one + other == counter.forward([9, 5, 7], [(1, 2, 2)], 7)
    assert FlopParts(1, 2, 3, 4, 5, 6, 7).total == 28
    assert FlopParts(1, 2, 3, 4, 5, 6, 7).vision == 10


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H20", None),
        ("Radeon", None),
    ],
)
def test_a_device_is_known_by_its_name_or_not_at_all(name, peak):
    assert peak_flops(name) == peak
