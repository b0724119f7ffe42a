"""`ovis plan`: a table for people, JSON for programs, sentences and exit codes."""

import json
import shutil

import pytest
import yaml

from ovis_model.planning.report import Plan
from tasks.cli import main
from tests.support.training_world import build_training_world

PARAMS = {
    "validate": {"raw_data": "raw"},
    "extract": {"min_frames": 2, "max_frames": 2},
    "evaluate": {"benchmarks": "b"},
    "register": {},
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working tree with a base model, params.yaml and extracted data."""
    world = build_training_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_params(world)
    (tmp_path / "data").mkdir()
    world.data.rename(tmp_path / "data" / "extracted")
    return world


def write_params(world, **overrides):
    params = {**PARAMS, "train": world.config(**overrides)}
    (world.root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def planned(capsys, *options):
    assert main(["plan", "--json", *options]) == 0
    return Plan.model_validate(json.loads(capsys.readouterr().out))


def test_a_plan_is_a_table_that_says_whether_it_fits(tree, capsys):
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "plain, one process, float32" in said
    assert "data/extracted: 20 samples" in said
    assert "12 steps of 4 samples" in said
    assert "\nit fits " in said
    assert "hours" not in said


def test_packed_rows_and_what_an_epoch_leaves_out_are_told(tree, capsys):
    write_params(tree, packing=True, per_device_train_batch_size=1, pack_length=512)
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "\npacking     " in said
    assert " rows of 512 tokens, " in said
    assert " steps of 1 rows, " in said
    write_params(tree, per_device_train_batch_size=8, dataloader_drop_last=True)
    assert main(["plan"]) == 0
    assert "dropped     4 samples of every epoch" in capsys.readouterr().out


def test_what_does_not_fit_comes_with_changes_and_hours_with_their_assumption(tree, capsys):
    command = ["plan", "--processes", "2", "--device-memory-gb", "1.0005", "--gpu", "L4"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "IT DOES NOT FIT" in said
    assert "change, in this order" in said
    assert "\n  1. " in said
    assert "40 % of its 121 TFLOP/s, which is an assumption" in said
    assert "device GB  host GB" in said


def test_a_plan_is_json_for_programs(tree, capsys):
    plan = planned(capsys, "--processes", "2")
    assert (plan.processes, plan.data.samples, plan.fits) == (2, 20, True)
    assert plan.device.kind == "cpu"


def test_validated_data_is_planned_from_where_media_were_left(tree, capsys):
    extracted = planned(capsys)
    root = tree.root
    (root / "data" / "validated").mkdir()
    for name in ("train.jsonl", "holdout.jsonl"):
        shutil.copy(root / "data" / "extracted" / name, root / "data" / "validated" / name)
    (root / "data" / "validated" / "media.jsonl").touch()
    (root / "data" / "extracted").rename(root / "raw")
    validated = planned(capsys)
    assert validated.data.folder == "data/validated"
    assert validated.data.tokens == extracted.data.tokens


def test_without_data_a_plan_says_so(tree, capsys):
    shutil.rmtree(tree.root / "data")
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "data        none found" in said
    assert "no data: at the limits" in said


def test_samples_that_training_refuses_are_listed(tree, capsys):
    write_params(tree, multimodal_max_length=10)
    assert main(["plan"]) == 0
    assert "too long    16 sample(s), which training refuses: image_0 (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--processes", "0"], 2, "--processes must be above 0"),
        (["--device-memory-gb", "-1"], 2, "--device-memory-gb must be above 0"),
        (["--gpu", "Voodoo"], 2, "'Voodoo' is not known; choose one of B200, "),
        (["--params", "gone.yaml"], 2, "gone.yaml is missing"),
        (["--data", "gone"], 1, "there is no gone/train.jsonl"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(tree, capsys, options, code, message):
    assert main(["plan", *options]) == code
    said = capsys.readouterr().err
    assert said.startswith("ovis plan: ")
    assert message in said


def test_no_samples_and_no_model_are_sentences(tree, capsys):
    (tree.root / "empty").mkdir()
    (tree.root / "empty" / "train.jsonl").touch()
    assert main(["plan", "--data", "empty"]) == 1
    assert "holds no samples" in capsys.readouterr().err
    shutil.rmtree(tree.base)
    assert main(["plan"]) == 1
    assert str(tree.base) in capsys.readouterr().err


def test_every_stage_is_planned(tree, capsys):
    stages = [{"train_modules": "vte:1.0e-4", "max_steps": 2}, {"train_modules": "all"}]
    write_params(tree, stages=stages)
    assert main(["plan"]) == 0
    said = capsys.readouterr().out
    assert "stage 1 of 2: {'max_steps': 2, 'train_modules': 'vte:1.0e-4'}\n" in said
    assert "stage 2 of 2: {'train_modules': 'all'}\n" in said
    assert main(["plan", "--json"]) == 0
    first, second = map(Plan.model_validate_json, capsys.readouterr().out.splitlines())
    assert (first.work.steps, second.work.steps) == (2, 12)
    assert first.trainable_parameters < second.trainable_parameters
