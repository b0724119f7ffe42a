"""What the gate and people do to the champion is told, once."""

import json

import pytest

from ovis_model.promotion_log import Change, Move
from ovis_model.registration import RegisterReport
from ovis_model.registry import CHAMPION, VERDICT_KEY
from tasks._announcements import announce_move, announce_verdict
from tasks.artifacts import NOTIFICATIONS
from tests.support.registry import MemoryRegistry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    registry.add_version(tmp_path / "model", {VERDICT_KEY: "a" * 64})
    return registry


def told():
    lines = NOTIFICATIONS.read_text("utf-8").splitlines() if NOTIFICATIONS.exists() else []
    return [json.loads(line) for line in lines]


def report(**changes):
    values = {
        "model_name": "digits",
        "version": 1,
        "model_digest": "1" * 64,
        "promoted": False,
        "objections": [],
        "aliases": [],
        "champion": None,
    }
    return RegisterReport(**values | changes)


@pytest.mark.parametrize(
    ("outcome", "kind", "title", "text"),
    [
        pytest.param(
            {"objections": ["ocr: 20.0 is under 90.0", "vqa: not evaluated"]},
            "gate_refused",
            "the gate refused digits version 1",
            "ocr: 20.0 is under 90.0\nvqa: not evaluated",
            id="refused",
        ),
        pytest.param(
            {"waits_for_approval": True},
            "approval",
            "digits version 1 passed the gate and waits for approval",
            "`ovis approve 1 --reason TEXT`, or `ovis reject` likewise",
            id="waits",
        ),
        pytest.param(
            {"promoted": True, "champion": 1},
            "promoted",
            "digits version 1 is the champion",
            "the gate let it pass",
            id="promoted",
        ),
    ],
)
def test_a_verdict_is_told_once_however_often_the_step_runs(registry, outcome, kind, title, text):
    for _ in range(2):
        announce_verdict(registry, report(**outcome))
    (line,) = told()
    assert (line["kind"], line["title"], line["text"]) == (kind, title, text)
    assert (line["facts"]["model"], line["facts"]["version"]) == ("digits", 1)


def test_a_new_verdict_on_the_same_version_is_told_again(registry):
    announce_verdict(registry, report(objections=["too few"]))
    registry.set_tags(1, {VERDICT_KEY: "b" * 64})
    announce_verdict(registry, report(promoted=True))
    assert [line["kind"] for line in told()] == ["gate_refused", "promoted"]


def write(registry, action, *moves, event="done"):
    change = Change(action, moves, verdict=None, reason="answers too long")
    return registry.promotions.append(event, change)


@pytest.mark.parametrize(
    ("action", "moves", "kind", "title"),
    [
        ("promote", [(1, 3)], "promoted", "digits version 3 is the champion"),
        ("approve", [(1, 3)], "promoted", "digits version 3 is the champion"),
        ("rollback", [(3, 1)], "rolled_back", "digits version 1 is the champion again"),
        ("reject", [], "approval", "a version of digits was rejected"),
    ],
)
def test_what_a_person_does_is_told_with_who_and_why(registry, action, moves, kind, title):
    done = write(registry, action, *(Move.of(CHAMPION, *ends) for ends in moves))
    announce_move("digits", done)
    (line,) = told()
    assert (line["kind"], line["title"], line["text"]) == (kind, title, "answers too long")
    assert line["facts"]["who"] == "tester"
    assert line["facts"]["moves"] == (
        f"champion {moves[0][0]} -> {moves[0][1]}" if moves else None
    )


def test_what_changed_nothing_is_not_told(registry):
    move = Move.of(CHAMPION, 1, 3)
    write(registry, "promote", move, event="intent")
    announce_move("digits", write(registry, "promote", move, event="abandoned"))
    announce_move("digits", None)
    assert told() == []
