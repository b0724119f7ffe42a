"""`ovis doctor`: what is not as it should be in this working tree, and what to do about it.

ovis doctor           # seconds
ovis doctor --deep    # reads every file of the cache that the last run knows

It looks and changes nothing.  Exit code 0: nothing was found; 1: something was.
"""

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ovis_model.errors import CheckpointError, ConfigError, list_examples
from ovis_model.model_folder import verify_model_folder
from tasks import _dvc_record
from tasks._findings import Finding
from tasks._locked_packages import installed_version, other_versions
from tasks._process_identity import process_identity
from tasks.artifacts import LOCK_FILE, MLFLOW_HOME, MODEL, RESUME
from tasks.params import Params

FOUND = 1
DVC_TMP = Path(".dvc/tmp")
#: What one training needs at most, as models of its size: two checkpoints with optimizer states
#: in float32 are some ten times 16-bit weights.
ROOM_OF_MODELS = 10
#: Prefect 3.8's server does not start with later ones, though its requirements allow them.
LAST_FASTAPI = (0, 150)


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "what is not as it should be in this working tree, and what to do about it"
    parser: argparse.ArgumentParser = commands.add_parser("doctor", help=text, description=text)
    parser.add_argument("--deep", action="store_true", help="read every file of the cache, too")


def doctor(options: argparse.Namespace) -> int:
    """Look, tell, and return the exit code."""
    found = list(examine(deep=options.deep))
    for one in found:
        sys.stdout.write(f"{one.where}\n  {one.what}\n  now: {one.now}\n")
    hint = "" if options.deep else "; `--deep` also reads the files of the cache"
    sys.stdout.write(f"{len(found) or 'no'} finding(s){hint}\n")
    return FOUND if found else 0


def examine(*, deep: bool) -> Iterator[Finding]:
    """Yield what is found, the record first, for most depends on it."""
    here = Path()
    yield from check_git()
    yield from _dvc_record.check_lock_files(here)
    yield from check_rwlock(DVC_TMP)
    yield from check_training_locks(RESUME)
    yield from check_caches(here, deep=deep)
    yield from check_model(MODEL)
    yield from check_store(MLFLOW_HOME / "mlflow.db")
    yield from check_packages(LOCK_FILE)
    yield from check_disk(here)


def check_git() -> Iterator[Finding]:
    """Find that there is no commit by which a run could be found again."""
    try:
        command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
        has_commit = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        has_commit = False
    if not has_commit:
        yield Finding(
            "this is not a git repository with a commit, so no model could be traced to its code",
            Path.cwd(),
            "install git, or `git init`, `git add --all`, `git commit`",
        )


def check_rwlock(folder: Path) -> Iterator[Finding]:
    """Find DVC's list of who reads and writes what torn, or with processes that are gone."""
    rwlock = folder / "rwlock"
    if not rwlock.is_file():
        return
    try:
        entries = json.loads(rwlock.read_text(encoding="utf-8"))
        holders = [
            one
            for kinds in entries.values()
            for kind in ("read", "write")
            for one in _as_list(kinds.get(kind))
        ]
        processes = {int(one["pid"]): str(one["cmd"]) for one in holders}
    except (ValueError, AttributeError, KeyError, TypeError):
        running = [pid for name in ("lock", "rwlock.lock") for pid in who_has_open(folder / name)]
        yield Finding(
            'DVC wrote it only in part: every command fails with "RWLock-file ... corrupted"',
            rwlock,
            f"wait for process {running[0]}, which runs DVC here; then `rm {rwlock}`"
            if running
            else f"`rm {rwlock}`; no DVC runs here",
        )
        return
    gone = [f"{pid} ({cmd})" for pid, cmd in processes.items() if process_identity(pid) is None]
    if gone:
        yield Finding(
            f"it names processes that are gone: {list_examples(gone)}",
            rwlock,
            f"nothing, DVC removes them itself at its next try; if it does not, `rm {rwlock}`",
        )
    alive = [f"{pid} ({cmd})" for pid, cmd in processes.items() if process_identity(pid)]
    if alive:
        yield Finding(
            f"DVC runs here: {list_examples(alive)}; others have to wait",
            rwlock,
            "wait for it, or end it; `ovis status` says how far it is",
        )


def _as_list(value: Any) -> list[Any]:
    if not value:
        return []
    return value if isinstance(value, list) else [value]


def check_training_locks(folder: Path) -> Iterator[Finding]:
    """Find trainings that hold their lock, also those whose step is gone."""
    for lock in sorted(folder.glob("*.lock")):
        for pid in who_has_open(lock):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            except OSError:  # it has ended since
                continue
            command = command.replace("\0", " ")
            yield Finding(
                f"a training writes here: process {pid} ({command[:80].strip()})",
                lock,
                f"wait for it; or, if `ovis status` does not know it, end it: `kill {pid}`",
            )


def who_has_open(path: Path) -> list[int]:
    """Return the processes that have a file open."""
    if not path.exists():
        return []
    place, found = path.resolve(), []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == place:
                found.append(int(link.parts[2]))
        except OSError:  # it has ended, or is another user's
            continue
    return sorted(set(found))


def check_caches(root: Path, *, deep: bool) -> Iterator[Finding]:
    """Find what the last run made and the cache cannot give back."""
    # Imported here: it takes Prefect along, and doctor's other looks need neither.
    from tasks._dvc import cache_folder  # noqa: PLC0415

    try:
        cache = cache_folder()
    except ConfigError as error:
        yield Finding(str(error), root.resolve(), "`dvc init`, or run this at the root")
        return
    yield from _dvc_record.check_cache(root, cache, deep=deep)


def check_model(model: Path) -> Iterator[Finding]:
    """Find the model that would be registered damaged."""
    if model.is_dir():
        try:
            verify_model_folder(model)
        except CheckpointError as error:
            what, _, now = str(error).partition(". ")
            yield Finding(what, model, now)


def check_store(database: Path) -> Iterator[Finding]:
    """Find the file of runs and registry damaged."""
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
            said = store.execute("pragma quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield Finding(
            f"sqlite says of it: {said}",
            database,
            "end what uses it and look again; if it is damaged, put a copy in its place, and do "
            "not delete it: it is the record of runs and versions",
        )


def check_packages(lock: Path) -> Iterator[Finding]:
    """Find packages that are not those that were tested together."""
    if not lock.is_file():
        return
    others = other_versions(lock)
    if others:
        named = [f"{name} {here} (locked: {locked})" for name, (locked, here) in others.items()]
        yield Finding(
            f"{len(others)} package(s) are not as locked: {list_examples(named)}",
            lock,
            f"`pip install -r {lock}`, or `make lock` to lock what is here",
        )
    fastapi = installed_version("fastapi")
    if tuple(int(part) for part in fastapi.split(".")[:2] if part.isdigit()) > LAST_FASTAPI:
        yield Finding(
            f"fastapi {fastapi}: the server of Prefect 3.8 fails with it, though pip sees nothing",
            lock,
            "`pip install 'fastapi<0.151'`",
        )


def check_disk(root: Path) -> Iterator[Finding]:
    """Find too little room for a training of the base model."""
    try:
        base = Path(Params.read().train.ovis_pretrained_path)
    except ConfigError as error:
        yield Finding(str(error), root.resolve(), "correct it; no step runs before")
        return
    size = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
    free, needed = shutil.disk_usage(root).free, ROOM_OF_MODELS * size
    if free < needed:
        yield Finding(
            f"{free / 1e9:.1f} GB are free; a training of {base} may need {needed / 1e9:.1f} GB",
            root.resolve(),
            "`du -sh .dvc/cache models/.resume data/.pictures`; what may be deleted is in "
            "docs/operations.md, `Disk is full`",
        )
