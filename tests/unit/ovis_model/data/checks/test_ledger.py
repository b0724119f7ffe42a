import json
from pathlib import Path

import pytest

from ovis_model.data.checks.ledger import Ledger
from ovis_model.data.reasons import REASONS


def ledger(count: int = 4) -> Ledger:
    return Ledger(
        [f"s{n}" for n in range(count)], [f"line {n + 1}" for n in range(count)], [None] * count
    )


def test_every_sample_has_one_verdict_and_a_fault_comes_before_a_policy() -> None:
    found = ledger()
    found.reasons[1] = {"empty_text": "turn 2"}
    found.drop([1, 2], "repeated")
    found.drop([2], "cap")
    assert [found.verdict(row) for row in range(4)] == ["ok", "quarantined", "dropped", "ok"]
    assert found.count() == {"ok": 2, "quarantined": 1, "dropped": 1}
    assert found.good_rows() == [0, 3]
    assert found.identity() == "4 samples in = 2 ok + 1 quarantined + 1 dropped (repeated 1)"


def test_an_account_that_does_not_add_up_is_a_bug() -> None:
    found = ledger()
    found.policies[0] = "cap"
    found.reasons[0] = {"schema": "late"}
    with pytest.raises(AssertionError):
        found.count()


def test_a_line_says_where_why_and_what_now(tmp_path: Path) -> None:
    found = ledger()
    found.reasons[1] = {"empty_text": "turn 2: num_chars = 0"}
    found.warnings[3] = ["generated_id"]
    found.drop([2], "weight")
    found.holdout = {3}
    found.copies = {0: 2}
    found.write(tmp_path / "reports/ledger.jsonl")
    written = (tmp_path / "reports/ledger.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert lines == [
        {"id": "s0", "place": "line 1", "verdict": "ok", "part": "train", "copies": 2},
        {
            "id": "s1",
            "place": "line 2",
            "verdict": "quarantined",
            "reasons": [
                {
                    "code": "empty_text",
                    "detail": "turn 2: num_chars = 0",
                    "remedy": REASONS["empty_text"].remedy,
                }
            ],
        },
        {"id": "s2", "place": "line 3", "verdict": "dropped", "policy": "weight"},
        {
            "id": "s3",
            "place": "line 4",
            "verdict": "ok",
            "part": "holdout",
            "copies": 1,
            "warnings": ["generated_id"],
        },
    ]
