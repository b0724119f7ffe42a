"""What looks after a training while it runs, together: the trainer tells it what is in work."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from ovis_model.train_config import TrainConfig
from ovis_model.training import faults
from ovis_model.training.faults import CrashPoint
from ovis_model.training.interruption import Interruption
from ovis_model.training.step_guard import MicroBatch, StepGuard
from ovis_model.training.watchdog import Watchdog


@dataclass(frozen=True)
class Safeguards:
    """The guard of losses and gradients, the watchdog, and who hears signals."""

    guard: StepGuard
    watchdog: Watchdog
    interruption: Interruption

    @classmethod
    def of(
        cls, config: TrainConfig, arguments: TrainingArguments, interruption: Interruption
    ) -> Self:
        """Build what a configuration asks for."""
        guard = StepGuard(
            world_size=arguments.world_size,
            spike_factor=config.loss_spike_factor,
            spike_window=config.loss_spike_window,
        )
        watchdog = Watchdog(config.hang_timeout_seconds, rank=arguments.process_index)
        return cls(guard, watchdog, interruption)

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """Those that the trainer calls at the end of steps."""
        return [self.watchdog, self.interruption]

    def begin(self, batch: MicroBatch) -> None:
        """Note that the forward pass of a micro-batch begins."""
        self.watchdog.working_on(batch.step, batch.sample_ids)
        faults.reach(CrashPoint.FORWARD, step=batch.step)

    def check(self, loss: Tensor, batch: MicroBatch) -> None:
        """Look at its loss, a scalar, before backward; every process must call it.

        Raises:
            TrainingError: In every process, naming the samples, if nothing in a batch is learned,
                or the loss is no number or a spike.
        """
        self.interruption.agreed = self.guard.check(
            loss, batch, received_signal=self.interruption.received
        )
