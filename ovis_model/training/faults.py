"""Places where a test may end, hang or stop a training; nothing happens there otherwise.

    OVIS_FAULT=kill@checkpoint.after_files       at the first step that comes there
    OVIS_FAULT=hang@step.before_forward:5:1      at step 5, in process 1 only

A promise about a training that is killed anywhere is worth what was tried: tests go through all
of `CrashPoint`, so that a new one cannot stay untried.
"""

import os
import signal
import time
from enum import StrEnum

from ovis_model.errors import ConfigError

VARIABLE = "OVIS_FAULT"
NAP_SECONDS = 60.0


class CrashPoint(StrEnum):
    """Where; in the order in which a training passes them."""

    FORWARD = "step.before_forward"
    OPTIMIZER = "step.after_optimizer"
    CHECKPOINT = "checkpoint.before_files"
    FILES = "checkpoint.after_files"
    MANIFEST = "checkpoint.before_manifest"
    COMMIT = "checkpoint.after_manifest"
    ROTATION = "checkpoint.during_rotation"
    MODEL = "model.after_files"
    PUBLICATION = "model.after_rename"


class Action(StrEnum):
    """What."""

    KILL = "kill"
    TERMINATE = "term"
    HANG = "hang"


def reach(point: CrashPoint, *, step: int) -> None:
    """Do what `OVIS_FAULT` asks for, if this is the place, the step and the process.

    Raises:
        ConfigError: If the variable holds something else.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    action, place, at_step, rank = _parse(wanted)
    if place is not point or at_step not in (None, step):
        return
    if rank is not None and rank != int(os.environ.get("RANK", "0")):
        return
    if action is Action.KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif action is Action.TERMINATE:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        while True:
            time.sleep(NAP_SECONDS)


def _parse(wanted: str) -> tuple[Action, CrashPoint, int | None, int | None]:
    try:
        action, _, where = wanted.partition("@")
        place, *numbers = where.split(":")
        step, rank = (*map(int, numbers), None, None)[:2]
        return Action(action), CrashPoint(place), step, rank
    except ValueError as error:
        raise ConfigError(
            f"{VARIABLE}={wanted}: {error}. It is ACTION@POINT[:STEP[:PROCESS]], with one of "
            f"{', '.join(Action)} and one of {', '.join(CrashPoint)}; unset it to train"
        ) from error
