"""What DVC wrote down of this tree, and whether it can be: its lock files and its cache.

DVC takes a lock file that was cut off for one that knows less, and believes the name of a file in
its cache; so this looks closer.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ovis_model.reports import READ_BLOCK_BYTES
from tasks._findings import Finding

CONFLICT = re.compile(r"^(<<<<<<<|=======|>>>>>>>)", re.MULTILINE)
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
STAGES = "dvc.yaml"
FOLDER = ".dir"


def check_lock_files(root: Path) -> Iterator[Finding]:
    """Find lock files that are not what DVC writes."""
    for stages in _stage_files(root):
        lock = stages.with_name("dvc.lock")
        if lock.is_file() and (damage := _damage_of(lock, stages)):
            yield Finding(
                f"{damage}; DVC would stop, or run again what is done",
                lock,
                f"`git checkout {lock}` brings the committed one back; or delete it: what the "
                "cache of runs still knows is not run again",
            )


def check_cache(root: Path, cache: Path, *, deep: bool) -> Iterator[Finding]:
    """Find recorded outputs that the cache does not have or, if `deep`, has damaged."""
    for stages in _stage_files(root):
        for stage, out in _cached_outs(stages):
            for digest, name in _objects(cache, out):
                yield from _check_object(
                    _place(cache, digest), digest, f"{name}, from stage {stage}", deep=deep
                )


def _stage_files(root: Path) -> list[Path]:
    """Return the dvc.yaml files that take part: this one and that of the sample."""
    found = [root / STAGES, *root.glob(f"data/*/{STAGES}")]
    return [path for path in found if path.is_file()]


def _damage_of(lock: Path, stages: Path) -> str:
    """Say what is wrong with a lock file; "" if nothing is."""
    text = lock.read_text(encoding="utf-8", errors="replace")
    if CONFLICT.search(text):
        return "it has the marks of a merge that was not resolved"
    try:
        known = yaml.safe_load(text)["stages"]
        outs = {name: {out["path"] for out in one.get("outs", ())} for name, one in known.items()}
        digests = [
            entry["md5"]
            for one in known.values()
            for kind in ("deps", "outs")
            for entry in one.get(kind, ())
            if entry.get("hash") == "md5"
        ]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__}), as if it was cut off"
    if bad := [str(one) for one in digests if not MD5.fullmatch(str(one))]:
        return f"{bad[0]!r} in it is no digest"
    for name, declared in _declared(stages).items():
        if name in outs and (missing := sorted(set(declared) - outs[name])):
            return f"stage {name} has no {missing[0]} in it, as if it was cut off"
    return ""


def _declared(stages: Path) -> dict[str, dict[str, bool]]:
    """Return the outputs of each stage by path, and whether the cache keeps them."""
    declared: dict[str, dict[str, bool]] = {}
    for name, stage in yaml.safe_load(stages.read_text(encoding="utf-8"))["stages"].items():
        declared[name] = {}
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, ()):
                path, how = next(iter(out.items())) if isinstance(out, dict) else (out, {})
                declared[name][path] = (how or {}).get("cache", True)
    return declared


def _cached_outs(stages: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    lock = stages.with_name("dvc.lock")
    if not lock.is_file() or _damage_of(lock, stages):
        return
    known, declared = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"], _declared(stages)
    for name, stage in known.items():
        for out in stage.get("outs", ()):
            if declared.get(name, {}).get(out["path"]) and out.get("hash") == "md5":
                yield name, out


def _place(cache: Path, digest: str) -> Path:
    return cache / "files" / "md5" / digest[:2] / digest[2:]


def _objects(cache: Path, out: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the cache should have of an output: digest and name."""
    yield out["md5"], out["path"]
    listing = _place(cache, out["md5"])
    if out["md5"].endswith(FOLDER) and listing.is_file():
        try:
            files = json.loads(listing.read_bytes())
        except ValueError:
            return  # its digest says so, too
        for file in files:
            yield file["md5"], f"{out['path']}/{file['relpath']}"


def _check_object(place: Path, digest: str, name: str, *, deep: bool) -> Iterator[Finding]:
    if not place.is_file():
        yield Finding(
            f"the cache does not have {name}",
            place,
            "`dvc fetch`, if a remote has it; else run its stage again: `dvc repro --force STAGE`",
        )
    elif deep and _md5_of(place) != digest.removesuffix(FOLDER):
        yield Finding(
            f"{name}, is damaged in the cache; DVC would hand it out as it is",
            place,
            f"`rm -f {place}`, then `dvc fetch`, if a remote has it; else `dvc commit --force "
            "STAGE`, if the tree has it right, or `dvc repro --force STAGE`",
        )


def _md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
