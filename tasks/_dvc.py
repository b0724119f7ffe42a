"""The one place that runs DVC, for Prefect tasks: DVC decides whether a step has work to do."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from prefect import get_run_logger, runtime

from ovis_model.errors import ConfigError, StageBusyError, StageError
from tasks import _processes
from tasks.environment import FLOW_RUN
from tasks.masking import masked
from tasks.retries import classify

#: After `kill -9` the lock of a process that is not quite gone yet is removed at a second try.
RETRY_SECONDS = 3.0
#: A progress bar redraws itself many times a second; a log wants to hear of it now and then.
BAR_SECONDS = 10.0


class Log(Protocol):
    """The part of a logger, Prefect's or Python's, that is used here."""

    def info(self, message: str, /, *arguments: object) -> None:
        """Log one line."""
        ...


def reproduce(
    stage: str, log: Log | None = None, *, force: bool = False, limit_hours: float = math.inf
) -> None:
    """Bring one stage up to date, and whatever it depends on.

    Not `--single-item`: that would train on what a failed `validate` left behind.

    Args:
        stage: A stage of dvc.yaml.
        log: Receives DVC's output line by line; None is the log of the running Prefect task.
        force: Whether it runs even if nothing changed.
        limit_hours: After how long it is ended as one that hangs.

    Raises:
        StageError: If the stage, or one before it, exits with an error or takes longer than
            it may; a `StageBusyError` if another DVC process holds this working
            tree, and others of `tasks.retries.CURABLE` where another attempt may help.
    """
    logger: Log = log or get_run_logger()
    command = ["repro", *(["--force"] if force else []), stage]
    try:
        _repro(command, logger, limit_hours * 3600)
    except StageBusyError:
        logger.info("another DVC run seems to hold this working tree; trying once more")
        time.sleep(RETRY_SECONDS)
        _repro(command, logger, limit_hours * 3600)


def _repro(command: list[str], log: Log, limit_seconds: float) -> None:
    environment = {**os.environ, **_flow_run()}
    try:
        run_dvc(command, log, environment=environment, limit_seconds=limit_seconds)
    except StageError as error:
        raise classify(error) from error


def run_dvc(
    arguments: list[str],
    log: Log,
    *,
    environment: Mapping[str, str] = os.environ,
    limit_seconds: float = math.inf,
) -> None:
    """Run a DVC command to its end.

    Raises:
        StageError: If it ends with an error, or is ended because it takes too long.
    """
    # This interpreter's DVC, and its `python` in the stages: PATH may name another one.
    command = [sys.executable, "-m", "dvc", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    # Prefect keeps what it is told, on a server that others may read.
    lines = Lines(lambda line: log.info("%s", masked(line)))
    try:
        _processes.run(
            command,
            on_output=lines.feed,
            env={**environment, "PATH": path},
            limit_seconds=limit_seconds,
        )
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
