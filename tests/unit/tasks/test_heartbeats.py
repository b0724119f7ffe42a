"""What runs leaves signs of life; what does not any more is found out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ovis_model.errors import ConfigError, StageStopped
from ovis_model.progress import Progress, WatchedBar
from tasks import heartbeats
from tasks.artifacts import HEARTBEATS
from tasks.cli import main
from tasks.heartbeats import beating, note_output, note_progress, read_heartbeats

ROOT = Path(__file__).parents[3]
WAIT_SECONDS = 60
#: A step that has made two of six steps and then waits for ever.
STEP = """
import time
from tasks import heartbeats
from ovis_model.progress import Progress
with heartbeats.beating("train"):
    heartbeats.note_progress(Progress("", 2, 6, "step"), {"loss": 1.5})
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _in_an_empty_tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def running():
    """A process that gives signs of life, as soon as it has told its progress."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", STEP], env=environment)
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(one.progress for one in read_heartbeats()):
        assert time.monotonic() < deadline, "no sign of life"
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def the_only_one():
    (one,) = read_heartbeats()
    return one


def rewrite(one, **changes):
    changed = one.model_copy(update=changes)
    one.path.unlink()
    changed.write(changed.path)


def test_a_step_says_where_it_is_how_far_and_what_it_writes(tmp_path):
    with beating("evaluate", tracked=True):
        note_output(Path("models/finetuned"))
        note_progress(Progress("tuned", 3, 9, "item"), {"score": 0.5})
        with WatchedBar(total=9, desc="tuned", unit="item", delay=60, initial=3) as bar:
            bar.update()
        heartbeats.Heart.of_this_process._write()
        one = the_only_one()
        assert (one.step, one.state, one.pid) == ("evaluate", "running", os.getpid())
        assert (one.progress, one.metrics) == ("tuned, item 4 of 9", {"score": 0.5})
        assert (one.runs_are_open, one.output) == (True, "models/finetuned")
        assert one.folder == str(tmp_path)
        assert one.is_alive
        assert not one.is_hung
    assert (the_only_one().state, the_only_one().runs_are_open) == ("done", False)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConfigError, "failed"),
        (ValueError, "failed"),
        (StageStopped, "stopped"),
        (KeyboardInterrupt, "stopped"),
    ],
)
def test_how_a_step_ended_stays_until_the_next_attempt(error, state, capsys):
    with pytest.raises(error), beating("extract"):
        raise error
    assert the_only_one().state == state
    assert main(["status"]) == 0
    said = "was stopped" if state == "stopped" else "failed"
    assert f"extract {said}, 0 s ago (process {os.getpid()} on " in capsys.readouterr().out
    with beating("extract"):
        assert the_only_one().state == "running"


def test_what_ended_badly_is_not_told_any_more_after_a_whole_run(capsys):
    with pytest.raises(ValueError), beating("extract"):  # noqa: PT011 - ours
        raise ValueError
    with beating("register"):
        pass
    main(["status"])
    assert capsys.readouterr().out.startswith("nothing is running\n\n")


def test_a_step_outlives_a_disk_that_takes_no_sign_of_life(caplog):
    HEARTBEATS.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(HEARTBEATS, ignore_errors=True)
    HEARTBEATS.write_text("no folder")
    with beating("extract"):
        pass
    assert "extract-" in caplog.text
    assert "was not written" in caplog.text


def test_outside_of_a_step_nobody_listens():
    note_progress(Progress("", 1, 2, "step"))
    note_output(Path("models"))
    assert read_heartbeats() == []


def test_status_tells_what_runs_and_after_kill_9_at_which_step_it_crashed(running, capsys):
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("train runs: step 2 of 6, since ")
    assert "  loss 1.5\n" in said
    assert f"  process {running.pid} on " in said
    assert "no last run: reports/train.json is missing: the pipeline has not run yet" in said

    running.kill()
    running.wait()
    for _ in range(2):  # the second time it is read from the file
        assert main(["status"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("nothing is running\ntrain crashed at step 2 of 6, ")
    assert main(["status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["running"], answer["last_run"]) == ([], None)
    assert (answer["ended"][0]["state"], answer["ended"][0]["pid"]) == ("crashed", running.pid)


def test_a_paused_process_is_told_to_hang_when_it_is_not_heard_of(running, capsys):
    running.send_signal(signal.SIGSTOP)
    one = the_only_one()
    rewrite(one, beat_at=one.beat_at - heartbeats.HUNG_AFTER)
    main(["status"])
    assert f"hangs or was paused: look at it, or end it (kill {running.pid})" in (
        capsys.readouterr().out
    )
    main(["status", "--json"])
    assert json.loads(capsys.readouterr().out)["running"][0]["hung"] is True


def test_a_number_that_was_given_out_again_is_another_process(running):
    one = the_only_one()
    host, boot, pid, started = one.process.split()
    for other in (f"{host} {boot} {pid} {int(started) - 1}", f"{host} another-boot {pid} 1"):
        rewrite(one, process=other)
        assert not the_only_one().is_alive


def test_a_process_of_another_machine_is_gone_when_it_was_long_silent(running):
    rewrite(the_only_one(), host="elsewhere", process="elsewhere boot 1 2")
    one = the_only_one()
    assert one.is_alive
    rewrite(one, beat_at=one.beat_at - heartbeats.GONE_AFTER - timedelta(seconds=1))
    assert not the_only_one().is_alive


def test_a_file_that_is_no_heartbeat_is_left_alone(capsys):
    HEARTBEATS.mkdir(parents=True)
    (HEARTBEATS / "train-torn-1.json").write_text('{"step": "tra')
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("nothing is running\n")
