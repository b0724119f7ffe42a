"""Activations, against what autograd really saves on a small model."""

import contextlib

import pytest
import torch

from ovis_model.flops import BatchShape, Learning
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.planning.activations import (
    Circumstances,
    PaddedBatch,
    count_activations,
    llm_layer_bytes,
    vit_block_bytes,
    worst_batch,
)
from ovis_model.planning.packed import batch_of_row
from ovis_model.planning.states import Engine
from ovis_model.tokens import IGNORE_ID, IMAGE_BEGIN_ID, IMAGE_END_ID, VISUAL_ATOM_ID
from ovis_model.train_config import TrainConfig
from ovis_model.training.adapters import add_adapters
from ovis_model.training.train_modules import freeze_others, learning_rates, what_learns
from tests.support.model_variants import LEARNING, learn, released

pytestmark = pytest.mark.usefixtures("plain_linear")

GRID = (1, 16, 20)
NUM_LEARNED = 200
ENGINES = {
    "float32": Engine(),
    "bfloat16": Engine(stage=2, weight_bytes=2),
    "autocast": Engine(autocast=True),
}


def build(engine, *, layers=3, blocks=3):
    torch.manual_seed(0)
    config = Ovis2_5Config(
        llm_config={
            "model_type": "qwen3",
            "vocab_size": 512,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "tie_word_embeddings": False,
        },
        vit_config={
            "hidden_size": 96,
            "intermediate_size": 200,
            "num_hidden_layers": blocks,
            "num_attention_heads": 3,
            "image_size": 64,
        },
        visual_vocab_size=96 + 4,
    )
    dtype = torch.bfloat16 if engine.weight_bytes == 2 else torch.float32
    return Ovis2_5ForConditionalGeneration(config).to(dtype).train()


def batch():
    atoms = GRID[1] * GRID[2] // 4
    ids = [1, 2, IMAGE_BEGIN_ID, *[VISUAL_ATOM_ID] * atoms, IMAGE_END_ID]
    labels = [IGNORE_ID] * len(ids) + [3] * NUM_LEARNED
    ids += [3] * NUM_LEARNED
    inputs = {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "pixel_values": torch.randint(256, (GRID[1] * GRID[2], 768), dtype=torch.uint8),
        "grid_thws": torch.tensor([GRID]),
    }
    return inputs, PaddedBatch(len(ids), len(ids), BatchShape((len(ids),), (GRID,), NUM_LEARNED))


def saved_bytes(model, inputs, *, autocast=False):
    """Sum what autograd keeps of a forward pass, weights and their copies left out."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    # Copies of weights are told by their shape; they count as the autocast item of a plan.
    shapes = {frozenset(one.shape) for one in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        is_copy = autocast and len(tensor.shape) == 2 and frozenset(tensor.shape) in shapes
        if storage.data_ptr() not in weights and not is_copy:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    context = torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext()
    with hooks, context:
        model(**inputs, use_cache=False, logits_to_keep=1)
    return sum(num_bytes for num_bytes, _ in kept.values())


@pytest.mark.parametrize("name", ENGINES)
def test_a_layer_and_a_block_keep_exactly_what_the_formulas_say(name):
    engine = ENGINES[name]
    inputs, shape = batch()
    autocast = engine.autocast
    base, deeper, taller = (
        saved_bytes(build(engine, layers=layers, blocks=blocks), inputs, autocast=autocast)
        for layers, blocks in ((2, 2), (3, 2), (2, 3))
    )
    config = build(engine).config
    s = 2 if autocast else engine.weight_bytes
    layer = llm_layer_bytes(config.llm, s=s, autocast=autocast, learns=True)
    block = vit_block_bytes(config.vit, s=s, autocast=autocast)
    assert deeper - base == layer * shape.positions
    assert taller - base == block * shape.patches


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", ["all", "language model", "vision tower", "last block"])
def test_a_forward_pass_keeps_what_was_planned(name, what):
    engine, learning = ENGINES[name], LEARNING[what]
    model = build(engine)
    learn(model, learning)
    inputs, shape = batch()
    under = Circumstances(engine, learning, checkpointed=(), device="cpu")
    planned = count_activations(model.config, shape, under)
    # Where no gradient passes the tower's result is planned for, but autograd keeps nothing.
    kept = planned.llm + planned.visual + planned.tower * learning.reached("vit")
    assert saved_bytes(model, inputs) == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("lora_modules", ["llm", "all"])
def test_adapters_keep_no_more_than_what_learning_layers_are_planned_to(lora_modules):
    engine = ENGINES["float32"]
    model = build(engine)
    config = TrainConfig(ovis_pretrained_path="x", lora_r=8, lora_modules=lora_modules)
    add_adapters(model, config)
    rates = learning_rates([name for name, _ in model.named_parameters()], config)
    freeze_others(model, rates)
    learning = what_learns(rates, num_blocks=3)
    inputs, shape = batch()
    planned = count_activations(model.config, shape, Circumstances(engine, learning, (), "cpu"))
    kept = planned.llm + planned.visual + planned.tower * learning.reached("vit")
    assert 0.8 * kept < saved_bytes(model, inputs) < kept


def test_a_packed_row_keeps_what_a_padded_batch_of_as_many_positions_does():
    engine = ENGINES["float32"]
    model = build(engine)
    one, shape = batch()
    row = {
        "input_ids": one["input_ids"].repeat(1, 2),
        "labels": one["labels"].repeat(1, 2),
        "pixel_values": one["pixel_values"].repeat(2, 1),
        "grid_thws": one["grid_thws"].repeat(2, 1),
    }
    # Two samples of different lengths, as they mostly are: they attend one after the other.
    lengths = [shape.longest + 7, shape.longest - 7]
    samples = BatchShape(tuple(lengths), (GRID, GRID), 2 * NUM_LEARNED)
    under = Circumstances(engine, Learning(), checkpointed=(), device="cpu")
    planned = count_activations(model.config, batch_of_row(samples), under)
    kept = planned.llm + planned.visual + planned.tower
    found = saved_bytes(model, {**row, "sequence_lengths": lengths})
    assert found == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize("checkpointed", [("llm",), ("vit",), ("llm", "vit")], ids="+".join)
def test_a_checkpointed_forward_pass_keeps_what_was_planned(checkpointed):
    engine = ENGINES["float32"]
    model = build(engine, layers=8, blocks=8)
    model.checkpointed_parts = checkpointed
    model.activation_checkpointing_enable({"use_reentrant": False})
    inputs, shape = batch()
    under = Circumstances(engine, Learning(), checkpointed, device="cpu")
    planned = count_activations(model.config, shape, under)
    whole = count_activations(
        model.config, shape, Circumstances(engine, Learning(), (), device="cpu")
    )
    kept = planned.llm + planned.visual + planned.tower
    assert saved_bytes(model, inputs) == pytest.approx(kept, rel=0.05)
    assert planned.peak < whole.peak


def planned_for(size, engine, *, positions=8192, device="cuda", checkpointed=()):
    shape = PaddedBatch(positions, positions, BatchShape((positions,), ((1, 112, 112),), 4000))
    under = Circumstances(engine, Learning(), checkpointed, device)
    return count_activations(released(size), shape, under)


def test_released_models_keep_megabytes_per_token():
    config = released("2b")
    layer = llm_layer_bytes(config.llm, s=2, autocast=False, learns=True)
    block = vit_block_bytes(config.vit, s=2, autocast=False)
    # 3.2 MB per token of the language model, 3.9 MB per visual token of the tower.
    assert 28 * layer / 1e6 == pytest.approx(3.2, abs=0.1)
    assert 27 * block * 4 / 1e6 == pytest.approx(3.9, abs=0.1)


def test_chunks_bound_logits_and_visual_words():
    engine = Engine(stage=2, weight_bytes=2)
    planned = planned_for("2b", engine)
    # 1,024 tokens times 65,532 words times 16 bytes, however large the picture.
    assert planned.words == 1024 * 65532 * 16
    assert planned.visual == 0
    chunk, gradient = 512 * 2**20 * 6 / 4, 151936 * 2048 * 2
    hidden = 2 * 4000 * 2048 * 2
    assert planned.logits == pytest.approx(chunk + gradient + hidden, rel=0.01)
    on_cpu = planned_for("2b", engine, device="cpu")
    assert on_cpu.words == planned.words * 3 // 8
    assert on_cpu.logits < planned.logits


def test_a_tied_embedding_s_gradient_is_held_until_its_other_half_comes():
    config = released("2b")
    batch = PaddedBatch(8192, 8192, BatchShape((8192,), (), 4000))
    under = Circumstances(Engine(stage=2, weight_bytes=2), Learning(), (), "cuda")
    assert count_activations(config, batch, under).held == 0
    config.llm.tie_word_embeddings = True
    assert count_activations(config, batch, under).held == 151936 * 2048 * 2


def test_gradients_of_a_micro_batch_are_extra_where_they_are_accumulated():
    once, accumulating = (
        planned_for("9b", Engine(stage=2, weight_bytes=2, accumulates=accumulates))
        for accumulates in (False, True)
    )
    assert once.word_gradients == 0
    assert accumulating.word_gradients == 65536 * (4608 + 2 * 4096) * 2
    assert accumulating.peak >= once.peak


def test_scores_of_visual_words_are_kept_on_a_cpu_as_long_as_they_are_few():
    config = released("2b")
    few = PaddedBatch(2048, 2048, BatchShape((2048,), ((1, 64, 64),), 100))
    under = Circumstances(Engine(), Learning(), (), "cpu")
    assert count_activations(config, few, under).visual == 1024 * 65532 * 4
    gathered = Circumstances(Engine(stage=3), Learning(), (), "cpu")
    assert count_activations(config, few, gathered).visual == 0
    many = PaddedBatch(8192, 8192, BatchShape((8192,), ((1, 112, 112),), 100))
    assert count_activations(config, many, under).visual == 0


def test_eager_attention_keeps_its_scores():
    config = released("2b")
    shape = PaddedBatch(4096, 1024, BatchShape((1024,) * 4, (), 100))
    engine = Engine(stage=2, weight_bytes=2)
    plain, eager = (
        count_activations(config, shape, Circumstances(engine, Learning(), (), "cuda", eager))
        for eager in (False, True)
    )
    assert eager.llm - plain.llm == 4096 * 28 * 16 * 1024 * 6


def test_the_worst_batch_is_made_of_the_largest_of_each():
    shapes = [
        BatchShape((50,), ((1, 4, 4),), 7),
        BatchShape((10,), ((1, 8, 8),), 3),
        BatchShape((60,), (), 1),
    ]
    batch = worst_batch(shapes, 2)
    assert (batch.positions, batch.longest, batch.patches) == (120, 60, 80)
    assert batch.shape.num_supervised == 10
    assert worst_batch(shapes, 8).positions == 180
