"""Signs of life of whatever runs here, as files that `ovis status` reads.

A step says where it runs, since when and how far it is.  A thread writes that every few seconds,
so a file that is old says that the process hangs, and one of a process that is gone that it
crashed: there is no server to ask, and `kill -9` cannot prevent it.

    .ovis/heartbeats/train-myhost-4711.json
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationError

from ovis_model.errors import StageStopped
from ovis_model.progress import Progress, WatchedBar
from ovis_model.reports import Report
from tasks._process_identity import has_ended, process_identity
from tasks.artifacts import HEARTBEATS

#: Between two signs of life; news are told sooner.
INTERVAL = timedelta(seconds=10)
NEWS_SECONDS = 2.0
#: Older ones of a living process say that it hangs.
HUNG_AFTER = 2 * INTERVAL
#: Nobody can look whether a process of another machine lives.
GONE_AFTER = 30 * INTERVAL

State = Literal["running", "done", "failed", "stopped", "crashed"]

logger = logging.getLogger(__name__)


class Heartbeat(Report):
    """The newest sign of life of one process."""

    step: str
    state: State
    host: str
    pid: int
    process: str
    """Its identity: numbers of processes are given out again."""
    folder: str
    started_at: datetime
    beat_at: datetime
    progress: str | None = None
    progress_at: datetime | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    output: str | None = None
    runs_are_open: bool = False
    """Whether the tracker may have runs that only this process would have closed."""

    @property
    def is_alive(self) -> bool:
        """Whether the process is there; of another machine's, whether it was heard of lately."""
        if self.host == socket.gethostname():
            return not has_ended(self.process)
        return now() - self.beat_at < GONE_AFTER

    @property
    def is_hung(self) -> bool:
        """Whether it should have been heard of, if it is alive."""
        return now() - self.beat_at > HUNG_AFTER

    @property
    def path(self) -> Path:
        """The file of this process."""
        return HEARTBEATS / f"{self.step}-{self.host}-{self.pid}.json"


def now() -> datetime:
    """Return the time, as it is written."""
    return datetime.now(UTC)


def read_heartbeats(folder: Path = HEARTBEATS) -> list[Heartbeat]:
    """Return those there are, the oldest first; a file that is not one is left alone."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Heartbeat.read(path))
        except (FileNotFoundError, ValidationError):
            continue
    return sorted(found, key=lambda one: one.started_at)


class Heart:
    """Writes this process's heartbeat while a step runs."""

    #: The one that beats in this process.
    of_this_process: ClassVar["Heart | None"] = None

    def __init__(self, step: str, *, tracked: bool) -> None:
        identity, time_now = process_identity(), now()
        assert identity is not None, "this process is there"
        self._beat = Heartbeat(
            step=step,
            state="running",
            host=socket.gethostname(),
            pid=os.getpid(),
            process=identity,
            folder=str(Path.cwd()),
            started_at=time_now,
            beat_at=time_now,
            runs_are_open=tracked,
        )
        self._news = False
        self._lock = threading.Lock()
        self._is_over = threading.Event()

    def note(self, **changes: object) -> None:
        """Take news; the thread writes them."""
        with self._lock:
            self._beat = self._beat.model_copy(update=changes)
            self._news = True

    def start(self) -> None:
        """Write the first one, and go on in a thread."""
        self._write()
        threading.Thread(target=self._go_on, name="heartbeat", daemon=True).start()

    def end(self, state: State) -> None:
        """Write the last one."""
        self._is_over.set()
        self.note(state=state, runs_are_open=False)
        self._write()

    def _go_on(self) -> None:
        written = time.monotonic()
        while not self._is_over.wait(NEWS_SECONDS):
            if self._news or time.monotonic() - written > INTERVAL.total_seconds():
                self._write()
                written = time.monotonic()

    def _write(self) -> None:
        with self._lock:
            self._beat, self._news = self._beat.model_copy(update={"beat_at": now()}), False
            try:
                self._beat.write(self._beat.path)
            except OSError as error:
                # A full disk, say.  What the step does is worth more than its signs of life.
                logger.warning("%s was not written: %s", self._beat.path, error)


@contextmanager
def beating(step: str, *, tracked: bool = False) -> Iterator[None]:
    """Give signs of life while a step, or a flow, runs.

    Args:
        step: Its name.
        tracked: Whether the tracker has runs open meanwhile.
    """
    _forget_the_ended(step)
    heart = Heart(step, tracked=tracked)
    Heart.of_this_process, WatchedBar.watcher = heart, note_progress
    heart.start()
    state: State = "failed"
    try:
        yield
        state = "done"
    except (KeyboardInterrupt, StageStopped):
        state = "stopped"
        raise
    finally:
        Heart.of_this_process = WatchedBar.watcher = None
        heart.end(state)


def note_progress(progress: Progress, metrics: Mapping[str, float] | None = None) -> None:
    """Say how far the step of this process is; without one that beats, nobody listens."""
    if Heart.of_this_process is not None:
        news: dict[str, object] = {"progress": str(progress), "progress_at": now()}
        if metrics is not None:
            news["metrics"] = dict(metrics)
        Heart.of_this_process.note(**news)


def note_output(output: Path) -> None:
    """Say what the step of this process will write."""
    if Heart.of_this_process is not None:
        Heart.of_this_process.note(output=str(output))


def _forget_the_ended(step: str) -> None:
    """Remove what earlier attempts left, unless somebody has yet to look after it."""
    for one in read_heartbeats():
        if one.step == step and one.state != "running" and not one.runs_are_open:
            one.path.unlink(missing_ok=True)


def settle(one: Heartbeat, *, runs_are_open: bool) -> Heartbeat:
    """Close the heartbeat of a process that is gone."""
    settled = one.model_copy(update={"state": "crashed", "runs_are_open": runs_are_open})
    settled.write(settled.path)
    return settled
