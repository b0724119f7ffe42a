"""Code and settings that change while a step runs; DVC would believe the later ones."""

import os
from pathlib import Path

import pytest

from ovis_model.errors import StageError
from tasks._step_inputs import read_step_inputs, unchanged_inputs

DVC = """
stages:
  train:
    cmd: exec python -m tasks train
    params: [train, validate.split_seed]
    deps:
      - data/extracted
      - ${train.ovis_pretrained_path}
      - config/deepspeed
      - ovis_model/errors.py
      - tasks/train.py
"""
PARAMS = "validate: {split_seed: 0, workers: 2}\ntrain: {seed: 1}\nevaluate: {batch_size: 1}\n"


@pytest.fixture(autouse=True)
def _in_a_small_tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "dvc.yaml": DVC,
        "params.yaml": PARAMS,
        "config/deepspeed/zero2.json": "{}",
        "ovis_model/errors.py": "",
        "tasks/train.py": "",
        "tasks/other.py": "",
        "data/extracted/train.jsonl": "",
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def test_code_folders_are_taken_apart_and_settings_are_those_of_the_stage():
    assert list(read_step_inputs("train")) == [
        "config/deepspeed/zero2.json",
        "ovis_model/errors.py",
        "tasks/train.py",
        "params.yaml: train",
        "params.yaml: validate.split_seed",
    ]
    assert read_step_inputs("train")["params.yaml: validate.split_seed"] == 0


@pytest.mark.parametrize(
    ("name", "text", "changed"),
    [
        ("tasks/train.py", "# edited", "tasks/train.py"),
        ("config/deepspeed/zero3.json", "{}", "config/deepspeed/zero3.json"),
        ("params.yaml", PARAMS.replace("seed: 1", "seed: 2"), "params.yaml: train"),
        ("params.yaml", PARAMS.replace("split_seed: 0, ", ""), "params.yaml: validate.split_seed"),
    ],
    ids=["code", "a file more", "a setting", "a setting that is gone"],
)
def test_what_changed_during_a_step_is_named_and_its_results_refused(name, text, changed):
    with pytest.raises(StageError) as raised, unchanged_inputs("train"):
        Path(name).write_text(text)
    said = str(raised.value)
    assert said.startswith(f"what it runs was changed while it ran: {changed}. Its results are of")
    assert said.endswith("put back what was changed, and keep them: `dvc commit -f train`")


def test_a_file_that_is_gone_was_changed():
    with (
        pytest.raises(StageError, match=r"ran: ovis_model/errors\.py\."),
        unchanged_inputs("train"),
    ):
        Path("ovis_model/errors.py").unlink()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tasks/other.py", "# code of another step"),
        ("data/extracted/train.jsonl", "data, which its own digests watch"),
        ("params.yaml", PARAMS.replace("batch_size: 1", "batch_size: 2")),
        ("ovis_model/errors.py", ""),
    ],
    ids=["other code", "data", "another step's setting", "written again, the same"],
)
def test_what_the_step_does_not_depend_on_may_change(name, text):
    with unchanged_inputs("train"):
        Path(name).write_text(text)


def test_without_a_dvc_yaml_there_is_no_record_to_be_wrong():
    Path("dvc.yaml").unlink()
    with unchanged_inputs("train"):
        Path("tasks/train.py").write_text("# edited")


def edit_and_fail():
    Path("tasks/train.py").write_text("# edited")
    raise ValueError("its own")


def test_the_error_of_the_step_itself_comes_first():
    with pytest.raises(ValueError, match="its own"), unchanged_inputs("train"):
        edit_and_fail()


def test_what_was_put_back_in_time_is_unchanged():
    with unchanged_inputs("train"):
        os.rename("tasks/train.py", "elsewhere")  # noqa: PTH104 - as `git checkout` does
        os.rename("elsewhere", "tasks/train.py")  # noqa: PTH104
