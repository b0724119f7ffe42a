"""The one place that runs DVC, for Prefect tasks: DVC decides whether a step has work to do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from prefect import get_run_logger, runtime

from ovis_model.errors import ConfigError, StageError
from tasks import _processes
from tasks.environment import FLOW_RUN
from tasks.masking import masked

#: DVC names whoever holds the working tree in a line with one of these.
BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
#: After `kill -9` the lock of a process that is not quite gone yet is removed at a second try.
RETRY_SECONDS = 3.0
#: A progress bar redraws itself many times a second; a log wants to hear of it now and then.
BAR_SECONDS = 10.0


class Log(Protocol):
    """The part of a logger, Prefect's or Python's, that is used here."""

    def info(self, message: str, /, *arguments: object) -> None:
        """Log one line."""
        ...


def reproduce(stage: str, log: Log | None = None) -> None:
    """Bring one stage up to date, and whatever it depends on.

    Not `--single-item`: that would train on what a failed `validate` left behind.

    Args:
        stage: A stage of dvc.yaml.
        log: Receives DVC's output line by line; None is the log of the running Prefect task.

    Raises:
        StageError: If the stage, or one before it, exits with an error, or if another DVC
            process holds this working tree.
    """
    logger: Log = log or get_run_logger()
    try:
        _repro(stage, logger)
    except StageError as error:
        if not _is_busy(error):
            raise
        logger.info("another DVC run seems to hold this working tree; trying once more")
        time.sleep(RETRY_SECONDS)
        _repro_or_say_who(stage, logger)


def _repro_or_say_who(stage: str, log: Log) -> None:
    try:
        _repro(stage, log)
    except StageError as error:
        if not _is_busy(error):
            raise
        raise StageError(
            "another DVC run holds this working tree, and DVC allows one at a time. Wait for it "
            f"or stop it, then run again. {error}"
        ) from error


def _is_busy(error: StageError) -> bool:
    return any(words in str(error) for words in BUSY)


def _repro(stage: str, log: Log) -> None:
    run_dvc(["repro", stage], log, environment={**os.environ, **_flow_run()})


def run_dvc(
    arguments: list[str], log: Log, *, environment: Mapping[str, str] = os.environ
) -> None:
    """Run a DVC command to its end.

    Raises:
        StageError: If it ends with an error.
    """
    # This interpreter's DVC, and its `python` in the stages: PATH may name another one.
    command = [sys.executable, "-m", "dvc", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    # Prefect keeps what it is told, on a server that others may read.
    lines = Lines(lambda line: log.info("%s", masked(line)))
    try:
        _processes.run(command, on_output=lines.feed, env={**environment, "PATH": path})
    finally:
        lines.flush()


def _flow_run() -> dict[str, str]:
    """Let the step know in which flow run it is, if it is in one."""
    run_id = runtime.flow_run.id
    return {FLOW_RUN: str(run_id)} if run_id else {}


def cache_folder() -> Path:
    """Return the folder of DVC's cache.

    Raises:
        ConfigError: With what DVC said, if it does not know.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"`dvc cache dir` failed: {done.stderr.strip()}")
    return Path(done.stdout.strip()).resolve()


class Lines:
    """Cuts output into lines; of a progress bar, passes on a state every few seconds."""

    def __init__(self, emit: Callable[[str], None], *, bar_seconds: float = BAR_SECONDS) -> None:
        self._emit = emit
        self._bar_seconds = bar_seconds
        self._last_bar = float("-inf")
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece of output."""
        *complete, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        for line in complete:
            self._line(line)
        if b"\r" in self._rest:
            bar, _, self._rest = self._rest.rpartition(b"\r")
            self._bar(bar)

    def flush(self) -> None:
        """Pass on what came after the last line end."""
        self._line(self._rest)
        self._rest = b""

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rsplit("\r", 1)[-1].rstrip()
        if text:
            self._emit(text)

    def _bar(self, states: bytes) -> None:
        now = time.monotonic()
        if now - self._last_bar >= self._bar_seconds:
            self._last_bar = now
            self._line(states)
