"""One trainer in one process, epoch by epoch, at the word of whoever measures.

    train(variant, world, scratch, connection)

An epoch is one optimizer step over all samples, so that every variant, padded or packed, sees the
same samples in each step and must find the same losses.  Before an epoch the process waits for a
word on the connection; after it, it sends an `Epoch`.
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.measure import PROCESS, cpu_seconds
from benchmarks.training.reference_data import ReferenceCollator, ReferenceDataset
from benchmarks.training.reference_model import load_reference
from benchmarks.training.variants import OPTIMIZER, Variant, our_settings
from benchmarks.training.world import World
from ovis_model.train_config import TrainConfig
from ovis_model.training import training
from ovis_model.training.destination import Destination
from ovis_model.training.inputs import read_annotations
from ovis_model.training.trainer import OvisTrainer


@dataclass(frozen=True)
class Epoch:
    """What one epoch took.

    Attributes:
        cpu_seconds: Processor time of the whole, reading samples and the step included.
        model_seconds: Of it, forward and backward passes.
        wall_seconds: By the clock on the wall.
        loss: Mean over learned tokens, before the optimizer's step.
        peak_bytes: The highest resident set since training began; None where the system cannot
            tell.
    """

    cpu_seconds: float
    model_seconds: float
    wall_seconds: float
    loss: float
    peak_bytes: int | None


class Turns(TrainerCallback):
    """Lets an epoch begin when told to, and tells what it took."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._started = (0.0, 0.0)
        self._loss = float("nan")
        self.model_seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Say that all is ready, and forget the highest resident set: loading is not measured."""
        ctypes.CDLL(None).malloc_trim(0)
        if (PROCESS / "clear_refs").exists():
            (PROCESS / "clear_refs").write_text("5", encoding="ascii")
        self._connection.send(None)

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the word."""
        self._connection.recv()
        self.model_seconds = 0.0
        self._started = (cpu_seconds(), time.perf_counter())

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        """Remember the step's loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Tell."""
        cpu, wall = self._started
        self._connection.send(
            Epoch(
                cpu_seconds=cpu_seconds() - cpu,
                model_seconds=self.model_seconds,
                wall_seconds=time.perf_counter() - wall,
                loss=self._loss,
                peak_bytes=_high_water(),
            )
        )


def _high_water() -> int | None:
    status = PROCESS / "status"
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None


def timed(trainer: type[Trainer], turns: Turns) -> type[Trainer]:
    """Derive a trainer that takes turns and counts the time of its passes."""

    class TimedTrainer(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(turns)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            begun = cpu_seconds()
            try:
                return super().training_step(*args, **kwargs)
            finally:
                turns.model_seconds += cpu_seconds() - begun

    return TimedTrainer


def train(variant: Variant, world: World, scratch: Path, connection: Connection) -> None:
    """Train a variant in this process; everything it writes goes to `scratch`."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    TRAINERS[variant.trainer](variant, world, scratch, Turns(connection))
    connection.close()


def _train_reference(variant: Variant, world: World, scratch: Path, turns: Turns) -> None:
    """Train with transformers' Trainer, as it is, on the reference's model and data."""
    dataset = ReferenceDataset(world)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **OPTIMIZER,
        **variant.settings,
    )
    timed(Trainer, turns)(
        model=load_reference(world.base),
        args=arguments,
        train_dataset=dataset,
        data_collator=ReferenceCollator(dataset.tokenizer),
    ).train()


def _train_ours(variant: Variant, world: World, scratch: Path, turns: Turns) -> None:
    """Train the way a configuration file is trained on outside the pipeline."""
    config = TrainConfig.parse(our_settings(variant, world), where=variant.name)
    where = Destination(
        output=scratch / "model",
        resume=scratch / "resume",
        metrics_log=scratch / "metrics.jsonl",
        loss_csv=scratch / "loss.csv",
    )
    inputs = read_annotations(world.annotations, world.root)
    with _in_place_of("OvisTrainer", timed(OvisTrainer, turns)):
        training.train_on(config, inputs, where=where)


@contextmanager
def _in_place_of(name: str, stand_in: Any) -> Iterator[None]:
    original = getattr(training, name)
    setattr(training, name, stand_in)
    try:
        yield
    finally:
        setattr(training, name, original)


TRAINERS: dict[str, Callable[[Variant, World, Path, Turns], None]] = {
    "reference": _train_reference,
    "ours": _train_ours,
}
