"""Whether a flow run may start now: its window is not missed, and it has the working tree.

Two rules, both told in the run's state:

    windows that were missed   the newest one is made up for, or none; never two
    one run per working tree   another one waits until its turn comes, or is left out

The second holds among all flows and servers, because it is a lock on a file: the kernel gives it
back when the process ends, however it ends.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Protocol

from ovis_model.errors import StageBusyError
from tasks.artifacts import TURN
from tasks.operations import ScheduleConfig

POLL_SECONDS = 2.0


class Log(Protocol):
    """The part of a logger, Prefect's or Python's, that is used here."""

    def info(self, message: str, /, *arguments: object) -> None:
        """Log one line."""
        ...


@dataclass(frozen=True)
class Window:
    """A time at which a run was due by the schedule, and the later ones that are due as well."""

    expected: datetime
    later: Sequence[datetime] = ()


def why_missed(window: Window, config: ScheduleConfig, now: datetime) -> str | None:
    """Say why a run of a schedule is left out; None if it may start.

    A machine that was off for three Mondays finds three runs waiting.  They would compute the
    same, so at most the newest of them starts.

    Args:
        window: The run's own time, and those of the schedule's other runs.
        config: What becomes of missed windows.
        now: Of the same clock as the scheduler's.
    """
    due = [one for one in window.later if window.expected < one <= now]
    if due:
        return (
            f"the run of {_minute(window.expected)} was missed, and the one of "
            f"{_minute(max(due))} stands for it"
        )
    late = now - window.expected
    if config.catch_up == "none" and late > timedelta(minutes=config.late_minutes):
        return (
            f"the run of {_minute(window.expected)} was missed by {_hours(late)} hours, and "
            "operations.yaml says schedule.catch_up: none"
        )
    return None


def waits(window: Window | None, config: ScheduleConfig) -> bool:
    """Say whether a run waits for its turn; else it is left out while another one runs.

    Only a run of the schedule may be left out, as the next window comes by itself.  Nothing
    would ask again for one that a trigger or a person has asked for.

    Args:
        window: The run's own, if the schedule has started it.
        config: What becomes of windows that overlap.
    """
    return window is None or config.overlap == "queue"


def _minute(time_: datetime) -> str:
    return time_.strftime("%Y-%m-%d %H:%M %Z").strip()


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f}"


@contextmanager
def turn(who: str, log: Log, *, wait: bool = True) -> Iterator[None]:
    """Have the working tree for oneself.

    Args:
        who: The flow and its run, for those who wait.
        log: Hears whom we wait for.
        wait: Whether to wait for one's turn; else somebody else's is an error.

    Raises:
        StageBusyError: If another run has the working tree and we do not wait.
    """
    TURN.parent.mkdir(parents=True, exist_ok=True)
    with TURN.open("a+", encoding="utf-8") as file:
        _take(file, log, wait=wait)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        facts = {"who": who, "host": socket.gethostname(), "pid": os.getpid(), "since": now}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(facts) + "\n")
        file.flush()
        yield


def _take(file: IO[str], log: Log, *, wait: bool) -> None:
    told = ""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            if not wait:
                raise StageBusyError(
                    f"this working tree is taken by {holder}; operations.yaml says "
                    "schedule.overlap: skip"
                ) from None
            if holder != told:
                log.info("waiting for my turn: this working tree is taken by %s", holder)
                told = holder
            time.sleep(POLL_SECONDS)
        else:
            return


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        facts = json.loads(file.read())
    except ValueError:  # it has just come and has not signed yet
        return "another run"
    return f"{facts['who']} (process {facts['pid']} on {facts['host']}, since {facts['since']})"
