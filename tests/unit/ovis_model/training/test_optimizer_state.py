import gc

import pytest
from safetensors.torch import load_file

from ovis_model.errors import TrainingError
from ovis_model.training.optimizer_state import running_groups
from tests.support.running_trainer import prepared_trainer
from tests.support.training_world import build_training_world

MODULES = "llm:1e-3|visual_tokenizer:2e-3|visual_tokenizer.vit.last_block:3e-3|vte:0"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("world"))


def expected_rate(name):
    if name.startswith("visual_tokenizer.vit.vision_model.encoder.layers.1."):
        return 3e-3
    return {"llm": 1e-3, "visual_tokenizer": 2e-3, "vte": 0.0}[name.split(".")[0]]


def is_vector(name):
    return "norm" in name or name.endswith(".bias") or name == "visual_tokenizer.head.1.weight"


@pytest.mark.parametrize(
    ("stage", "bf16"),
    [(None, False), (0, False), (0, True), (1, False), (1, True), (2, True), (3, False)],
)
def test_the_running_optimizer_has_the_rates_and_decays_of_the_settings(world, stage, bf16):
    settings = world.config(
        train_modules=MODULES,
        weight_decay=0.1,
        max_steps=2,
        lr_scheduler_type="linear",
        bf16=bf16,
        deepspeed=None if stage is None else world.deepspeed(stage),
    )
    with prepared_trainer(settings, world.data) as trainer:
        trainer.train()
        found = running_groups(trainer)
        learning = [name for name, p in trainer.network.named_parameters() if p.requires_grad]
        table = trainer.gathered_weights()["vte.weight"]
        del trainer
    gc.collect()
    assert list(found) == learning
    before = load_file(world.base / "model.safetensors")["vte.weight"]
    assert table.equal(before.to(table.dtype)), "its rate is 0"
    for name, running in found.items():
        assert running.peak_learning_rate == expected_rate(name), name
        assert running.learning_rate == 0.0  # linear decay has come to its end
        assert running.weight_decay == (0.0 if is_vector(name) else 0.1), name
    # Of four rates, matrices and vectors; the visual table has no vector.
    assert len({running.group for running in found.values()}) == 7


def test_before_training_has_begun_there_is_nothing_to_read(world):
    with (
        prepared_trainer(world.config(), world.data) as trainer,
        pytest.raises(TrainingError, match="no optimizer to read before training has begun"),
    ):
        running_groups(trainer)


def test_a_parameter_that_no_group_has_is_named(world):
    with prepared_trainer(world.config(train_modules="vte", max_steps=1), world.data) as trainer:
        trainer.train()
        trainer.network.llm.model.norm.weight.requires_grad_(True)
        with pytest.raises(TrainingError, match=r"1 parameter.*llm\.model\.norm\.weight among"):
            running_groups(trainer)
