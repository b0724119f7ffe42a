"""Weights, gradients and optimizer states, against what engines hold, byte for byte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ovis_model.errors import ConfigError
from ovis_model.planning.memory import Outline, read_model_config
from ovis_model.planning.states import Engine, count_states, largest_share, place_states
from ovis_model.train_config import TrainConfig
from tests.support.held_memory import look_while_training
from tests.support.model_variants import released
from tests.support.training_world import build_training_world

ROOT = Path(__file__).parents[4]
ACCUMULATING = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("world"))


def planned(settings, *, processes=1):
    config = TrainConfig.parse(settings, where="test")
    model_config = read_model_config(Path(config.ovis_pretrained_path))
    outline = Outline.of(model_config, config)
    engine = Engine.of(config, hidden_size=outline.config.hidden_size, processes=processes)
    frozen = outline.parameters - outline.trainable
    return count_states(outline.groups, frozen, engine, on_cpu=True)


def as_held(states):
    return {
        "weights": states.weights,
        "gradients": states.gradients,
        "masters": states.masters,
        "moments": states.moments,
    }


@pytest.mark.parametrize(
    ("stage", "bf16"),
    [(None, True), (0, False), (0, True), (1, True), (2, False), (2, True), (3, True)],
)
def test_an_engine_holds_exactly_what_was_planned(world, stage, bf16):
    deepspeed = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
    settings = world.config(bf16=bf16, **ACCUMULATING, **deepspeed)
    held = look_while_training(settings, world.data)
    del held["risen"]
    assert held == as_held(planned(settings))


@pytest.mark.parametrize("stage", [2, 3])
def test_several_groups_and_frozen_modules_are_planned_exactly(world, stage):
    settings = world.config(
        train_modules="llm:1e-3|visual_tokenizer.vit.last_block:1e-4",
        weight_decay=0.1,
        deepspeed=world.deepspeed(stage),
        bf16=True,
        **ACCUMULATING,
    )
    held = look_while_training(settings, world.data)
    del held["risen"]
    assert held == as_held(planned(settings))


@pytest.mark.parametrize("stage", [2, 3])
def test_adapters_are_planned_exactly(world, stage):
    settings = world.config(
        lora_r=4, train_modules="all|vte", deepspeed=world.deepspeed(stage), **ACCUMULATING
    )
    held = look_while_training(settings, world.data)
    del held["risen"]
    assert held == as_held(planned(settings))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_hold_exactly_what_was_planned(world, stage, tmp_path):
    settings = world.config(bf16=True, deepspeed=world.deepspeed(stage), **ACCUMULATING)
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"config": settings, "data": str(world.data)}), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    module = ["--nproc_per_node=2", "-m", "tests.support.held_memory", str(job)]
    command = [*launcher, *module, str(tmp_path / "held")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"held.{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    largest = {name: max(rank[name] for rank in ranks) for name in ranks[0]}
    del largest["risen"]
    assert largest == as_held(planned(settings, processes=2))


@pytest.mark.parametrize(("size", "gigabytes"), [("2b", 41.1), ("9b", 146.8)])
def test_full_fine_tuning_of_released_models_takes_sixteen_bytes_per_number(size, gigabytes):
    model_config = released(size)
    model_config.tie_word_embeddings = model_config.llm.tie_word_embeddings = size == "2b"
    config = TrainConfig(ovis_pretrained_path="x")
    outline = Outline.of(model_config, config)
    frozen = outline.parameters - outline.trainable
    for stage in (1, 2, 3):
        engine = Engine(stage=stage, weight_bytes=2)
        states = count_states(outline.groups, frozen, engine, on_cpu=False)
        total = sum(as_held(states).values())
        assert total / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_zero_3_on_eight_gpus_holds_an_eighth():
    outline = Outline.of(released("9b"), TrainConfig(ovis_pretrained_path="x"))
    engine = Engine(stage=3, weight_bytes=2, processes=8)
    states = count_states(outline.groups, 0, engine, on_cpu=False)
    assert sum(as_held(states).values()) / 1e9 == pytest.approx(146.8 / 8, abs=0.05)


def test_a_process_keeps_whole_the_tensors_at_its_edges():
    assert largest_share([[4, 8, 4]], 2) == 12
    assert largest_share([[8, 8]], 2) == 8
    assert largest_share([[8, 8], [2, 2]], 2) == 10
    assert largest_share([[6]], 1) == 6


@pytest.mark.parametrize(
    ("name", "device", "host"),
    [
        ("zero2", 2 + 2 + 12, 0),
        # Weights stay; float32 gradients and a 16-bit copy of the result go with the optimizer.
        ("zero2_offload", 2, 4 + 2 + 12),
        ("zero3_offload", 0, 2 + 4 + 2 + 12),
    ],
)
def test_offloading_moves_states_to_the_host(name, device, host):
    preset = ROOT / "config" / "deepspeed" / f"{name}.json"
    config = TrainConfig(ovis_pretrained_path="x", bf16=True, deepspeed=str(preset))
    engine = Engine.of(config, hidden_size=8, processes=1)
    states = count_states([[1000, 1000]], 0, engine, on_cpu=False)
    items = [item for item in place_states(states, engine) if item.name != "buffers"]
    steps = 4
    assert sum(item.device_bytes for item in items) == 2000 * device + (steps if not host else 0)
    assert sum(item.host_bytes for item in items) == 2000 * host + (steps if host else 0)


def test_an_engine_is_described_as_it_is_configured(world):
    def engine(**settings):
        config = TrainConfig(ovis_pretrained_path="x", **settings)
        return Engine.of(config, hidden_size=32, processes=2)

    presets = ROOT / "config" / "deepspeed"
    assert engine().name == "distributed data parallel"
    assert engine(bf16=True).precision == "16 bits by autocast, weights in float32"
    zero2 = engine(deepspeed=str(presets / "zero2.json"), bf16=True)
    assert (zero2.buckets, zero2.bucket, zero2.precision) == (2, 500_000_000, "16 bits")
    zero3 = engine(deepspeed=str(presets / "zero3.json"))
    assert (zero3.buckets, zero3.bucket, zero3.precision) == (1, 32 * 32, "float32")
    offload = engine(deepspeed=str(presets / "zero3_offload.json"))
    assert offload.name == "DeepSpeed ZeRO-3, optimizer and parameters in host memory"
    with pytest.raises(ConfigError, match="there is no file"):
        engine(deepspeed="gone.json")


@pytest.mark.parametrize(
    ("optim", "bytes_per_number"), [("sgd", 0), ("adamw_bnb_8bit", 2), ("adamw_torch", 8)]
)
def test_other_optimizers_hold_less(optim, bytes_per_number):
    config = TrainConfig(ovis_pretrained_path="x", optim=optim)
    engine = Engine.of(config, hidden_size=8, processes=1)
    states = count_states([[1000]], 0, engine, on_cpu=True)
    assert states.moments == 1000 * bytes_per_number + (4 if optim == "adamw_torch" else 0)
