"""Checkpoints to resume from: only one that was written whole is ever offered.

A folder counts once its `manifest.json` is there.  The manifest is written last and holds the
sha256 of every other file, so a write cut short, a file lost and a flipped bit all show.

    <resume>/checkpoint-<step>/...           what transformers and DeepSpeed write
    <resume>/checkpoint-<step>/manifest.json  written by commit()
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ovis_model.errors import CheckpointError
from ovis_model.reports import sha256_of_file, write_text
from ovis_model.training import faults
from ovis_model.training.faults import CrashPoint

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"

log = logging.getLogger(__name__)


class RunLayout(BaseModel):
    """How a training is spread over processes and steps; says where its state is good for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world_size: int
    zero_stage: int | None
    """None without DeepSpeed."""
    batch_size: int
    """Samples, or packed rows, per optimizer step."""
    order: str
    """What the order of the data depends on, beside seed and epoch."""

    def describe(self) -> str:
        """For people."""
        engine = "without DeepSpeed" if self.zero_stage is None else f"ZeRO {self.zero_stage}"
        return (
            f"{self.world_size} process(es), {engine}, {self.batch_size} sample(s) or row(s) per "
            f"step, in {self.order} order"
        )

    def can_continue(self, other: "RunLayout") -> bool:
        """Say whether a checkpoint written under the other layout goes on under this one.

        Without DeepSpeed every process has the whole state, so their number may change as long
        as the same samples make the same steps.
        """
        if self.zero_stage is None and other.zero_stage is None:
            return (self.batch_size, self.order) == (other.batch_size, other.order)
        return self == other


class CheckpointManifest(BaseModel):
    """What a committed checkpoint holds, and how it was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    layout: RunLayout
    files: dict[str, str]
    """Path below the folder to sha256."""


def folder_of(resume: Path, step: int) -> Path:
    """Return the folder of one step's checkpoint."""
    return resume / f"{PREFIX}{step}"


def digests(folder: Path) -> dict[str, str]:
    """Digest every file below a folder, in sorted order, the manifest left out."""
    return {
        path.relative_to(folder).as_posix(): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def commit(folder: Path, *, step: int, layout: RunLayout) -> None:
    """Declare a checkpoint complete; call it once every process has written its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_to_disk(path)
    manifest = CheckpointManifest(step=step, layout=layout, files=digests(folder))
    faults.reach(CrashPoint.MANIFEST, step=step)
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    _flush_to_disk(folder)
    _flush_to_disk(folder.parent)
    faults.reach(CrashPoint.COMMIT, step=step)


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest_committed(resume: Path, layout: RunLayout) -> Path | None:
    """Find the newest checkpoint that is whole; damaged ones are passed over with a warning.

    Raises:
        CheckpointError: If this run cannot go on with it: DeepSpeed has cut the optimizer state
            for another number of processes or stage, or other samples make a step now.
    """
    for folder in reversed(_by_step(resume)):
        if not (folder / MANIFEST).exists():
            continue
        manifest, damage = _inspect(folder)
        if manifest is None or damage:
            log.warning("checkpoint %s is passed over: %s", folder, damage)
            continue
        if not layout.can_continue(manifest.layout):
            raise CheckpointError(
                f"{folder} was written by {manifest.layout.describe()}; this run has "
                f"{layout.describe()}. Run it as before, or delete {resume} to start from the "
                "base model"
            )
        return folder
    return None


def _inspect(folder: Path) -> tuple[CheckpointManifest | None, str]:
    """Read a manifest and compare it with the files; the text says what is wrong, if anything."""
    try:
        manifest = CheckpointManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        return None, f"its {MANIFEST} cannot be read ({error.errors()[0]['msg']})"
    found = digests(folder)
    for name, digest in manifest.files.items():
        if name not in found:
            return manifest, f"{name} is missing"
        if found[name] != digest:
            return manifest, f"{name} has changed since it was written"
    for name in found.keys() - manifest.files.keys():
        return manifest, f"{name} does not belong to it"
    return manifest, ""


def _by_step(resume: Path) -> list[Path]:
    folders = [
        path
        for path in resume.glob(f"{PREFIX}*")
        if path.is_dir() and path.name.removeprefix(PREFIX).isdecimal()
    ]
    return sorted(folders, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def remove_uncommitted(resume: Path) -> None:
    """Delete what an interrupted write left, so that its files never mix with new ones."""
    for folder in _by_step(resume):
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder)


def require_whole(folder: Path) -> None:
    """Check a checkpoint that was committed.

    Raises:
        CheckpointError: If it is gone or damaged.
    """
    exists = (folder / MANIFEST).is_file()
    damage = _inspect(folder)[1] if exists else f"it has no {MANIFEST}"
    if damage:
        raise CheckpointError(
            f"the best checkpoint {folder} cannot be used: {damage}. Delete {folder.parent} to "
            "train anew from the base model"
        )


def set_aside_newer(resume: Path, than: Path | None) -> None:
    """Rename the checkpoints after the one that is resumed: those that were passed over.

    Rotation goes by number, and would keep them in place of the good ones.
    """
    for folder in _by_step(resume):
        if than is None or _step_of(folder) > _step_of(than):
            aside = folder.with_name(folder.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def count_committed(resume: Path) -> int:
    """Count the checkpoints that were declared complete."""
    return sum((folder / MANIFEST).exists() for folder in _by_step(resume))


def rotate(resume: Path, *, keep: int, spare: int) -> None:
    """Delete all but the newest committed checkpoints; call it after a commit only.

    Args:
        resume: Folder of the checkpoints.
        keep: How many stay.
        spare: Step of one that stays in any case.
    """
    committed = [folder for folder in _by_step(resume) if (folder / MANIFEST).exists()]
    for folder in committed[:-keep]:
        if folder.name == f"{PREFIX}{spare}":
            continue
        # Manifest first: a deletion cut short leaves a folder that counts for nothing.
        (folder / MANIFEST).unlink()
        _flush_to_disk(folder)
        faults.reach(CrashPoint.ROTATION, step=_step_of(committed[-1]))
        shutil.rmtree(folder)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write the manifest of a finished model folder: its facts and the sha256 of each file."""
    content = {**facts, "files": digests(folder)}
    write_text(folder / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
