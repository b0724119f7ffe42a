"""Which version of the raw data lies in the working tree, and which one was learned last.

A version is DVC's own hash of the folder's content, so the one that is computed here and the one
in dvc.lock after a run are the same text.  Times of files take no part in it: a copied, touched
or checked-out file is the same data.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

from ovis_model.errors import DataError, list_examples
from ovis_model.reports import write_text
from tasks.artifacts import DATA_VERSION, DVC_LOCK, EXTRACTED, VALIDATED
from tasks.params import read_yaml

#: What does not count as data, for DVC (.dvcignore) and here.
IGNORED_FOLDERS = {".git", ".hg", ".dvc", "__pycache__"}
IGNORED_SUFFIXES = (".pyc", ".partial")


def data_version(folder: Path) -> str:
    """Compute DVC's hash of a folder, or of a file.

    Every byte is read, unless the folder looks just as it did last time: the same names, sizes,
    inodes and times of change, which no program can set back.

    Raises:
        DataError: If there is none.
    """
    look = _look_of(folder)
    try:
        known = json.loads(DATA_VERSION.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    if known.get("folder") == str(folder) and known.get("look") == look:
        return str(known["version"])
    version = _hash_of(folder)
    if _look_of(folder) == look:  # nobody wrote while it was read
        facts = {"folder": str(folder), "look": look, "version": version}
        write_text(DATA_VERSION, json.dumps(facts) + "\n")
    return version


def learned_version(folder: Path) -> str | None:
    """Read from dvc.lock which version of the raw data was learned last.

    Returns:
        The version that `validate` read, if each stage up to `train` has run on what the one
        before it made; None if one never did, or has not yet run on that.
    """
    stages = read_yaml(DVC_LOCK).get("stages", {}) if DVC_LOCK.exists() else {}
    version = _recorded(stages, "validate", "deps", folder)
    links = (
        (version, _recorded(stages, "extract", "deps", folder)),
        *(
            (_recorded(stages, maker, "outs", made), _recorded(stages, reader, "deps", made))
            for maker, made, reader in (
                ("validate", VALIDATED, "extract"),
                ("extract", EXTRACTED, "train"),
            )
        ),
    )
    return version if all(made is not None and made == read for made, read in links) else None


def _recorded(stages: dict[str, Any], stage: str, kind: str, path: Path) -> str | None:
    """Return the hash that dvc.lock has of one of a stage's `deps` or `outs`."""
    entries = stages.get(stage, {}).get(kind, ())
    return next((entry.get("md5") for entry in entries if Path(entry["path"]) == path), None)


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Refuse what was made of a folder that was written to meanwhile: half of it may be old.

    Raises:
        DataError: If a file was added, removed or written to within the block.
    """
    before = _looks(folder)
    yield
    after = _looks(folder)
    changed = sorted({name for name, _ in before.items() ^ after.items()})
    if changed:
        raise DataError(
            f"{folder} was written to while it was read: {list_examples(changed)}. Nothing of it "
            "is used; wait until it is complete, then run again"
        )


def _look_of(folder: Path) -> str:
    return hashlib.sha256(json.dumps(_looks(folder)).encode()).hexdigest()


def _looks(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Say of each file what changes with its content: size, inode, time of change in ns."""
    return {
        path.relative_to(folder).as_posix(): (stat.st_size, stat.st_ino, stat.st_ctime_ns)
        for path in _files(folder)
        for stat in (path.stat(),)
    }


def _files(folder: Path) -> list[Path]:
    if not folder.exists():
        raise DataError(f"there are no raw data in {folder}; `make run` or `dvc pull` brings them")
    if folder.is_file():
        return [folder]
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.endswith(IGNORED_SUFFIXES)
        and not IGNORED_FOLDERS.intersection(path.relative_to(folder).parts)
    )


def _hash_of(folder: Path) -> str:
    """Compute the hash as DVC does: md5 of the file, or of the list of the files' md5."""
    if folder.is_file():
        return _md5(folder)
    entries = [
        {"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in _files(folder)
    ]
    entries.sort(key=itemgetter("relpath"))
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
