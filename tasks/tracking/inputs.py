"""What a pipeline run is computed from, as one digest: it is found again by it.

Every step asks, so nothing large is read: where DVC keeps a digest of the data, that is taken.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import yaml

from ovis_model.training.inputs_digest import NOT_AN_INPUT
from tasks.params import Params


def pipeline_inputs(params: Params) -> tuple[str, dict[str, tuple[Path, str]]]:
    """Digest all settings and what they name: raw data, base model, benchmarks.

    Returns:
        The digest; place and digest of what was named.
    """
    places = {
        "raw_data": Path(params.validation.raw_data),
        "base_model": Path(params.train.ovis_pretrained_path),
        "benchmarks": Path(params.evaluate.benchmarks),
    }
    datasets = {name: (place, digest_of(place)) for name, place in places.items()}
    inputs = {
        "params": params.model_dump(mode="json", by_alias=True, exclude={"train": NOT_AN_INPUT}),
        "datasets": {name: digest for name, (_, digest) in datasets.items()},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(), datasets


def digest_of(place: Path) -> str:
    """Return DVC's digest of a file or folder, or of the folder above it that DVC knows.

    Of what DVC does not know, names, sizes and times of change stand for the content.
    """
    for candidate in (place, *place.parents):
        digest = _added(candidate) or _made_by_a_stage(candidate)
        if digest:
            return digest
    return _listing(place)


def _added(place: Path) -> str | None:
    """Return the digest that `dvc add` left beside something."""
    record = place.with_name(f"{place.name}.dvc") if place.name else None
    if record is None or not record.is_file():
        return None
    outs = yaml.safe_load(record.read_text(encoding="utf-8"))["outs"]
    return str(outs[0].get("md5") or outs[0].get("etag") or "") or None


def _made_by_a_stage(place: Path) -> str | None:
    """Return the digest that a dvc.lock above has of an output."""
    for folder in place.parents:
        lock = (folder / "dvc.lock").resolve()
        if lock.is_file():
            digest = _outs(lock, lock.stat().st_mtime_ns).get(place.resolve())
            if digest:
                return digest
    return None


@lru_cache
def _outs(lock: Path, _changed: int) -> dict[Path, str]:
    """Return the digests of the outputs that a dvc.lock lists; it is large, and asked often."""
    stages = yaml.load(lock.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["stages"]
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {(lock.parent / out["path"]).resolve(): str(out["md5"]) for out in outs if "md5" in out}


def _listing(place: Path) -> str:
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            stat = path.stat()
            name = path.relative_to(place).as_posix()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
