"""Refuses a training whose checkpoints would not fit on the disk, before its first step.

A disk that fills up during a write costs everything since the checkpoint before, hours later.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.errors import TrainingError
from ovis_model.training import checkpoints
from ovis_model.training.arguments import optimizer_state_bytes
from ovis_model.training.train_modules import count_parameters

GIGABYTE = 1e9
#: Of a float32 weight, and of the master that DeepSpeed keeps.
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class DiskNeed:
    """Bytes of one checkpoint, all processes together, and of the finished model."""

    checkpoint: int
    model: int


def disk_need(model: nn.Module, *, optimizer: str, stage: int | None) -> DiskNeed:
    """Count what a training writes, from parameters, precision and ZeRO stage.

        no DeepSpeed      weights            optimizer state
        ZeRO 0, float32   weights            optimizer state
        ZeRO 0, 16 bits   weights, masters   optimizer state
        ZeRO 1 and 2      weights, masters   optimizer state
        ZeRO 3            frozen, masters    optimizer state

    ZeRO-3 restores what learns from the float32 masters.

    Args:
        model: In the precision in which it is trained, frozen parameters marked.
        optimizer: As transformers names it.
        stage: Of ZeRO; None without DeepSpeed.
    """
    learning = count_parameters(model, trainable_only=True)
    everything = count_parameters(model)
    weight_bytes = next(model.parameters()).element_size()
    size = everything * weight_bytes + learning * optimizer_state_bytes(optimizer)
    if stage or (stage == 0 and weight_bytes < FLOAT32_BYTES):
        size += learning * FLOAT32_BYTES
    if stage == 3:
        size -= learning * weight_bytes
    return DiskNeed(checkpoint=size, model=everything * weight_bytes)


class DiskSpace(TrainerCallback):
    """Compares the need with what is free, once the number of steps is known.

    Args:
        need: From `disk_need`.
        resume: Folder of the checkpoints.
        output: Folder of the finished model.
        keep: Checkpoints that stay; one more is there while it is written.
    """

    def __init__(self, need: DiskNeed, *, resume: Path, output: Path, keep: int) -> None:
        self.need = need
        self.resume = resume
        self.output = output
        self.keep = keep

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002 - transformers passes all of them
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Refuse what cannot fit.

        Raises:
            TrainingError: With the numbers, and what to do.
        """
        saves = (state.max_steps - 1) // max(int(state.save_steps), 1)
        # One at least: whoever is asked to stop writes one.
        count = max(1, min(saves, self.keep + 1)) - checkpoints.count_committed(self.resume)
        files = [(self.output, "the model", self.need.model)]
        if count > 0:
            what = f"{count} checkpoint(s) of {_gb(self.need.checkpoint)} each"
            files.insert(0, (self.resume, what, count * self.need.checkpoint))
        for disk in _by_disk(files):
            free = shutil.disk_usage(_existing(disk[0][0])).free
            wanted = sum(size for _, _, size in disk)
            if wanted > free:
                raise TrainingError(
                    f"the disk of {disk[0][0]} has {_gb(free)} free, but this training writes "
                    f"{' and '.join(what for _, what, _ in disk)}, {_gb(wanted)} together. Make "
                    "room, put the folder on another disk (a link will do), lower "
                    "train.save_total_limit, or train fewer modules"
                )


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.3g} GB"


def _existing(path: Path) -> Path:
    """Return the path or the nearest folder above that is there."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.exists())


def _by_disk(files: list[tuple[Path, str, int]]) -> list[list[tuple[Path, str, int]]]:
    disks: dict[int, list[tuple[Path, str, int]]] = {}
    for file in files:
        disks.setdefault(_existing(file[0]).stat().st_dev, []).append(file)
    return list(disks.values())
