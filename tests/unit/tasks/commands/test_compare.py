"""`ovis compare` tells a verdict and ends with its code."""

import pytest

from ovis_model.evaluation.predictions import PredictionWriter
from ovis_model.evaluation.verdict import Comparison
from tasks.cli import main
from tests.support.predictions import row, run


def write_run(folder, scores, **slices):
    rows = [row(f"{n:03}", float(score), slices=slices) for n, score in enumerate(scores)]
    run(folder.name, x=rows).record.write(folder / "run.json")
    with PredictionWriter(folder / "x.jsonl") as writer:
        writer.write(rows)
    return str(folder)


@pytest.mark.parametrize(
    ("better", "code", "sentence"),
    [
        (30, 0, "pass: x improved by +25.0 points"),
        (1, 4, "inconclusive: x changed by +0.8 points"),
        (-30, 3, "fail: x changed by -25.0 points"),
    ],
)
def test_the_verdict_is_the_exit_code(tmp_path, capsys, better, code, sentence):
    low, high = [n < 40 for n in range(120)], [n < 40 + abs(better) for n in range(120)]
    mine, theirs = (high, low) if better > 0 else (low, high)
    ours, champion = write_run(tmp_path / "a", mine), write_run(tmp_path / "b", theirs)
    out = tmp_path / "comparison.json"
    assert main(["compare", ours, champion, "--target", "x", "--json", str(out)]) == code
    told = capsys.readouterr().out
    assert sentence in told
    assert f"x: {max(better, 0)} newly right, {max(-better, 0)} newly wrong" in told
    assert "against itself" in told
    assert Comparison.read(out).reason in told


def test_runs_that_cannot_be_compared_are_an_error(tmp_path, capsys):
    ours = write_run(tmp_path / "a", [1, 0])
    theirs = write_run(tmp_path / "b", [1])
    assert main(["compare", ours, theirs]) == 1
    assert "ovis compare: the two runs are different exams: num_items" in capsys.readouterr().err


def test_a_rule_that_means_nothing_is_an_error_that_names_the_option(tmp_path, capsys):
    assert main(["compare", str(tmp_path), str(tmp_path), "--margin", "0"]) == 2
    assert "--margin: Input should be greater than 0" in capsys.readouterr().err
