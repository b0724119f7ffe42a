"""The edge of a step: exit codes and sentences instead of tracebacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.__main__ import main

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


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "great_expectations", "transformers"])
def test_starting_a_step_does_not_import_what_only_another_step_needs(heavy):
    code = f"import sys, tasks.__main__, tasks.params; sys.exit({heavy!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
