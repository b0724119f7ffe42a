"""A frozen vision tower: no graph, and on request no second look at a picture."""

import gc
from dataclasses import dataclass

import pytest
import torch

from ovis_model.errors import ConfigError
from ovis_model.flops import BatchShape, FlopCounter, Learning
from ovis_model.modeling.checkpoint import load_model
from ovis_model.training.throughput import Throughput
from ovis_model.training.train_modules import what_learns
from ovis_model.training.visual_cache import choose_kind
from tests.support.running_trainer import prepared_trainer
from tests.support.training_world import build_training_world, image_sample, mixed_samples

NOTHING_VISUAL = {"train_modules": "llm"}
TOWER_FROZEN = {"freeze_vision_tower": True}
PACKED = {"packing": True, "per_device_train_batch_size": 1, "pack_length": 400}
#: Two epochs of four samples of every kind.
TWICE = {"max_steps": -1, "num_train_epochs": 2, "logging_steps": 1}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    samples = [*mixed_samples(), {**image_sample(2), "id": "again"}]
    return build_training_world(tmp_path_factory.mktemp("mixed"), samples=samples)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    samples = [image_sample(number) for number in range(4)]
    return build_training_world(tmp_path_factory.mktemp("pictures"), samples=samples)


@dataclass(frozen=True)
class Seen:
    """What a training showed.

    Attributes:
        losses: Of each step.
        looks: Patches the tower saw, each time it was called.
        kept: What of how many media in how many bytes was kept; None without a cache.
    """

    losses: list[float]
    looks: list[int]
    kept: tuple[str, int, int] | None


def look_while_training(world, **settings):
    with prepared_trainer(world.config(**settings), world.data) as trainer:
        looks = []
        tower = trainer.network.visual_tokenizer.vit
        tower.register_forward_hook(lambda _, inputs, __: looks.append(len(inputs[0])))
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        cache = trainer.visual_cache
        kept = None if cache is None else (cache.kind, len(cache), cache.num_bytes)
        del trainer, tower, cache
    gc.collect()  # or ZeRO-3 would cut the models of the next tests into pieces, too
    return Seen(losses, looks, kept)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_visual_activation_requires_a_gradient_when_nothing_visual_learns(mixed, checkpointing):
    settings = mixed.config(**NOTHING_VISUAL, max_steps=1, gradient_checkpointing=checkpointing)
    with prepared_trainer(settings, mixed.data) as trainer:
        found = []
        network = trainer.network
        for module in (*network.visual_tokenizer.modules(), network.vte):
            module.register_forward_hook(lambda *call: found.append(call[2].requires_grad))
        trainer.train()
    assert found
    assert not any(found)


def test_a_text_alone_is_not_accompanied_by_a_dummy_picture_when_nothing_visual_learns(mixed):
    def looks(**settings):
        settings = {**settings, "per_device_train_batch_size": 1}
        order = {"train_sampling_strategy": "sequential", "max_steps": 4}
        return look_while_training(mixed, **settings, **order).looks

    assert len(looks(**NOTHING_VISUAL)) == 3  # the fourth sample is text
    assert len(looks(**TOWER_FROZEN)) == 4
    # ZeRO-3 gathers the tower on all processes together, or not at all.
    assert len(looks(**NOTHING_VISUAL, deepspeed=mixed.deepspeed(3))) == 4


@pytest.mark.parametrize("stage", [None, 2])
@pytest.mark.parametrize(
    ("what", "kind"), [(NOTHING_VISUAL, "embeddings"), (TOWER_FROZEN, "features")]
)
def test_each_picture_is_looked_at_once_and_losses_are_the_same_to_the_bit(
    pictures, what, kind, stage
):
    deepspeed = None if stage is None else pictures.deepspeed(stage)
    settings = {**what, **TWICE, "per_device_train_batch_size": 1, "deepspeed": deepspeed}
    plain = look_while_training(pictures, **settings)
    seen = look_while_training(pictures, **settings, cache_visual_tokens=True)
    assert seen.losses == plain.losses
    assert (len(plain.looks), len(seen.looks)) == (8, 4)
    tokens = sum(seen.looks) // 4
    width = {"embeddings": 32, "features": 4 * 32}[kind]
    assert seen.kept == (kind, 4, tokens * width * 4)


@pytest.mark.parametrize("batch", [{"per_device_train_batch_size": 5}, PACKED])
@pytest.mark.parametrize("what", [NOTHING_VISUAL, TOWER_FROZEN])
def test_padded_and_packed_batches_of_every_kind_learn_the_same_with_pictures_kept(
    mixed, batch, what
):
    settings = {**what, **batch, **TWICE}
    plain = look_while_training(mixed, **settings)
    seen = look_while_training(mixed, **settings, cache_visual_tokens=True)
    assert seen.losses == pytest.approx(plain.losses, abs=1e-5)
    # Of seven pictures three come again; the two frames of the video are one medium.
    assert seen.kept[1] == 5


def test_work_that_is_not_done_again_is_not_counted_again(pictures):
    model = load_model(pictures.base)
    grid, shape = (1, 4, 4), BatchShape(sequences=(20,), grids=((1, 4, 4),), num_supervised=5)
    for rates, tower_alone in (
        ({"llm.model.norm.weight": 1.0}, False),
        ({"vte.weight": 1.0}, True),
    ):
        work = Throughput(model, rates, device=torch.device("cpu"), world_size=1)
        work.add(20, shape, rows=(1, 20))
        work.leave_out([grid], tower_alone=tower_alone)
        counter = FlopCounter(model.config)
        learning = what_learns(rates, num_blocks=2)
        parts = counter.of(shape, learning=learning)
        left = parts.llm_linear + parts.llm_attention + parts.lm_head
        left += (parts.head + parts.vte) * tower_alone
        assert work._flops == left


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the vision tower learns, .* set freeze_vision_tower: true"),
        ({"lora_r": 2, "lora_modules": "all"}, "the vision tower learns"),
    ],
)
def test_what_may_not_be_kept_is_refused(pictures, settings, message):
    config = pictures.config(**settings, cache_visual_tokens=True)
    with pytest.raises(ConfigError, match=message), prepared_trainer(config, pictures.data):
        pytest.fail("prepared")


def test_nothing_is_kept_where_processes_have_to_look_together():
    with pytest.raises(ConfigError, match=r"under ZeRO-3 all processes have to .* use ZeRO-2"):
        choose_kind(Learning(weights=frozenset({"llm"})), zero_stage=3)
