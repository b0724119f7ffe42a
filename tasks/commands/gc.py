"""`ovis gc`: list, and on request delete, what nothing needs any more.

ovis gc
ovis gc --days 30 --yes
"""

import argparse
import fcntl
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model import promotion
from ovis_model.registry import Registry
from ovis_model.retention import kept_versions, surplus_folders
from tasks.artifacts import EVALUATE_RESUME, RESUME
from tasks.commands.promotions import open_registry
from tasks.params import Params

DAY = 24 * 3600
GB = 1e9
DVC_HINT = "of DVC's cache, what no commit needs: `dvc gc --workspace --all-commits`"


@dataclass(frozen=True)
class Surplus:
    """Something that may be deleted, and why."""

    path: Path
    why: str


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "list what nothing needs any more: files of versions, old checkpoints and answers"
    parser: argparse.ArgumentParser = commands.add_parser("gc", help=text, description=text)
    parser.add_argument("--yes", action="store_true", help="delete it")
    parser.add_argument(
        "--days",
        type=int,
        default=14,
        help="age from which an unfinished training or evaluation is given up (%(default)s)",
    )


def collect(options: argparse.Namespace) -> None:
    """List what nothing needs any more, with its size, and delete it if told to.

    Raises:
        ConfigError: If params.yaml or the store cannot be used.
        PromotionError: If the log of promotions is not what was written.
    """
    best = Params.read().register_.keep_best
    registry, files = open_registry()
    # All of it first: who reads slowly must not hold the locks.
    lines = list(sweep(registry, files, best=best, days=options.days, delete=options.yes))
    sys.stdout.writelines(f"{line}\n" for line in lines)


def sweep(registry: Registry, files: Path, *, best: int, days: int, delete: bool) -> Iterator[str]:
    """Find what nothing needs any more, and say so line by line.

    That is never what an alias points at, what is among the best, or what a training that runs
    now writes.

    Args:
        registry: The versions of one model.
        files: Folder with the files of versions, each under its digest.
        best: How many versions without an alias keep their files for their scores.
        days: Age from which an unfinished training or evaluation is given up.
        delete: Whether to delete it.
    """
    with registry.lock(), _no_training() as is_idle:
        promotion.recover(registry)
        folders = surplus_folders(files, registry, best=best)
        found = [Surplus(folder, "no version keeps it") for folder in folders]
        if is_idle:
            found += _abandoned(RESUME, days, "training")
        else:
            yield f"a training runs: {RESUME} is left alone"
        found += _abandoned(EVALUATE_RESUME, days, "evaluation")
        total = freed_by([one.path for one in found])
        for one in found:
            yield f"{freed_by([one.path])}  {one.path}: {one.why}"
            if delete:
                _delete(one.path)
        for version, why in sorted(kept_versions(registry, best=best).items()):
            yield f"kept: the files of version {version}, {why}"
    yield f"freed: {total}" if delete else f"`ovis gc --yes` would free {total}"
    yield DVC_HINT


@contextmanager
def _no_training() -> Iterator[bool]:
    """Keep trainings from starting here for a while; False if one runs."""
    RESUME.mkdir(parents=True, exist_ok=True)
    with (RESUME / "train.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _abandoned(folder: Path, days: int, what: str) -> Iterator[Surplus]:
    """Yield the parts of a folder of unfinished work in which nothing was written for days."""
    for path in sorted(folder.glob("*")):
        age = (time.time() - _last_written(path)) / DAY
        if path.suffix != ".lock" and age >= days:
            yield Surplus(path, f"unfinished {what}, untouched for {age:.0f} days")


def _last_written(path: Path) -> float:
    return max(one.lstat().st_mtime for one in (path, *path.rglob("*")))


def freed_by(paths: list[Path]) -> str:
    """Say how much goes with all of these; bytes that have a name elsewhere stay."""
    names: Counter[tuple[int, int]] = Counter()
    sizes, links = {}, {}
    for path in paths:
        for one in (path, *path.rglob("*")):
            if one.is_file() and not one.is_symlink():
                stat = one.stat()
                key = (stat.st_dev, stat.st_ino)
                names[key] += 1
                sizes[key], links[key] = stat.st_size, stat.st_nlink
    freed = sum(size for key, size in sizes.items() if names[key] >= links[key])
    return f"{freed / GB:.3f} GB"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
