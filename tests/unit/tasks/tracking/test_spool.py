"""The disk of what is on its way to the store: half lines, locks, damage."""

import json
import resource

import pytest

from tasks.tracking.spool import REFUSED, SENT, Spool, left_behind


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Spool.begin("test") as begun:
        yield begun


def steps(spool):
    return [record["step"] for _, record in spool.pending()]


def test_nobody_gets_the_lock_of_a_spool_that_lives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for held in (True, False):
        if held:
            with Spool.begin("test"):
                (found,) = left_behind()
                with found.locked() as free:
                    assert not free
        else:
            with found.locked() as free:
                assert free


def test_a_full_disk_leaves_no_half_line_before_the_next_record(spool):
    spool.append({"step": 1})
    records = spool.folder / "records.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (records.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            spool.append({"step": 2, "long": 100 * "x"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    spool.append({"step": 3})
    assert steps(spool) == [1, 3]


def test_a_damaged_line_is_put_aside_once_and_the_rest_goes_on(spool, caplog):
    spool.append({"step": 1})
    with (spool.folder / "records.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "na{"step": 3}\n\xff\n[4]\n')
    spool.append({"step": 5})
    assert steps(spool) == steps(spool) == [1, 5]
    assert spool.count() == 2
    assert [record["step"] for record in spool.all()] == [1, 5]
    kept = [json.loads(line) for line in REFUSED.read_text(encoding="utf-8").splitlines()]
    assert [one["line"] for one in kept] == ['{"step": 2, "na{"step": 3}\n', "\ufffd\n", "[4]\n"]
    assert kept[0]["reason"] == "it is no record"
    assert "so far: 3; each is kept in .mlflow/spool/refused.jsonl" in caplog.text


def test_a_damaged_note_of_what_was_sent_sends_all_again(spool, caplog):
    spool.append({"step": 1})
    (end,) = (end for end, _ in spool.pending())
    spool.mark_sent(end)
    assert steps(Spool(spool.folder)) == []
    (spool.folder / SENT).write_text("{", encoding="utf-8")
    assert steps(Spool(spool.folder)) == [1]
    assert "sent.json is damaged; all is sent again" in caplog.text
