"""Where samples come from: the extract step's folder, or annotations as the seed has them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ovis_model.config import FrameSampling
from ovis_model.data.annotations.formats import read_records
from ovis_model.data.media_files import INDEX
from ovis_model.data.sample_file import SampleFile
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError, list_examples
from ovis_model.reports import sha256_of_file

TRAIN, HOLDOUT, MANIFEST = "train.jsonl", "holdout.jsonl", "manifest.json"


@dataclass(frozen=True)
class TrainingInputs:
    """Samples to learn from, samples to measure with, and where their media are."""

    train: Sequence[Sample]
    holdout: Sequence[Sample]
    media_root: Path
    frame_sampling: FrameSampling
    #: sha256 of the file that names all of them: the extract step's manifest, or the annotations.
    digest: str


def read_extracted(data: Path) -> TrainingInputs:
    """Read the folder the extract step wrote, checking the samples against its manifest.

    Raises:
        DataError: If a file is missing or differs from what the manifest says about it.
    """
    try:
        manifest = json.loads((data / MANIFEST).read_text(encoding="utf-8"))
        shards = {name: entry["bytes"] for name, entry in manifest.get("shards", {}).items()}
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        sampling = manifest["frame_sampling"]
        frame_sampling = FrameSampling(
            min_frames=sampling["min_frames"], max_frames=sampling["max_frames"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(
            f"{data / MANIFEST} cannot be used ({error}); run `dvc repro extract`"
        ) from error
    # The index of packed pictures decides what is learned as much as the samples do.
    for name in (TRAIN, HOLDOUT, *((INDEX,) if shards else ())):
        if not (data / name).is_file():
            raise DataError(f"{data / name} is missing; run `dvc repro extract`")
        if sha256_of_file(data / name) != files.get(name):
            raise DataError(
                f"{data / name} is not the file its manifest describes; delete {data} and run "
                "`dvc repro extract`"
            )
    _check_shards(data, shards)
    train = SampleFile(data / TRAIN)
    return TrainingInputs(
        _not_empty(train, data / TRAIN),
        SampleFile(data / HOLDOUT),
        media_root=data,
        frame_sampling=frame_sampling,
        digest=sha256_of_file(data / MANIFEST),
    )


def _check_shards(data: Path, shards: dict[str, int]) -> None:
    """Find a shard that is missing or cut off; each picture's digest is checked as it is read."""
    for name, num_bytes in shards.items():
        found = (data / name).stat().st_size if (data / name).is_file() else "no"
        if found != num_bytes:
            raise DataError(
                f"{data / name} has {found} bytes, its manifest says {num_bytes}; delete {data} "
                "and run `dvc repro extract`"
            )


def read_annotations(
    annotations: Path,
    media_root: Path,
    *,
    holdout: Path | None = None,
    frame_sampling: FrameSampling | None = None,
) -> TrainingInputs:
    """Read annotation files directly, in any format of `ovis_model.data.annotations`.

    Args:
        annotations: Samples to learn from.
        media_root: Where the paths of all samples start.
        holdout: Samples to measure with, if there are any.
        frame_sampling: How many frames stand for a video.

    Raises:
        DataError: If a file cannot be read, or any record in it is not a sample.
    """
    return TrainingInputs(
        _not_empty(_read_all(annotations), annotations),
        [] if holdout is None else _read_all(holdout),
        media_root=media_root,
        frame_sampling=frame_sampling or FrameSampling(),
        digest=sha256_of_file(annotations),
    )


def _read_all(annotations: Path) -> list[Sample]:
    samples, broken = [], []
    for record in read_records(annotations):
        try:
            samples.append(record.parse())
        except DataError as error:
            broken.append(f"{record.place} ({error})")
    if broken:
        raise DataError(
            f"{annotations}: {len(broken)} record(s) cannot be used: {list_examples(broken)}"
        )
    return samples


def _not_empty(samples: Sequence[Sample], source: Path) -> Sequence[Sample]:
    if not samples:
        raise DataError(f"{source} holds no samples to train on")
    return samples
