"""Missed windows give one run or none, and a working tree has one run at a time."""

import asyncio
import fcntl
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from prefect.server.schemas.schedules import CronSchedule

from flows import admission
from flows.admission import Window, turn, waits, why_missed
from ovis_model.errors import StageBusyError
from tasks.operations import ScheduleConfig

ROOT = Path(__file__).parents[3]
ONE, NONE = ScheduleConfig(catch_up="one"), ScheduleConfig(catch_up="none")
MONDAY = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
WEEK = timedelta(days=7)


def runs_that_start(windows, config, now):
    """Ask for each window as a worker does that comes back: the oldest first."""
    return [
        one
        for one in windows
        if one <= now and why_missed(Window(one, windows), config, now) is None
    ]


@pytest.mark.parametrize("config", [ONE, NONE])
def test_a_run_in_time_starts_although_later_ones_are_planned(config):
    windows = [MONDAY, MONDAY + WEEK, MONDAY + 2 * WEEK]
    assert runs_that_start(windows, config, MONDAY + timedelta(minutes=59)) == [MONDAY]


@pytest.mark.parametrize(("config", "started"), [(ONE, [MONDAY]), (NONE, [])])
def test_of_three_missed_windows_one_run_or_none_starts(config, started):
    windows = [MONDAY - 2 * WEEK, MONDAY - WEEK, MONDAY, MONDAY + WEEK]
    assert runs_that_start(windows, config, MONDAY + timedelta(days=3)) == started


@pytest.mark.parametrize(("config", "started"), [(ONE, [MONDAY]), (NONE, [MONDAY])])
def test_a_clock_that_jumps_a_day_ahead_and_back_starts_nothing_twice(config, started):
    hours = [MONDAY + timedelta(hours=n) for n in range(-24, 1)]
    assert runs_that_start(hours, config, MONDAY + timedelta(minutes=5)) == started
    # The scheduler knows a run by its window, so the clock that goes back finds it done.
    assert runs_that_start(hours[-1:], config, MONDAY - timedelta(days=1)) == []


def test_the_reasons_name_the_window_and_the_rule():
    windows = [MONDAY - WEEK, MONDAY]
    now = MONDAY + timedelta(hours=30)
    reason = why_missed(Window(windows[0], windows), ONE, now)
    expected = (
        "the run of 2026-11-16 02:00 UTC was missed, and the one of 2026-11-23 02:00 UTC stands "
        "for it"
    )
    assert reason == expected
    reason = why_missed(Window(MONDAY, windows), NONE, now)
    assert reason == (
        "the run of 2026-11-23 02:00 UTC was missed by 30.0 hours, and operations.yaml says "
        "schedule.catch_up: none"
    )


def test_clocks_that_change_neither_lose_nor_double_a_nightly_run():
    """02:30 in Berlin does not exist on 2027-03-28, and exists twice on 2026-10-25."""
    zone = ZoneInfo("Europe/Berlin")
    schedule = CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin")
    for first in (datetime(2026, 10, 23, tzinfo=zone), datetime(2027, 3, 26, tzinfo=zone)):
        found = asyncio.run(schedule.get_dates(n=5, start=first))
        instants = [one.astimezone(UTC) for one in found]
        assert len({one.astimezone(zone).date() for one in instants}) == 5
        now = instants[-1]
        assert runs_that_start(instants, ONE, now) == [now]


def test_only_a_run_of_the_schedule_is_left_out_while_another_one_runs():
    skip, queue = ScheduleConfig(overlap="skip"), ScheduleConfig(overlap="queue")
    assert not waits(Window(MONDAY), skip)
    assert waits(None, skip)  # a trigger's, or a person's
    assert waits(Window(MONDAY), queue)


# ---- one at a time --------------------------------------------------------------------------


class Recorder:
    def __init__(self):
        self.lines = []

    def info(self, message, /, *arguments):
        self.lines.append(message % arguments)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(admission, "POLL_SECONDS", 0.05)


@contextmanager
def another_run():
    """A process that has the working tree until its input ends."""
    code = "import sys, logging; from flows.admission import turn\n"
    code += (
        "with turn('retrain brave-owl', logging): print('has it', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.readline() == b"has it\n"
        yield process


def test_a_second_run_waits_and_says_for_whom_or_is_left_out(place):
    log = Recorder()
    with another_run() as process:
        with (
            pytest.raises(StageBusyError, match=r"taken by retrain brave-owl \(process \d+ on"),
            turn("second", log, wait=False),
        ):
            pass
        asked = []

        class Releasing(Recorder):
            def info(self, message, /, *arguments):
                super().info(message, *arguments)
                asked.append(process.pid)
                process.stdin.close()

        log = Releasing()
        with turn("second", log):
            assert '"who": "second"' in admission.TURN.read_text()
    assert asked
    assert re.match(r"waiting for my turn: this working tree is taken by retrain", log.lines[0])


def test_a_run_that_was_killed_holds_nothing(place):
    with another_run() as process:
        process.kill()
        process.wait()
        with turn("second", Recorder(), wait=False):
            pass


def test_one_who_has_not_signed_yet_is_another_run(place):
    admission.TURN.parent.mkdir()
    with admission.TURN.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(StageBusyError, match=r"is taken by another run; operations\.yaml says"),
            turn("second", Recorder(), wait=False),
        ):
            pass
