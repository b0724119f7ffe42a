"""D1: annotations opened for reading in any order, against `json.load` of all of them.

The reference's dataset holds its annotations as one list of dictionaries, in every process that
loads data.  Ours knows where each line begins.  Both files hold the same samples.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.annotations import annotation_lines, annotation_list
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.data.sample_file import SampleFile
from ovis_model.data.schema import Sample, parse_sample
from ovis_model.reports import sha256_of_file

#: Samples that are read and compared.
NUM_COMPARED = 200


def build(seed: int, *, rows: int) -> Trial:
    """Make the trial for this many annotations."""
    lines, whole = annotation_lines(seed, rows), annotation_list(seed, rows)
    return Trial(
        variants={
            "json.load": partial(load_all, whole),
            "ours": partial(SampleFile, lines),
        },
        compare=partial(same_samples, seed),
        sha256=digest(sha256_of_file(lines)),
    )


def load_all(path: Path) -> list[dict[str, Any]]:
    """Return all samples as the reference holds them."""
    with path.open(encoding="utf-8") as file:
        samples: list[dict[str, Any]] = json.load(file)
    return samples


def same_samples(seed: int, expected: Sequence[Any], found: Sequence[Any]) -> Agreement:
    """Ask for as many samples, and for the first, the last and some others to be the same."""
    if len(expected) != len(found):
        return Agreement(False, f"{len(found)} of {len(expected)} samples")
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(expected), NUM_COMPARED).tolist()
    rows = sorted({0, len(expected) - 1, *drawn})
    different = sum(_sample(expected[row]) != _sample(found[row]) for row in rows)
    if different:
        return Agreement(False, f"{different} of {len(rows)} samples differ")
    return Agreement(True, f"{len(rows)} samples equal")


def _sample(value: Any) -> Sample:
    return value if isinstance(value, Sample) else parse_sample(value)
