"""SIGTERM and SIGUSR1 end a training after the step in work, with a checkpoint of it.

Clusters send them before they take a machine away: Slurm by `--signal=USR1@90`, Kubernetes and
spot instances by SIGTERM, torchrun to every process when it is itself asked to stop.
"""

import os
import signal
import threading
from enum import Enum
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.errors import TrainingStopped
from ovis_model.training import faults
from ovis_model.training.faults import CrashPoint

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Phase(Enum):
    """What a signal does: end at once, ask for the end of the step, or come too late."""

    BEFORE = "before"
    TRAINING = "training"
    AFTER = "after"


class Interruption(TrainerCallback):
    """Notes that this process was asked to stop, and stops when all processes know.

    A context manager: what handled the signals before handles them again afterwards.  Outside
    of the main thread, where Python allows no handler, nothing is changed.

    Attributes:
        received: The first signal this process got, or 0.
        agreed: The signal all processes have agreed to stop for, or 0.
        phase: Set by the training as it goes on.
    """

    def __init__(self) -> None:
        self.received = 0
        self.agreed = 0
        self.phase = Phase.BEFORE
        self._process = os.getpid()
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def enter(self, phase: Phase) -> None:
        """Go on to another phase.

        Raises:
            TrainingStopped: If a signal came too late for the training before this one.
        """
        self.phase = phase
        if phase is Phase.BEFORE and self.received:
            self._stop_at_once(self.received)

    @staticmethod
    def _stop_at_once(number: int) -> NoReturn:
        raise TrainingStopped(
            f"stopped by {signal.Signals(number).name} before the first step. Run it again to "
            "go on"
        )

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A worker of the data loader has inherited this; for it, the end is the end.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.phase is Phase.BEFORE:
            self._stop_at_once(number)
        elif not self.received:
            self.received = number

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - transformers passes all of them
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Have the step saved and end the loop; after the last step the run is left to finish."""
        faults.reach(CrashPoint.OPTIMIZER, step=state.global_step)
        if self.agreed and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def check(self, state: TrainerState) -> None:
        """Say that the loop ended early; call it in every process when the loop has ended.

        Raises:
            TrainingStopped: If it did.
        """
        if self.agreed and state.global_step < state.max_steps:
            raise TrainingStopped(
                f"stopped by {signal.Signals(self.agreed).name} after step {state.global_step} of "
                f"{state.max_steps}, with a checkpoint of it. Run it again to go on from there"
            )
