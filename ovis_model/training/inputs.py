"""Where samples come from: the extract step's folder, or annotations as the seed has them."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ovis_model.config import FrameSampling
from ovis_model.data.formats import read_records
from ovis_model.data.schema import Sample, read_samples
from ovis_model.errors import DataError, list_examples
from ovis_model.reports import sha256_of_file

TRAIN, HOLDOUT, MANIFEST = "train.jsonl", "holdout.jsonl", "manifest.json"


@dataclass(frozen=True)
class TrainingInputs:
    """Samples to learn from, samples to measure with, and where their media are."""

    train: list[Sample]
    holdout: list[Sample]
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
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        sampling = manifest["frame_sampling"]
        frame_sampling = FrameSampling(
            min_frames=sampling["min_frames"], max_frames=sampling["max_frames"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DataError(
            f"{data / MANIFEST} cannot be used ({error}); run `dvc repro extract`"
        ) from error
    for name in (TRAIN, HOLDOUT):
        if not (data / name).is_file():
            raise DataError(f"{data / name} is missing; run `dvc repro extract`")
        if sha256_of_file(data / name) != files.get(name):
            raise DataError(
                f"{data / name} is not the file its manifest describes; delete {data} and run "
                "`dvc repro extract`"
            )
    train = list(read_samples(data / TRAIN))
    return TrainingInputs(
        _not_empty(train, data / TRAIN),
        list(read_samples(data / HOLDOUT)),
        media_root=data,
        frame_sampling=frame_sampling,
        digest=sha256_of_file(data / MANIFEST),
    )


def read_annotations(annotations: Path, media_root: Path) -> TrainingInputs:
    """Read an annotation file directly, in any of the shapes `ovis_model.data.formats` knows.

    Raises:
        DataError: If the file cannot be read, or any record in it is not a sample.
    """
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
    return TrainingInputs(
        _not_empty(samples, annotations),
        [],
        media_root=media_root,
        frame_sampling=FrameSampling(),
        digest=sha256_of_file(annotations),
    )


def _not_empty(samples: list[Sample], source: Path) -> list[Sample]:
    if not samples:
        raise DataError(f"{source} holds no samples to train on")
    return samples
