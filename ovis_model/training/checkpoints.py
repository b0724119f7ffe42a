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

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"

log = logging.getLogger(__name__)


class CheckpointManifest(BaseModel):
    """What a committed checkpoint holds, and how it was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    world_size: int
    zero_stage: int
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


def commit(folder: Path, *, step: int, world_size: int, zero_stage: int) -> None:
    """Declare a checkpoint complete; call it once every process has written its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_to_disk(path)
    manifest = CheckpointManifest(
        step=step, world_size=world_size, zero_stage=zero_stage, files=digests(folder)
    )
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    _flush_to_disk(folder)


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def newest_committed(resume: Path, *, world_size: int, zero_stage: int) -> Path | None:
    """Find the newest checkpoint that is whole; damaged ones are passed over with a warning.

    Raises:
        CheckpointError: If it was written by another number of processes or another ZeRO
            stage: its optimizer state is cut differently and cannot be loaded.
    """
    for folder in reversed(_by_step(resume)):
        if not (folder / MANIFEST).exists():
            continue
        manifest, damage = _inspect(folder)
        if manifest is None or damage:
            log.warning("checkpoint %s is passed over: %s", folder, damage)
            continue
        _check_same_shape(folder, manifest, world_size=world_size, zero_stage=zero_stage)
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
    return manifest, ""


def _check_same_shape(
    folder: Path, manifest: CheckpointManifest, *, world_size: int, zero_stage: int
) -> None:
    written = (manifest.world_size, manifest.zero_stage)
    if written != (world_size, zero_stage):
        raise CheckpointError(
            f"{folder} was written by {manifest.world_size} process(es) at ZeRO stage "
            f"{manifest.zero_stage}, but this run has {world_size} at stage {zero_stage}. Run it "
            f"as before, or delete {folder.parent} to start from the base model."
        )


def _by_step(resume: Path) -> list[Path]:
    folders = [
        path
        for path in resume.glob(f"{PREFIX}*")
        if path.is_dir() and path.name.removeprefix(PREFIX).isdecimal()
    ]
    return sorted(folders, key=lambda path: int(path.name.removeprefix(PREFIX)))


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
        shutil.rmtree(folder)


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write the manifest of a finished model folder: its facts and the sha256 of each file."""
    content = {**facts, "files": digests(folder)}
    write_text(folder / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
