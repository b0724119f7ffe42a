"""A dry run does what a training does up to its first step, tells what it found, keeps nothing."""

import json
import subprocess
from pathlib import Path

import pytest

from ovis_model.train_config import TrainConfig
from ovis_model.training.__main__ import main
from ovis_model.training.effective_keys import RULES, without_effect
from tests.support.training_world import build_training_world

REPOSITORY = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("dry"))


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def write_config(world, **values):
    """Write a file as the seed has it."""
    places = {"data_path": str(world.data / "train.jsonl"), "image_folder": str(world.data)}
    config = world.config(**{**places, "output_dir": str(world.root / "model"), **values})
    path = world.root / "train_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def test_a_dry_run_tells_counts_keys_and_what_moves_and_saves_nothing(world, capsys):
    values = {"max_steps": -1, "num_train_epochs": 3, "warmup_steps": 0.5, "save_steps": 1}
    stages = [{"train_modules": "vte:1.0e-3"}, {"pack_length": 512}]
    job = world.write_job(stages=stages, deepspeed=world.deepspeed(2), **values)
    before = files_below(world.root)
    assert main(["--dry-run", str(job)]) == 0
    assert files_below(world.root) == before

    said = capsys.readouterr().out
    assert "samples   20 to learn from, 2 held out" in said
    assert "steps     15 in all, each of 4 x 1 x 1" in said
    assert "\n  train_modules: vte:1.0e-3\n" in said
    first, second = said.split("stage 2 of 2")
    assert "keys without effect: learning_rate (every entry of train_modules has a rate" in first
    assert "keys without effect: pack_length (packing is false)" in second
    rows = [line.split() for line in first.splitlines() if line.startswith("  ")]
    assert ["vte", "0.001", "0", "2,048", "1", "of", "1", "tensors", "moved"] in rows
    assert ["llm", "-", "-", "43,232", "frozen"] in rows
    assert said.endswith("dry run: nothing was saved\n")


def test_a_dry_run_finds_what_would_stop_a_training(world, capsys):
    assert main(["--dry-run", str(write_config(world, multimodal_max_length=10))]) == 1
    assert "are longer" in capsys.readouterr().err


def test_the_values_that_would_be_used_are_told_without_training(world, capsys):
    config = write_config(world, warmup_ratio=0.1, adam_beta2=0.95)
    assert main(["--dump-config", str(config)]) == 0
    told = json.loads(capsys.readouterr().out)
    values = told["values"]
    assert (values["warmup_steps"], values["adam_beta2"]) == (0.1, 0.95)
    assert set(TrainConfig.model_fields) <= set(values)
    assert told["without_effect"] == {}


@pytest.mark.parametrize("place", [{}, {"stages": [{}]}])
def test_an_unknown_key_ends_with_code_2_and_the_nearest_name(world, capsys, place):
    where = {"learning_rat": 1.0}
    place = {"stages": [where]} if place else where
    assert main(["--dump-config", str(write_config(world, **place))]) == 2
    said = capsys.readouterr().err
    assert "unknown key 'learning_rat'; did you mean 'learning_rate'?" in said


def test_the_seeds_script_ends_with_code_2_before_any_process_trains(world):
    config = write_config(world, learning_rat=1.0)
    done = subprocess.run(
        [REPOSITORY / "run_training.sh", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean 'learning_rate'?" in done.stderr
    assert "Traceback" not in done.stderr


#: One value that sets each key of the rules, and settings in which it decides something.
IN_EFFECT = {
    "pack_length": (512, {"packing": True}),
    "num_train_epochs": (2.0, {}),
    "save_steps": (7, {}),
    "warmup_steps": (3, {}),
    "early_stopping_threshold": (
        0.5,
        {
            "early_stopping_patience": 2,
            "eval_strategy": "epoch",
            "load_best_model_at_end": True,
            "save_strategy": "epoch",
        },
    ),
    "learning_rate": (1e-3, {"train_modules": "llm|vte:1e-4"}),
}
IDLE = {
    "num_train_epochs": {"max_steps": 5},
    "save_steps": {"save_strategy": "epoch"},
    "warmup_steps": {"lr_scheduler_type": "constant"},
    "learning_rate": {"train_modules": "llm:1e-5|vte:1e-4"},
}


@pytest.mark.parametrize("key", [key for key, _, _ in RULES])
def test_a_key_that_decides_nothing_is_told_and_one_that_does_is_not(key):
    value, settings = IN_EFFECT[key]
    base = {"ovis_pretrained_path": "base", key: value}
    assert key not in without_effect(TrainConfig(**base, **settings))
    assert key in without_effect(TrainConfig(**base, **IDLE.get(key, {})))
