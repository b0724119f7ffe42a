"""What a dataset is made of: kinds of samples, and how their sizes are distributed.

    kind_of(sample)                     the one kind of media a sample has
    features_of(sample)                 what its conversation does
    Histogram.of("tokens", "tokens", counts)

Numbers come in as plain sequences, so that a million of them are one array and nothing here
needs to know where they were measured.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ovis_model.data.checks.text_facts import KINDS as ALL_KINDS
from ovis_model.data.checks.text_facts import kinds_of_sample, thoughts
from ovis_model.data.schema import Sample

#: Kinds of media, each sample having exactly one, in the order tables show them; and what a
#: conversation may do besides.
KINDS, FEATURES = ALL_KINDS[:5], ALL_KINDS[5:]
#: Shares of the values that lie at or below the quantiles of a histogram.
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MAX_BINS = 24
#: From this ratio between the 99th and the 5th percentile on, bins grow with the values.
_WIDE = 50

Numbers = Sequence[int] | NDArray[np.integer[Any]]


def kind_of(sample: Sample) -> str:
    """Name the one kind of media a sample has, one of `KINDS`."""
    return kinds_of_sample(sample)[0]


def features_of(sample: Sample) -> list[str]:
    """Name what a sample's conversation does, some of `FEATURES`."""
    return kinds_of_sample(sample)[1:]


def count_characters(sample: Sample) -> int:
    """Count the characters of all turns."""
    return sum(len(turn.value) for turn in sample.conversations)


def count_thought_characters(sample: Sample) -> int | None:
    """Count the characters of a sample's thoughts; None if it does not think.

    Example:
        >>> from ovis_model.data.schema import Turn
        >>> turn = Turn(role="gpt", value="<think>hm</think>7")
        >>> count_thought_characters(Sample(id="1", conversations=[turn]))
        2
    """
    found = thoughts(sample)
    return sum(len(thought.strip()) for thought in found) if found else None


@dataclass(frozen=True)
class Histogram:
    """How the values of one quantity are distributed.

    Attributes:
        name: The quantity.
        unit: What it is counted in.
        count: How many values there are.
        mean: Their mean, 0 without values.
        quantiles: "min", "p5", ... "p99", "max"; every one is a value that occurs.  Empty
            without values.
        edges: Bounds of the bins; bin i holds edges[i] <= value < edges[i + 1].
        counts: Values in each bin.
    """

    name: str
    unit: str
    count: int
    mean: float
    quantiles: dict[str, int]
    edges: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, name: str, unit: str, values: Numbers) -> Self:
        """Sort whole numbers, none of them negative, into at most `MAX_BINS` bins.

        Raises:
            ValueError: If a value is negative.

        Example:
            >>> found = Histogram.of("images", "images per sample", [0, 1, 1, 3])
            >>> found.edges, found.counts, found.quantiles["p50"]
            ((0, 1, 2, 3, 4), (1, 2, 0, 1), 1)
        """
        array = np.sort(np.asarray(values, dtype=np.int64))
        if array.size == 0:
            return cls(name, unit, 0, 0.0, {}, (), ())
        if array[0] < 0:
            raise ValueError(f"{name}: {array[0]} is negative; only counts and sizes can be shown")
        edges = _edges(array)
        # `array` is sorted: where each edge would go tells how many values lie below it.
        below = np.searchsorted(array, edges, side="left")
        return cls(
            name=name,
            unit=unit,
            count=int(array.size),
            mean=round(float(array.mean()), 3),
            quantiles=_quantiles(array),
            edges=tuple(edges),
            counts=tuple(int(n) for n in np.diff(below)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def _quantiles(array: NDArray[np.int64]) -> dict[str, int]:
    # The smallest value that at least this share of all values does not exceed.
    places = [max(0, math.ceil(share * array.size) - 1) for share in SHARES]
    found = {
        f"p{round(share * 100)}": int(array[place])
        for share, place in zip(SHARES, places, strict=True)
    }
    return {"min": int(array[0]), **found, "max": int(array[-1])}


def _edges(array: NDArray[np.int64]) -> list[int]:
    """Choose bounds: one bin per number where there are few, else equal or growing widths."""
    low, high = int(array[0]), int(array[-1])
    if high - low < MAX_BINS:
        return list(range(low, high + 2))
    quantiles = _quantiles(array)
    if quantiles["p99"] > _WIDE * max(1, quantiles["p5"]):
        return _growing_edges(low, high)
    width = _round_width((high + 1 - low) / MAX_BINS)
    start = low // width * width
    return list(range(start, high + width + 1, width))


def _round_width(width: float) -> int:
    """Round up to 1, 2 or 5 times a power of ten.

    Example:
        >>> [_round_width(width) for width in (0.3, 1.2, 30, 51)]
        [1, 2, 50, 100]
    """
    power: int = 10 ** max(0, math.floor(math.log10(width)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)


def _growing_edges(low: int, high: int) -> list[int]:
    grown = np.geomspace(max(1, low), high + 1, MAX_BINS)
    edges = {round(float(edge)) for edge in grown} | {low, high + 1}
    return sorted(edge for edge in edges if low <= edge <= high + 1)


@dataclass(frozen=True)
class Lengths:
    """Tokens of samples, in one order.

    Attributes:
        tokens: Positions of each sample in the sequence.
        supervised: Those of them that are learned.
    """

    tokens: Numbers
    supervised: Numbers


@dataclass(frozen=True)
class Statistics:
    """What a set of samples is made of.

    Attributes:
        num_samples: How many there are.
        kinds: Samples per kind of media and per feature of the conversation; zeros included.
        sources: Samples per source, for those that name one.
        histograms: One per quantity that was measured.
    """

    num_samples: int
    kinds: dict[str, int]
    sources: dict[str, int]
    histograms: tuple[Histogram, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "histograms": [found.to_dict() for found in self.histograms]}


def describe(
    samples: Iterable[Sample],
    *,
    areas: Mapping[str, int] | None = None,
    lengths: Lengths | None = None,
) -> Statistics:
    """Count samples by kind and measure them.

    Args:
        samples: One pass is made over them.
        areas: Pixels of each image and frame file, by path; every file counts once.
        lengths: Tokens of the samples, where they were counted.
    """
    kinds = Counter(dict.fromkeys(ALL_KINDS, 0))
    sources: Counter[str] = Counter()
    images: list[int] = []
    frames: list[int] = []
    characters: list[int] = []
    thought_lengths: list[int] = []
    for sample in samples:
        kinds.update(kinds_of_sample(sample))
        sources.update([sample.source] if sample.source else [])
        images.append(len(sample.image))
        frames.extend([len(sample.frames)] if sample.frames else [])
        characters.append(count_characters(sample))
        thought = count_thought_characters(sample)
        thought_lengths.extend([] if thought is None else [thought])
    counted = [] if lengths is None else _of_lengths(lengths)
    pixels = [] if areas is None else [Histogram.of("picture area", "pixels", [*areas.values()])]
    return Statistics(
        num_samples=len(images),
        kinds=dict(kinds),
        sources=dict(sorted(sources.items())),
        histograms=(
            *counted,
            *pixels,
            Histogram.of("images", "images per sample", images),
            Histogram.of("frames", "frame files per video", frames),
            Histogram.of("text", "characters per sample", characters),
            Histogram.of("thought", "characters per thinking sample", thought_lengths),
        ),
    )


def _of_lengths(lengths: Lengths) -> list[Histogram]:
    return [
        Histogram.of("tokens", "tokens per sample", lengths.tokens),
        Histogram.of("supervised tokens", "tokens per sample", lengths.supervised),
    ]
