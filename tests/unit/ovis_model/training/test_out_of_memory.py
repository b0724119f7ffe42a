import json
import re

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.errors import OutOfMemoryError, TrainingError
from ovis_model.train_config import TrainConfig
from ovis_model.training.micro_batch import Reduction, divided, reduced, reductions
from ovis_model.training.out_of_memory import is_out_of_memory
from ovis_model.training.training import train
from tests.support.small_memory import holding
from tests.support.training_world import TrainingWorld, build_training_world

SIX_STEPS = {"max_steps": 6, "save_steps": 2, "logging_steps": 1, "optim": "sgd"}


def run(world: TrainingWorld, **overrides):
    config = TrainConfig.parse(world.config(**{**SIX_STEPS, **overrides}), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def curve(world: TrainingWorld) -> dict[int, float]:
    lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("'weight' must be 2-D"), False),
        (ValueError("CUDA out of memory."), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_torch_s_own_words_for_an_allocation_that_failed_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(("size", "smaller"), [(16, 8), (2, 1), (9, 3), (7, 1)])
def test_the_samples_of_a_step_stay_the_same(size, smaller):
    config = TrainConfig(
        ovis_pretrained_path="base",
        per_device_train_batch_size=size,
        gradient_accumulation_steps=3,
    )
    assert divided(config) == (smaller, 3 * size // smaller)


def test_the_last_reduction_holds():
    config = TrainConfig(ovis_pretrained_path="base", per_device_train_batch_size=8)
    found = [
        Reduction(
            step=1, process=0, per_device_train_batch_size=size, gradient_accumulation_steps=more
        )
        for size, more in ((4, 16), (2, 32))
    ]
    assert reduced(config, []) is config
    assert reduced(config, found).per_device_train_batch_size == 2
    assert reduced(config, found).gradient_accumulation_steps == 32


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="random order"),
        pytest.param({"train_sampling_strategy": "group_by_length"}, id="by length"),
        pytest.param({"zero": 2}, id="zero 2"),
    ],
)
def test_training_goes_on_with_half_the_samples_at_a_time_and_learns_the_same(world, settings):
    settings = dict(settings)
    if stage := settings.pop("zero", None):
        settings["deepspeed"] = world.deepspeed(stage)
    run(world, **settings)
    losses, weights = curve(world), load_file(world.output / "model.safetensors")

    with holding(2, batch=4):
        with pytest.raises(OutOfMemoryError) as caught:
            run(world, **settings)
        assert re.match(
            r"step 4 ran out of memory: cpu:0 held \d+\.\d\d GB of \d+\.\d\d GB at the most; in "
            r"work were 4 row\(s\) of \d+ positions with \d+ tokens, samples \w+, .*Tried to "
            r"allocate 2\.00 GiB\.\)\. From the last checkpoint on, per_device_train_batch_"
            r"size is 2 and gradient_accumulation_steps 2: as many samples per step as before",
            str(caught.value),
        )
        report = run(world, **settings)

    assert [one.model_dump() for one in report.micro_batch_reductions] == [
        {
            "step": 4,
            "process": 0,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
        }
    ]
    assert report.effective_batch_size == 4
    assert curve(world) == pytest.approx(losses, abs=1e-5)
    for name, tensor in load_file(world.output / "model.safetensors").items():
        assert tensor.allclose(weights[name], atol=1e-5), name
    assert not world.resume.exists()


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        pytest.param(
            {"per_device_train_batch_size": 1},
            r"One sample cannot be halved: lower multimodal_max_length \(8192\), turn on gradient",
            id="one sample",
        ),
        pytest.param(
            {"per_device_train_batch_size": 1, "packing": True, "pack_length": 200},
            r"A packed row is never cut: lower pack_length \(now 200\), turn on",
            id="packed",
        ),
        pytest.param(
            {"auto_micro_batch": False},
            "auto_micro_batch is off: say per_device_train_batch_size: 2 and gradient_",
            id="switched off",
        ),
        pytest.param(
            {"dataloader_drop_last": True},
            "With dataloader_drop_last that would drop other samples: say per_device",
            id="dropped samples",
        ),
        pytest.param(
            {"fixed": 4},
            'zero2.json fixes train_micro_batch_size_per_gpu: set it to "auto", and say per_dev',
            id="fixed by DeepSpeed's file",
        ),
    ],
)
def test_where_nothing_can_be_halved_a_sentence_says_what_to_lower(world, settings, advice):
    settings = dict(settings)
    if fixed := settings.pop("fixed", None):
        file = world.deepspeed(2, train_micro_batch_size_per_gpu=fixed)
        settings["deepspeed"] = file
    with holding(0), pytest.raises(TrainingError, match=advice) as caught:
        run(world, **settings)
    assert not isinstance(caught.value, OutOfMemoryError)
    assert reductions(world.resume) == []
