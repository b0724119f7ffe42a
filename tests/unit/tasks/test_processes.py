"""Children are shown, are asked to end, are made to end, and never outlive us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovis_model.errors import StageError
from tasks import _processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def python(code):
    return [sys.executable, "-c", code]


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_output_of_both_streams_is_handed_on_while_it_comes():
    pieces = []
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    _processes.run(python(code), on_output=pieces.append)
    assert b"".join(pieces) == b"out\nerr\n"


def test_a_failing_command_is_told_with_its_exit_code_and_last_lines():
    code = "print('first'); print('why'); raise SystemExit(7)"
    with pytest.raises(StageError, match=r"ended with exit code 7.*\nfirst\nwhy$"):
        _processes.run(python(code), on_output=lambda _: None)


def test_a_command_ended_by_a_signal_is_told_by_its_name():
    code = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(StageError, match="was ended by SIGKILL"):
        _processes.run(python(code), on_output=lambda _: None)


def test_only_the_end_of_long_output_is_kept_for_the_message():
    code = "[print(f'line {n} ' + 'x' * 500) for n in range(500)]; raise SystemExit(1)"
    with pytest.raises(StageError) as caught:
        _processes.run(python(code), on_output=lambda _: None)
    assert "line 499" in str(caught.value)
    assert "line 400" not in str(caught.value)


def test_ticks_go_on_while_the_command_is_silent_and_once_after_its_end():
    ticks = []
    _processes.run(
        python("import time; time.sleep(0.9)"),
        on_output=lambda _: None,
        on_tick=lambda: ticks.append(time.monotonic()),
    )
    assert len(ticks) >= 3


def test_a_grandchild_that_holds_the_pipe_open_does_not_hold_us(tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess, sys, pathlib\n"
        f"child = subprocess.Popen({SLEEP!r})\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
    )
    started = time.monotonic()
    _processes.run(python(code), on_output=lambda _: None)
    assert time.monotonic() - started < 15
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_an_exception_here_ends_the_whole_group_there(tmp_path):
    pid_file = tmp_path / "pid"

    def stop_when_started():
        if pid_file.exists() and pid_file.read_text():
            raise KeyboardInterrupt

    code = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    with pytest.raises(KeyboardInterrupt):
        _processes.run(python(code), on_output=lambda _: None, on_tick=stop_when_started)
    assert not is_alive(int(pid_file.read_text()))


def test_a_child_that_ignores_sigterm_is_killed():
    code = "import signal, time; signal.signal(15, 1); print('deaf', flush=True); time.sleep(60)"
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"deaf\n"
        _processes.end_group(process, grace_seconds=0.5)
        assert process.wait() == -signal.SIGKILL


def test_a_child_dies_when_its_parent_is_killed(tmp_path):
    """The parent gets no chance to clean up: `kill -9` is what it gets."""
    pid_file = tmp_path / "pid"
    child = (
        "import os, pathlib, time\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    parent = f"from tasks import _processes\n_processes.run({python(child)!r}, on_output=print)"
    with subprocess.Popen(python(parent)) as process:
        wait_until(lambda: pid_file.exists() and pid_file.read_text())
        process.kill()
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_unwind_the_stack_like_ctrl_c(number):
    code = (
        "import signal, time; from tasks import _processes\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as DVC leaves it to its stages
        "_processes.stop_cleanly_on_signals()\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('unwound', flush=True)\n"
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        assert process.stdout.readline() == "unwound\n"
        assert process.wait() == 0
