"""The edge of a step: exit codes and sentences instead of tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.__main__ import main
from tasks.artifacts import NOTIFICATIONS

ROOT = Path(__file__).parents[3]


def test_an_unknown_step_is_answered_with_the_five(capsys):
    assert main(["trian"]) == 2
    expected = "usage: python -m tasks {validate,extract,train,evaluate,register}"
    assert capsys.readouterr().err.strip() == expected


def test_a_bad_params_file_ends_with_code_2_and_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "validate"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "validate: params.yaml is missing; run from the repository root\n"


def run_with_unreadable_params(folder, **variables):
    """Run a step that meets what no sentence of ours foresees."""
    (folder / "params.yaml").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "train"],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done


def test_a_failure_that_nobody_foresaw_is_told_once_with_its_secrets_masked(tmp_path):
    done = run_with_unreadable_params(tmp_path, DEMO_TOKEN=str(ROOT))
    assert 'File "***/tasks/params.py"' in done.stderr
    assert str(ROOT) not in done.stderr
    assert "IsADirectoryError" in done.stderr
    (line,) = (tmp_path / NOTIFICATIONS).read_text("utf-8").splitlines()
    told = json.loads(line)
    assert (told["kind"], told["title"]) == ("failure", "train failed")
    assert told["text"].startswith("IsADirectoryError: ")
    assert told["facts"]["step"] == "train"


def test_a_step_of_a_flow_run_leaves_its_failure_to_the_flow(tmp_path):
    run_with_unreadable_params(tmp_path, OVIS_FLOW_RUN="run-7")
    assert not (tmp_path / NOTIFICATIONS).exists()


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "great_expectations", "transformers"])
def test_starting_a_step_does_not_import_what_only_another_step_needs(heavy):
    code = f"import sys, tasks.__main__, tasks.params; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
