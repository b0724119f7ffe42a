"""Smaller micro-batches after one did not fit: the same samples per step, in more pieces.

A process that runs out of memory leaves the others waiting for it, so nothing is tried again in
place: the decision is written beside the checkpoints, every process ends, and the next start goes
on from the last checkpoint with it.  Free of torch, for the step that starts a training reads it.

    <resume>/micro_batch.json    every reduction so far; the last one holds
"""

from pathlib import Path

from pydantic import TypeAdapter

from ovis_model.reports import Report, write_text
from ovis_model.train_config import TrainConfig

FILE = "micro_batch.json"


class Reduction(Report):
    """What training went on with, after a step did not fit."""

    step: int
    process: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int


_REDUCTIONS = TypeAdapter(list[Reduction])


def reductions(resume: Path) -> list[Reduction]:
    """Read what has been decided for the training whose checkpoints are in a folder."""
    path = resume / FILE
    return _REDUCTIONS.validate_json(path.read_bytes()) if path.is_file() else []


def all_reductions(resume: Path) -> list[Reduction]:
    """Read what has been decided for any stage of a training."""
    return [one for path in sorted(resume.rglob(FILE)) for one in reductions(path.parent)]


def remember(resume: Path, reduction: Reduction) -> None:
    """Add a decision; processes that decide at the same moment decide the same."""
    found = [*reductions(resume), reduction]
    write_text(resume / FILE, _REDUCTIONS.dump_json(found, indent=2).decode() + "\n")


def reduced(config: TrainConfig, found: list[Reduction]) -> TrainConfig:
    """Return the configuration with the last decision in place."""
    if not found:
        return config
    sizes = found[-1].model_dump(
        include={"per_device_train_batch_size", "gradient_accumulation_steps"}
    )
    return config.model_copy(update=sizes)


def divided(config: TrainConfig) -> tuple[int, int]:
    """Return micro-batch and accumulation with a half of the samples at a time, or a third, ...

    Example:
        >>> config = TrainConfig(ovis_pretrained_path="base", per_device_train_batch_size=6,
        ...                      gradient_accumulation_steps=1)
        >>> divided(config)
        (3, 2)
        >>> divided(config.model_copy(update={"per_device_train_batch_size": 3}))
        (1, 3)
    """
    size = config.per_device_train_batch_size
    parts = next(number for number in range(2, size + 1) if size % number == 0)
    return size // parts, config.gradient_accumulation_steps * parts
