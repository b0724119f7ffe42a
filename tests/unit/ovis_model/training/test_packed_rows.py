"""Samples packed, padded and one by one: the same loss, the same gradients, the same end."""

import csv
import json

import pytest
from safetensors.torch import load_file

from ovis_model.errors import ConfigError, DataError
from ovis_model.reports import sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training.report import TrainReport
from ovis_model.training.training import train
from tests.support.training_world import (
    TrainingWorld,
    build_training_world,
    image_sample,
    mixed_samples,
)

#: One step of plain gradient descent, so long that the weights' own rounding does not matter.
ONE_STEP = {
    "optim": "sgd",
    "learning_rate": 10.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 1,
}
PACKED = {"packing": True, "per_device_train_batch_size": 1, "pack_length": 160}


def run(world: TrainingWorld, **overrides) -> TrainReport:
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def logged(world: TrainingWorld):
    return [json.loads(line) for line in world.metrics.read_text().splitlines()]


def loss_and_gradients(world: TrainingWorld, **overrides):
    """Return the loss of the only step, and by how much it moved every tensor."""
    run(world, **ONE_STEP, **overrides)
    before = load_file(world.base / "model.safetensors")
    after = load_file(world.output / "model.safetensors")
    rate = ONE_STEP["learning_rate"]
    return logged(world)[0]["loss"], {name: (before[name] - after[name]) / rate for name in before}


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Text, an image, several images and a video, each once."""
    return build_training_world(tmp_path_factory.mktemp("mixed"), samples=mixed_samples())


@pytest.fixture(scope="module")
def one_by_one(mixed):
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    return loss_and_gradients(mixed, **settings)


@pytest.mark.parametrize(
    ("settings", "tokens_per_row"),
    [
        pytest.param({"per_device_train_batch_size": 4}, None, id="padded"),
        pytest.param({**PACKED, "pack_length": 2000}, 338.0, id="all in one row"),
        pytest.param(
            {**PACKED, "pack_length": 240, "gradient_accumulation_steps": 2},
            169.0,
            id="two rows accumulated",
        ),
    ],
)
@pytest.mark.parametrize("stage", [None, 2], ids=["plain", "zero2"])
def test_loss_and_gradients_do_not_depend_on_how_samples_are_batched(
    mixed, one_by_one, settings, tokens_per_row, stage
):
    deepspeed = None if stage is None else mixed.deepspeed(stage)
    loss, gradients = loss_and_gradients(mixed, **settings, deepspeed=deepspeed)
    expected_loss, expected = one_by_one
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        assert gradients[name].allclose(gradient, rtol=0, atol=1e-5 * largest + 1e-9), name
    line = logged(mixed)[0]
    assert (line["padding_fraction"] > 0.3) == (tokens_per_row is None)
    if tokens_per_row is not None:
        assert line["padding_fraction"] == 0
        assert line["tokens_per_row"] == tokens_per_row


def test_steps_epochs_and_rates_follow_from_the_rows(world):
    report = run(
        world,
        **PACKED,
        gradient_accumulation_steps=2,
        max_steps=-1,
        num_train_epochs=3,
        lr_scheduler_type="linear",
        logging_steps=1,
    )
    assert report.packing.rows == 7
    assert report.packing.fill == pytest.approx(report.tokens / (7 * 160), abs=1e-4)
    assert report.packing.imbalance == 1
    assert (report.steps, report.epochs, report.samples) == (12, 3.0, 20)
    with (world.root / "loss.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([5e-3 * (1 - step / 12) for step in range(12)])
    tokens = [line["tokens_per_row"] for line in logged(world)]
    # Three steps of two rows and one of the last row, each epoch.
    for epoch in range(3):
        *pairs, last = tokens[4 * epoch : 4 * epoch + 4]
        assert 2 * sum(pairs) + last == report.tokens


def test_packed_training_learns(world):
    report = run(world, **PACKED, deepspeed=world.deepspeed(2), max_steps=60)
    assert report.final_loss < report.first_loss * 0.7
    assert report.holdout_loss < report.first_loss


def test_rows_do_not_depend_on_who_reads_them(world):
    run(world, **PACKED)
    alone = sha256_of_folder(world.output)
    # The settings are saved beside the weights, so only those are compared.
    weights = load_file(world.output / "model.safetensors")
    run(world, **PACKED)
    assert sha256_of_folder(world.output) == alone
    run(world, **PACKED, dataloader_num_workers=2)
    for name, tensor in load_file(world.output / "model.safetensors").items():
        assert tensor.equal(weights[name]), name


def test_a_row_is_as_long_as_the_longest_sample_may_be_if_nothing_else_is_said(world):
    report = run(world, packing=True, per_device_train_batch_size=1, max_steps=1)
    assert report.packing.rows == 1
    assert report.packing.fill == pytest.approx(report.tokens / 8192, abs=1e-4)


def test_a_sample_longer_than_a_row_is_named(tmp_path):
    world = build_training_world(tmp_path, samples=[image_sample(0)])
    with pytest.raises(
        DataError, match=r"longer than a packed row of 20 tokens: image_0 \(\d+ tok"
    ):
        run(world, **{**PACKED, "pack_length": 20})


def test_several_rows_in_a_micro_batch_are_refused(world):
    with pytest.raises(ConfigError, match="one row, but per_device_train_batch_size is 4; set it"):
        run(world, packing=True)


@pytest.mark.parametrize(
    "setting",
    [{"train_sampling_strategy": "group_by_length"}, {"dataloader_drop_last": True}],
    ids=["an order of its own", "samples dropped"],
)
def test_a_setting_that_rows_rule_out_is_refused(world, setting):
    with pytest.raises(ConfigError, match="with packing every sample is in one of the planned"):
        run(world, **PACKED, **setting)
