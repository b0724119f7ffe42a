"""A profile: what a bounded, seeded draw of a dataset's samples measures, small enough to keep.

It stays with a model version, so that new data can be compared with what the model learned from
after that data has moved on.  No text of the data is in it: words and answers are digests.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ovis_model.config import StepConfig
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample
from ovis_model.drift.features import CATEGORIES, NUMBERS, PRIVATE, categories, text_numbers
from ovis_model.drift.pictures import TINY_SIDE, Looks, look_at
from ovis_model.errors import DataError
from ovis_model.reports import Report

#: To be raised, here and in `Profile`, when a feature comes or goes or is measured differently:
#: profiles of two formats are not compared.
FORMAT: Literal[1] = 1
#: Samples that are drawn of a dataset: enough to see that a tenth of them moved.
MAX_SAMPLES = 2000
_DECIMALS = 4
_DIGEST_DIGITS = 12
_TINY = re.compile(f"[0-9a-f]{{{2 * TINY_SIDE**2}}}")


class Category(StepConfig):
    """One categorical feature of all samples.

    Attributes:
        labels: The categories.
        codes: Place in `labels` for each sample.
    """

    labels: list[str]
    codes: list[int]


class Profile(Report):
    """What was measured.

    Attributes:
        format: See `FORMAT`.
        data: sha256 of the file that the samples were read from.
        num_samples: Samples of the dataset.
        num_unreadable: Samples, of those drawn, with a picture that could not be read.
        groups: For each drawn sample a number that samples with the same first picture share.
        numbers: Values per feature, None where a sample has none.
        categories: Likewise, categories.
        tiny: Tiny version of each sample's first picture (`Looks.tiny`), "" where it has none.
        words: Text of a digest; known while measuring, not written.
    """

    format: Literal[1] = FORMAT
    data: str
    num_samples: int
    num_unreadable: int
    groups: list[int]
    numbers: dict[str, list[float | None]]
    categories: dict[str, Category]
    tiny: list[str]
    words: dict[str, str] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="after")
    def _one_value_per_sample(self) -> Self:
        count = len(self.groups)
        lengths = [len(self.tiny), *(len(values) for values in self.numbers.values())]
        for one in self.categories.values():
            lengths.append(len(one.codes))
            if not all(0 <= code < len(one.labels) for code in one.codes):
                raise ValueError("a code without a label")
        if any(length != count for length in lengths):
            raise ValueError("features of different lengths")
        if any(one and not _TINY.fullmatch(one) for one in self.tiny):
            raise ValueError("a tiny picture of another size")
        if set(self.numbers) != {one.name for one in NUMBERS} or set(self.categories) != {
            one.name for one in CATEGORIES
        }:
            raise ValueError("other features than are measured here")
        return self

    @property
    def digest(self) -> str:
        """The sha256 of everything that was measured."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def write_compact(self, path: Path) -> None:
        """Write it as one line."""
        path.write_text(json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n")

    def take(self, places: np.ndarray) -> Self:
        """Return the profile of some of the samples.

        Args:
            places: int64 [num_taken], places among the drawn samples.
        """
        chosen = places.tolist()
        return self.model_copy(
            update={
                "groups": [self.groups[i] for i in chosen],
                "tiny": [self.tiny[i] for i in chosen],
                "numbers": {k: [v[i] for i in chosen] for k, v in self.numbers.items()},
                "categories": {
                    name: Category(labels=one.labels, codes=[one.codes[i] for i in chosen])
                    for name, one in self.categories.items()
                },
            }
        )


def read_profile(path: Path) -> Profile:
    """Read a profile back.

    Raises:
        DataError: If it is none, or one of another format.
    """
    try:
        return Profile.read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is no profile of format {FORMAT}, which is compared here; name the data "
            "itself instead of its profile, or register the model again"
        ) from error


def measure(
    samples: Iterable[Sample],
    media: MediaFiles,
    *,
    data: str,
    max_samples: int = MAX_SAMPLES,
    seed: int = 0,
) -> Profile:
    """Draw samples and measure them.

    A sample whose pictures cannot be read is counted, and measured by its text alone.

    Args:
        samples: One pass is made over them; only the drawn ones are kept.
        media: Their pictures.
        data: sha256 of the file that they are read from.
        max_samples: Samples to draw; of fewer, all.
        seed: Another one draws others.

    Raises:
        DataError: If there is no sample, or no picture at all can be read.
    """
    drawn, num_samples = _draw(samples, max_samples, seed)
    if not drawn:
        raise DataError("there are no samples to measure")
    table = _Table()
    problems: list[str] = []
    for sample in drawn:
        looks = Looks()
        try:
            looks = look_at(sample, media)
        except DataError as error:
            problems.append(f"sample {sample.id!r}: {error}")
        table.add(sample, looks)
    if problems and len(problems) == sum(bool(sample.media) for sample in drawn):
        raise DataError(
            f"no picture below {media.root} can be read, the first because of {problems[0]}; say "
            "with --media where the paths start"
        )
    return table.to_profile(data, num_samples, len(problems))


def _draw(samples: Iterable[Sample], limit: int, seed: int) -> tuple[list[Sample], int]:
    """Draw without knowing how many there are, each with the same chance (Vitter, algorithm R)."""
    draw = random.Random(seed)
    kept: list[Sample] = []
    count = 0
    for count, sample in enumerate(samples, start=1):
        if len(kept) < limit:
            kept.append(sample)
        elif (place := draw.randrange(count)) < limit:
            kept[place] = sample
    return kept, count


class _Table:
    """Columns that grow sample by sample."""

    def __init__(self) -> None:
        self._groups: dict[str, int] = {}
        self._group_of: list[int] = []
        self._numbers: dict[str, list[float | None]] = {one.name: [] for one in NUMBERS}
        self._labels: dict[str, dict[str, int]] = {one.name: {} for one in CATEGORIES}
        self._codes: dict[str, list[int]] = {one.name: [] for one in CATEGORIES}
        self._tiny: list[str] = []
        self._words: dict[str, str] = {}

    def add(self, sample: Sample, looks: Looks) -> None:
        group = f"media {sample.media[0]}" if sample.media else f"id {sample.id}"
        self._group_of.append(self._groups.setdefault(group, len(self._groups)))
        numbers = {**text_numbers(sample), **looks.numbers}
        for name, column in self._numbers.items():
            value = numbers.get(name)
            column.append(None if value is None else round(float(value), _DECIMALS))
        self._tiny.append(looks.tiny)
        for name, text in categories(sample).items():
            label = self._hide(text) if name in PRIVATE else text
            labels = self._labels[name]
            self._codes[name].append(labels.setdefault(label, len(labels)))

    def _hide(self, text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        self._words[digest[:_DIGEST_DIGITS]] = text
        return digest[:_DIGEST_DIGITS]

    def to_profile(self, data: str, num_samples: int, num_unreadable: int) -> Profile:
        return Profile(
            data=data,
            num_samples=num_samples,
            num_unreadable=num_unreadable,
            groups=self._group_of,
            numbers=self._numbers,
            categories={
                name: Category(labels=list(labels), codes=self._codes[name])
                for name, labels in self._labels.items()
            },
            tiny=self._tiny,
            words=self._words,
        )
