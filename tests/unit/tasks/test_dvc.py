"""Prefect hears DVC line by line, and a failure says what DVC said."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ovis_model.errors import StageError
from tasks import _dvc
from tasks._dvc import Lines, reproduce


class Recorder:
    def __init__(self):
        self.lines = []

    def info(self, message, /, *arguments):
        self.lines.append(message % arguments)


@pytest.fixture
def working_tree(tmp_path, monkeypatch):
    """An empty DVC working tree, without git, that we stand in."""
    monkeypatch.chdir(tmp_path)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], check=True)

    def write(**stages):
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")

    return write


def test_a_stage_and_what_it_depends_on_run_and_their_output_is_logged(working_tree):
    working_tree(
        first={"cmd": "echo one > one.txt; echo made one", "outs": ["one.txt"]},
        second={"cmd": "echo made two", "deps": ["one.txt"]},
    )
    log = Recorder()
    reproduce("second", log)
    assert "made one" in log.lines
    assert "made two" in log.lines
    assert log.lines.index("made one") < log.lines.index("made two")


def test_a_failing_stage_is_told_with_its_last_lines_and_stops_what_follows(working_tree):
    working_tree(
        first={"cmd": "echo the reason; exit 3", "outs": ["one.txt"]},
        second={"cmd": "echo made two", "deps": ["one.txt"]},
    )
    log = Recorder()
    with pytest.raises(StageError, match=r"repro second` ended with exit code(.|\n)*the reason"):
        reproduce("second", log)
    assert "made two" not in log.lines


def test_a_working_tree_held_by_another_run_says_who_holds_it(working_tree, monkeypatch):
    monkeypatch.setattr(_dvc, "RETRY_SECONDS", 0.1)
    working_tree(slow={"cmd": "echo started > started; sleep 30", "outs": ["one.txt"]})
    command = [sys.executable, "-m", "dvc", "repro", "slow"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while not Path("started").exists():
            assert first.poll() is None
        try:
            with pytest.raises(StageError, match="another DVC run holds this working tree") as got:
                reproduce("slow", Recorder())
        finally:
            first.terminate()
    assert f"PID {first.pid}" in str(got.value)


def test_a_step_that_hangs_is_ended_with_all_it_started(working_tree):
    working_tree(train={"cmd": "sleep 3000", "outs": ["model"]})
    with pytest.raises(StageError, match=r"repro train` did not end within 0.0005 hours and was"):
        reproduce("train", Recorder(), limit_hours=0.0005)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if line.startswith(b"sleep\0003000")]


def test_by_force_a_stage_runs_again(working_tree):
    working_tree(first={"cmd": "echo one > one.txt; echo made one", "outs": ["one.txt"]})
    for force, runs in ((False, 1), (False, 0), (True, 1)):
        log = Recorder()
        reproduce("first", log, force=force)
        assert log.lines.count("made one") == runs


def test_output_is_cut_into_lines_wherever_the_pieces_are_cut():
    lines = []
    cutter = Lines(lines.append)
    for piece in (b"on", b"e\ntw", b"o\r", b"\nthree"):
        cutter.feed(piece)
    assert lines == ["one", "two"]
    cutter.flush()
    assert lines == ["one", "two", "three"]


def test_a_progress_bar_is_heard_of_now_and_then_and_at_its_end():
    lines = []
    cutter = Lines(lines.append, bar_seconds=3600)
    for percent in range(0, 100, 10):
        cutter.feed(f"{percent}%\r".encode())
    cutter.feed(b"100%\n")
    assert lines == ["0%", "100%"]


def test_empty_lines_are_not_logged():
    lines = []
    cutter = Lines(lines.append)
    cutter.feed(b"\n\r\n  \nx\n")
    assert lines == ["x"]
