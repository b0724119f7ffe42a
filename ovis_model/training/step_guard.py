"""Looks at every micro-batch before its gradients are used, in agreement with all processes.

A process that stops alone leaves the others waiting in a collective.  So each tells the others
what it saw, three numbers per micro-batch, and all stop or none.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, distributed

from ovis_model.errors import TrainingError


class Problem(IntEnum):
    """What one process saw in its micro-batch."""

    NONE = 0
    NOTHING_LEARNED = 1
    NOT_A_NUMBER = 2


@dataclass(frozen=True)
class MicroBatch:
    """What is known of a batch beside its loss.

    Attributes:
        step: The optimizer step it belongs to, from 1.
        sample_ids: Of its samples.
        num_supervised: Tokens that are learned.
        closes_step: Whether the optimizer steps after it.
    """

    step: int
    sample_ids: Sequence[str]
    num_supervised: int
    closes_step: bool


class StepGuard:
    """Stops a training that would learn from numbers that are none, or from a spike.

    Args:
        world_size: Processes.
        spike_factor: A step's loss may be so many times the median of the last ones; None
            allows any.
        spike_window: How many steps the median is of; before so many, nothing is a spike.
    """

    def __init__(self, *, world_size: int, spike_factor: float | None, spike_window: int) -> None:
        self.world_size = world_size
        self.spike_factor = spike_factor
        self.recent_losses: deque[float] = deque(maxlen=spike_window)
        self._step_loss = 0.0
        self._step_ids: list[str] = []
        #: Of the step that is about to be made, or was just made.
        self._closed_ids: list[str] = []

    def check(self, loss: Tensor, batch: MicroBatch, *, received_signal: int) -> int:
        """Look at a micro-batch after its forward pass; every process must call it.

        Args:
            loss: Its share of the step's loss, a scalar.
            batch: That it is of.
            received_signal: That this process was asked to stop with, or 0.

        Returns:
            The signal that any process was asked to stop with, or 0.

        Raises:
            TrainingError: In every process, naming the samples of those that saw something.
        """
        self._step_ids += batch.sample_ids
        table = self._tell_all(loss, batch, received_signal)
        bad = {rank: row for rank, row in enumerate(table) if row[0] != Problem.NONE}
        if bad:
            problem, _, value = next(iter(bad.values()))
            where = self._suspects(batch.step, batch.sample_ids, set(bad))
            if problem == Problem.NOTHING_LEARNED:
                # DIVERGES(nothing-to-learn): the reference logs a line and trains on NaN.
                raise TrainingError(
                    f"{where}. No token of this batch is learned: give the samples a 'gpt' turn "
                    "with text, or remove them"
                )
            raise TrainingError(
                f"{where}. The loss is {value}: look at these samples, or lower "
                "train.learning_rate; nothing of this step was kept"
            )
        self._step_loss += sum(value for _, _, value in table) / len(table)
        if batch.closes_step:
            self._close_step(batch.step)
        return int(max(number for _, number, _ in table))

    def check_gradient(self, norm: float, *, step: int) -> None:
        """Look at the gradients' norm, which all processes share, before it is used.

        Raises:
            TrainingError: In every process, naming all samples of the step.
        """
        if not math.isfinite(norm):
            where = self._suspects(step, self._closed_ids, set(range(self.world_size)))
            raise TrainingError(
                f"{where}. The norm of the gradient is {norm}: look at these samples, or lower "
                "train.learning_rate; nothing of this step was kept"
            )

    def _close_step(self, step: int) -> None:
        loss, self._step_loss = self._step_loss, 0.0
        self._closed_ids, self._step_ids = self._step_ids, []
        window = self.recent_losses
        if self.spike_factor is not None and len(window) == window.maxlen:
            median = statistics.median(window)
            if loss > self.spike_factor * median:
                where = self._suspects(step, self._closed_ids, set(range(self.world_size)))
                raise TrainingError(
                    f"{where}. The loss is {loss:.4g}, over {self.spike_factor:g} times the "
                    f"median of the last {len(window)} steps ({median:.4g}): look at these "
                    "samples, lower train.learning_rate, or raise train.loss_spike_factor; "
                    "nothing of this step was kept"
                )
        window.append(loss)

    def _tell_all(
        self, loss: Tensor, batch: MicroBatch, received_signal: int
    ) -> list[tuple[float, float, float]]:
        """Exchange what was seen: of each process (problem, signal, loss)."""
        seen = torch.zeros(3, dtype=torch.float64, device=loss.device)
        seen[0] = torch.where(loss.isfinite(), Problem.NONE, Problem.NOT_A_NUMBER)
        if not batch.num_supervised:
            seen[0] = Problem.NOTHING_LEARNED
        seen[1], seen[2] = received_signal, loss
        rows = [seen]
        if self.world_size > 1:
            rows = [torch.empty_like(seen) for _ in range(self.world_size)]
            distributed.all_gather(rows, seen)
        # One read of the device for everything.
        return [(problem, number, value) for problem, number, value in torch.stack(rows).tolist()]

    def _suspects(self, step: int, sample_ids: Sequence[str], ranks: set[int]) -> str:
        """Name step and samples, all of them: each may be the one."""
        if self.world_size == 1:
            return f"step {step}, samples {', '.join(sample_ids)}"
        everyone: list[Sequence[str]] = [()] * self.world_size
        distributed.all_gather_object(everyone, list(sample_ids))
        named = (
            f"process {rank}, samples {', '.join(ids)}"
            for rank, ids in enumerate(everyone)
            if rank in ranks
        )
        return f"step {step}, {'; '.join(named)}"
