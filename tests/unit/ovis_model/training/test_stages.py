"""Stages are trainings behind each other: the same weights as by hand, one report, one curve."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovis_model.errors import ConfigError
from ovis_model.reports import sha256_of_file
from ovis_model.train_config import TrainConfig
from ovis_model.training.report import TrainReport
from ovis_model.training.stages import METRICS, MODEL, REPORT
from ovis_model.training.training import train
from tests.support.training_world import build_training_world, image_sample, text_sample

REPOSITORY = Path(__file__).parents[4]
FIRST = {"train_modules": "visual_tokenizer:1e-2", "max_steps": 2}
SECOND = {"train_modules": "visual_tokenizer|vte", "learning_rate": 2e-3, "max_steps": 3}
COMMON = {"logging_steps": 1, "save_steps": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    samples = [one(number) for number in range(2) for one in (image_sample, text_sample)]
    return build_training_world(tmp_path_factory.mktemp("stages"), samples=samples)


def run(world, output=None, **values):
    config = TrainConfig.parse(world.config(**COMMON, **values), where="test")
    paths = world.paths() | ({} if output is None else {"output": output})
    return train(config, **paths, inputs_digest="digest")


def weights(folder):
    return sha256_of_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def by_hand(world):
    """Two trainings, the second on the model of the first."""
    first = run(world, world.root / "first", **FIRST)
    base = {"ovis_pretrained_path": str(world.root / "first")}
    second = run(world, world.root / "second", **base, **SECOND)
    return (first, second), weights(world.root / "second")


@pytest.fixture(scope="module")
def staged(world):
    return run(world, world.root / "staged", stages=[FIRST, SECOND]), world.root / "staged"


def test_stages_leave_the_weights_of_trainings_behind_each_other(by_hand, staged):
    assert weights(staged[1]) == by_hand[1]


def test_the_report_lists_the_stages_and_sums_their_steps(by_hand, staged):
    (first, second), _ = by_hand
    report, _ = staged
    assert (report.steps, report.epochs) == (5, first.epochs + second.epochs)
    assert (report.first_loss, report.final_loss) == (first.first_loss, second.final_loss)
    assert [stage.changes for stage in report.stages] == [FIRST, SECOND]
    assert [stage.final_loss for stage in report.stages] == [first.final_loss, second.final_loss]
    assert [module.module for module in report.stages[0].modules] == [
        "visual_tokenizer.vit",
        "visual_tokenizer.head",
    ]
    assert report.modules == second.modules


def test_the_model_folder_names_all_stages_and_the_first_base(world, staged):
    _, folder = staged
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["base_model"] == str(world.base)
    assert lineage["stages"] == [FIRST, SECOND]
    settings = json.loads((folder / "train_config.json").read_text())
    assert settings["stages"] == [FIRST, SECOND]
    assert settings["ovis_pretrained_path"] == str(world.base)
    assert not world.resume.exists()


def test_the_curve_and_the_metrics_count_on_over_the_stages(world, by_hand):
    report = run(world, stages=[FIRST, SECOND])
    with (world.root / "loss.csv").open() as file:
        curve = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5]
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == curve
    assert curve[-1][1] == pytest.approx(report.final_loss, abs=1e-6)
    assert curve[2][1] == pytest.approx(by_hand[0][1].first_loss, abs=1e-6)


def test_one_stage_is_a_training_with_its_values(world, by_hand):
    report = run(world, world.root / "one", stages=[FIRST])
    assert weights(world.root / "one") == weights(world.root / "first")
    assert (report.steps, len(report.stages)) == (2, 1)
    assert by_hand[0][0].stages == []


def test_a_training_killed_in_its_second_stage_goes_on_there(world, by_hand):
    stages = [FIRST, {**SECOND, "save_steps": 1}]
    process = subprocess.Popen(
        [sys.executable, "-m", "ovis_model.training", str(world.write_job(stages=stages))],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    committed = world.resume / "stage-2" / "checkpoints" / "checkpoint-1" / "manifest.json"
    deadline = time.monotonic() + 120
    while not committed.exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()

    first = world.resume / "stage-1"
    assert {path.name for path in first.iterdir()} >= {MODEL, REPORT, METRICS}
    # A trace in what the first stage left: were it run again, the trace would be gone.
    traced = TrainReport.read(first / REPORT).model_copy(update={"first_loss": 77.0})
    traced.write(first / REPORT)
    report = run(world, stages=stages)
    assert report.stages[0].first_loss == report.first_loss == 77.0
    assert weights(world.output) == by_hand[1]
    assert report.stages[1].steps == 3
    assert not world.resume.exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"deepspeed": "x"}], "stage 1 sets deepspeed, which holds for all stages; set it besi"),
        ([{}, {"max_frames": 4, "stages": []}], "stage 2 sets max_frames, stages, which holds"),
        ([{"save_steps": 0.5}, {"num_train_epochs": 0}], "train.stages: stage 2: num_train_epoc"),
        ([{}, {"learning_rat": 1}], "stage 2: train: unknown key 'learning_rat'; did you mean"),
        ([{}, {"train_modules": "llm", "freeze_llm": True}], "stage 2: .*leave nothing to train"),
    ],
)
def test_a_stage_that_cannot_be_used_is_named_before_the_first_begins(world, stages, message):
    with pytest.raises(ConfigError, match=message):
        run(world, world.root / "never", stages=stages)
    assert not (world.root / "never").exists()
    assert not world.resume.exists()
