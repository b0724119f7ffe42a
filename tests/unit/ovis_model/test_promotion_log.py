import json

import pytest

from ovis_model.errors import PromotionError
from ovis_model.promotion_log import BEGINNING, DONE, INTENT, Change, Move, PromotionLog


@pytest.fixture
def log(tmp_path):
    """A log of two changes: four lines."""
    log = PromotionLog(tmp_path / "log" / "promotions.jsonl", who="Zoë")
    for version in (1, 2):
        wanted = Change("promote", [Move.of("champion", version - 1 or None, version)], "v", "why")
        log.append(DONE, wanted, of=log.append(INTENT, wanted).number)
    return log


def lines(log):
    return log.path.read_bytes().splitlines(keepends=True)


def test_a_line_says_when_who_what_and_why(log):
    entry = json.loads(lines(log)[2])
    assert entry.pop("time").endswith("+00:00")
    assert entry.pop("previous") == json.loads(lines(log)[1])["sha256"]
    assert len(entry.pop("sha256")) == 64
    assert entry == {
        "number": 3,
        "event": "intent",
        "change": 3,
        "action": "promote",
        "moves": [{"alias": "champion", "from": 1, "to": 2}],
        "who": "Zoë",
        "verdict": "v",
        "forced": False,
        "reason": "why",
    }


def test_an_absent_log_has_no_entries(tmp_path):
    log = PromotionLog(tmp_path / "none.jsonl", who="me")
    assert log.read() == []
    log.check_head([], None)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"who": "Zo', b'"who": "Bo'),
        (b'"reason": "why"', b'"reason": "why not"'),
        (b'"forced": false', b'"forced": true'),
        (b'"sha256": "', b'"sha256":  "'),
    ],
    ids=["who", "why", "forced", "a blank"],
)
def test_an_edited_line_is_found(log, number, old, new):
    changed = lines(log)
    changed[number] = changed[number].replace(old, new)
    log.path.write_bytes(b"".join(changed))
    with pytest.raises(PromotionError, match=f"line {number + 1}, was edited"):
        log.read()


def test_a_line_edited_with_its_sha256_made_anew_breaks_the_next_one(log):
    first = log.read()[0].model_copy(update={"who": "somebody else"})
    forged = first.model_copy(update={"sha256": first.digest()})
    log.path.write_bytes(b"".join([f"{forged.to_line()}\n".encode(), *lines(log)[1:]]))
    with pytest.raises(PromotionError, match="line 2, is number 2 and does not follow"):
        log.read()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_deleted_line_is_found(log, number):
    left = lines(log)
    del left[number]
    log.path.write_bytes(b"".join(left))
    with pytest.raises(PromotionError, match=f"line {number + 1}, .* was deleted, added or moved"):
        log.read()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_reordered_lines_are_found(log, number):
    swapped = lines(log)
    swapped[number : number + 2] = reversed(swapped[number : number + 2])
    log.path.write_bytes(b"".join(swapped))
    with pytest.raises(PromotionError, match=f"line {number + 1}, .* deleted, added or moved"):
        log.read()


def test_an_added_line_is_found(log):
    log.path.write_bytes(b"".join([*lines(log), lines(log)[3]]))
    with pytest.raises(PromotionError, match="line 5"):
        log.read()


def test_a_line_that_is_something_else_is_found(log):
    log.path.write_bytes(b"hello\n" + b"".join(lines(log)))
    with pytest.raises(PromotionError, match="line 1, is not a line of this log"):
        log.read()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_lines_cut_off_the_end_are_found_by_what_the_registry_keeps(log, left):
    head = log.read()[-1].sha256
    log.path.write_bytes(b"".join(lines(log)[:left]))
    with pytest.raises(PromotionError, match=r"lines are missing at its end.* --restart --reason"):
        log.check_head(log.read(), head)


def test_the_registry_may_be_one_line_behind_and_no_more(log):
    entries = log.read()
    log.check_head(entries, entries[3].sha256)
    log.check_head(entries, entries[2].sha256)
    with pytest.raises(PromotionError, match=entries[1].sha256[:12]):
        log.check_head(entries, entries[1].sha256)
    with pytest.raises(PromotionError, match=BEGINNING[:12]):
        log.check_head(entries, None)


@pytest.mark.parametrize("kept", [1, 100], ids=["one byte", "a piece"])
def test_a_line_that_a_dying_process_did_not_finish_is_cut_off(log, kept):
    whole = lines(log)
    log.path.write_bytes(b"".join(whole[:3]) + whole[3][:kept])
    assert [entry.number for entry in log.read()] == [1, 2, 3]
    log.append(DONE, Change("promote", (), None, "again"), of=3)
    assert [entry.reason for entry in log.read()] == ["why"] * 3 + ["again"]
    assert lines(log)[:3] == whole[:3]


def test_a_last_line_that_lost_only_its_end_still_counts(log):
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-1])
    assert len(log.read()) == 4
    log.append(DONE, Change("promote", (), None, "more"))
    assert log.path.read_bytes().startswith(whole)
    assert len(log.read()) == 5


def test_a_log_that_is_set_aside_keeps_its_bytes(log):
    before = log.path.read_bytes()
    name, _, digest = log.set_aside().partition(", sha256 ")
    assert log.read() == []
    assert (log.path.parent / name).read_bytes() == before
    assert digest[:12] in name
