"""A model folder and its manifest: is every file what it was when the model was written?

`manifest.json` is written last, by the train step, and lists the sha256 of every other file.
Safetensors and DVC do not notice flipped bits; this does.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ovis_model.errors import CheckpointError, list_examples
from ovis_model.reports import PICKLES, sha256_of_file

MANIFEST = "manifest.json"


def verify_model_folder(folder: Path) -> str:
    """Compare every file with the folder's manifest and return the model's digest.

    Raises:
        CheckpointError: Naming files that are missing, have changed, or are not listed, for a
            file that is not listed could be code; and pickles, listed or not.
    """
    listed = _read_listing(folder)
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / MANIFEST
    }
    missing, unlisted = sorted(listed.keys() - found), sorted(found - listed.keys())
    pickles = sorted(name for name in found if Path(name).suffix in PICKLES)
    changed = sorted(
        name for name in found & listed.keys() if sha256_of_file(folder / name) != listed[name]
    )
    complaints = [
        f"{what}: {list_examples(names)}"
        for what, names in (
            ("missing", missing),
            ("changed", changed),
            ("unlisted", unlisted),
            ("runs code when it is read", pickles),
        )
        if names
    ]
    if complaints:
        raise CheckpointError(
            f"{folder} is not the model its {MANIFEST} describes; {'; '.join(complaints)}. "
            f"Remove it, then restore it with `dvc checkout {folder}` or train it again."
        )
    return digest_of(listed)


def listed_digest(folder: Path) -> str | None:
    """Return a model's digest as its manifest has it, unchecked; None if there is no manifest."""
    listed = read_json(folder / MANIFEST).get("files")
    return digest_of(listed) if listed else None


def digest_of_folder(folder: Path) -> str:
    """Return a model's digest by its files alone, for folders that need not have a manifest.

    For one that has, and is what it says, the digest of `verify_model_folder`.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of(
        {
            path.relative_to(folder).as_posix(): sha256_of_file(path)
            for path in files
            if path != folder / MANIFEST
        }
    )


def _read_listing(folder: Path) -> dict[str, str]:
    listed = read_json(folder / MANIFEST).get("files")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(
            f"{folder / MANIFEST} is missing or lists no files, so the model cannot be checked; "
            "run `dvc repro train`"
        )
    return listed


def keep_files(model: Path, kept: Path) -> Path:
    """Keep a verified model's files under its digest, as hard links: no bytes are copied.

    DVC deletes a stage's outs by name; a second name keeps the bytes.  Across file systems,
    where links are impossible, they are copied.  Files that are there and right stay.
    """
    for name, digest in _read_listing(model).items():
        if not (kept / name).is_file() or sha256_of_file(kept / name) != digest:
            _link_or_copy(model / name, kept / name)
    _link_or_copy(model / MANIFEST, kept / MANIFEST)
    return kept


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), partial)
    except OSError:
        shutil.copy2(source, partial)
    partial.replace(target)
    # Renaming one name of a file over another of the same file leaves both.
    partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    return value if isinstance(value, dict) else {}


def digest_of(value: Any) -> str:
    """Digest JSON-like content, however it was formatted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_inputs_digest(model: Path) -> str:
    """Return the digest by which the run that trained this model is found.

    Raises:
        CheckpointError: If the folder does not say what it was trained from.
    """
    lineage = model / "lineage.json"
    try:
        return str(json.loads(lineage.read_text(encoding="utf-8"))["inputs_digest"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{lineage} does not name what the model was trained from; run `dvc repro train`"
        ) from error
