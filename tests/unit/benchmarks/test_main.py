"""The command: what it runs, what it says, how it ends."""

import json

import pytest

from benchmarks.__main__ import exit_code, main
from benchmarks.suite import Agreement, Row, Target


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # what `main` sets


def row_of(*, equal=True, peak_ratio=9.0):
    return Row(
        goal="X1",
        workload="a sum",
        workload_sha256="",
        seed=0,
        dtype="float32",
        variant="ours",
        is_ours=True,
        agreement=Agreement(equal, "same" if equal else "3 differ"),
        times=None,
        ratio=None,
        peak=1,
        peak_ratio=peak_ratio,
        target=Target(peak=8.0),
    )


def test_a_small_run_prints_machine_and_table_and_writes_a_line_per_variant(tmp_path, capsys):
    code = main(["model", "--smoke", "--only", "C2", "--json", str(tmp_path / "rows.jsonl")])
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert code == 0
    assert "one thread at best:" in printed
    assert "| C2   | " in printed
    assert "P1" not in printed
    assert [row["variant"] for row in rows] == ["Linear, LayerNorm, softmax, cat, matmul", "ours"]
    assert all(row["equal"] and row["cpu_ms_median"] > 0 for row in rows)
    assert len(rows[0]["workload_sha256"]) == 64


def test_an_unknown_goal_is_refused_with_those_there_are():
    with pytest.raises(SystemExit, match="--only: no goal Z9; there are C1, C2, G1, G2, G3, P1"):
        main(["model", "--only", "P3,Z9"])


@pytest.mark.parametrize(
    ("row", "strict", "code"),
    [
        pytest.param({}, True, 0, id="reached"),
        pytest.param({"peak_ratio": 2.0}, False, 0, id="missed and told"),
        pytest.param({"peak_ratio": 2.0}, True, 1, id="missed and strict"),
        pytest.param({"equal": False}, False, 1, id="wrong"),
    ],
)
def test_a_wrong_result_always_fails_and_a_missed_target_if_asked(row, strict, code):
    assert exit_code([row_of(**row)], strict=strict) == code


def test_a_wrong_result_is_named_at_the_end(capsys):
    exit_code([row_of(equal=False)], strict=False)
    assert capsys.readouterr().out == "X1 a sum: ours is WRONG (3 differ)\n"
