import json
import math

import pytest

from ovis_model.train_config import TrainConfig
from ovis_model.training.training import train
from tests.support.training_world import build_training_world

MODULES = ("llm", "visual_tokenizer.vit", "visual_tokenizer.head", "vte")


@pytest.fixture(scope="module")
def norms_of(tmp_path_factory):
    world = build_training_world(tmp_path_factory.mktemp("norms"))

    def run(stage=None, **settings):
        deepspeed = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
        values = {"max_steps": 3, "logging_steps": 2, **deepspeed, **settings}
        config = TrainConfig.parse(world.config(**values), where="test")
        train(config, **world.paths())
        lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
        return {line["step"]: line for line in lines}

    return run


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_norm_of_a_module_is_the_same_at_every_zero_stage(norms_of, stage):
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    plain, sharded = norms_of(**batches), norms_of(stage, **batches)
    assert list(sharded) == [1, 2, 3]
    for name in MODULES:
        norm = plain[1][f"grad_norm/{name}"]
        assert sharded[1][f"grad_norm/{name}"] == pytest.approx(norm, rel=1e-4)


def test_the_norms_of_the_modules_make_up_the_norm_before_clipping(norms_of):
    for line in norms_of(max_grad_norm=0.01).values():
        parts = [line[f"grad_norm/{name}"] for name in MODULES]
        assert math.hypot(*parts) == pytest.approx(line["grad_norm"], rel=1e-4)
        assert line["grad_norm"] > 0.1


def test_a_frozen_module_has_no_norm(norms_of):
    line = norms_of(freeze_vision_tower=True)[1]
    assert {name for name in MODULES if f"grad_norm/{name}" not in line} == {
        "visual_tokenizer.vit"
    }
