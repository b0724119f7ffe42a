"""Ends a training in which nothing has moved for too long, and says where it stands.

One process that waits for ever holds all the others, and their GPUs, until someone looks.
"""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.training import exit_codes

#: The others hang, too, and notice a moment later; their stacks are wanted as well.
LINGER_SECONDS = 2.0
#: Looks per time limit.
LOOKS = 4


class Watchdog(TrainerCallback):
    """A thread that watches the loop; it works while the main thread is stuck in C++.

    Args:
        timeout_seconds: Longest time without a sign of life; 0 watches nothing.
        rank: Of this process.
    """

    def __init__(self, timeout_seconds: float, *, rank: int) -> None:
        self.timeout_seconds = timeout_seconds
        self.rank = rank
        self._step = 0
        self._sample_ids: Sequence[str] = ()
        self._last_sign = time.monotonic()
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self.sign_of_life()
        if self.timeout_seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()

    def working_on(self, step: int, sample_ids: Sequence[str]) -> None:
        """Note the micro-batch in work; that there is a new one is a sign of life."""
        self._step, self._sample_ids = step, sample_ids
        self.sign_of_life()

    def sign_of_life(self) -> None:
        """Begin the time limit anew; for everything long that is no step."""
        self._last_sign = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note that a step has ended."""
        self.sign_of_life()

    on_save = on_prediction_step = on_evaluate = on_step_end

    def _watch(self) -> None:
        while not self._is_over.wait(self.timeout_seconds / LOOKS):
            if time.monotonic() - self._last_sign > self.timeout_seconds:
                self._give_up()

    def _give_up(self) -> None:
        sys.stderr.write(
            f"\nerror: process {self.rank}: nothing has moved for {self.timeout_seconds:g} s in "
            f"step {self._step}, samples {', '.join(self._sample_ids)}. The stacks of its threads "
            "follow; the process that waits for no other one is the one that hangs. Run it again "
            "to go on from the last checkpoint; train.hang_timeout_seconds sets the limit\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(sys.stderr)
        time.sleep(LINGER_SECONDS)
        os._exit(exit_codes.HUNG)
