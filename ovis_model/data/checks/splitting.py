"""Which samples are held out: decided by content, so that nothing leaks and little moves.

Samples that share the bytes of any image or video, or show pictures that look the same, stay on
one side.  The side depends on the seed and on content alone, so that adding a sample leaves the
others where they are, except those it joins with something else.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ovis_model.data.schema import Sample


@dataclass(frozen=True)
class Holdout:
    """Who is held out.

    Attributes:
        is_held: bool [num_samples].
        num_groups: Sets of samples that share content and cannot be told apart.
        largest_group: Samples in the largest of them.
    """

    is_held: np.ndarray
    num_groups: int
    largest_group: int


@dataclass(frozen=True)
class Split:
    """Both sides, each in the order of the input."""

    train: tuple[Sample, ...]
    holdout: tuple[Sample, ...]
    num_groups: int
    largest_group: int


def split_samples(
    samples: Sequence[Sample], digests: Mapping[str, str], *, fraction: float, seed: int
) -> Split:
    """Divide samples into a part to train on and a part to hold out.

    Args:
        samples: The good samples.
        digests: sha256 of the file at each path that a sample names.
        fraction: Share of the groups to hold out, in [0, 1).
        seed: Changes which groups are held out.

    Returns:
        The two sides; the holdout may be empty where there are few samples.
    """
    contents = [contents_of(sample, digests) for sample in samples]
    strata = [sample.source or "" for sample in samples]
    chosen = choose_holdout(contents, strata, fraction=fraction, seed=seed)
    return Split(
        train=tuple(s for s, held in zip(samples, chosen.is_held, strict=True) if not held),
        holdout=tuple(s for s, held in zip(samples, chosen.is_held, strict=True) if held),
        num_groups=chosen.num_groups,
        largest_group=chosen.largest_group,
    )


def contents_of(sample: Sample, digests: Mapping[str, str]) -> list[str]:
    """Name what a sample shows by digest; where it shows nothing, its text is the content."""
    if sample.media:
        return [digests[path] for path in sample.media]
    text = "\n".join(turn.value for turn in sample.conversations)
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]


def choose_holdout(
    contents: Sequence[Sequence[str]],
    strata: Sequence[str],
    *,
    fraction: float,
    seed: int,
    alike: Sequence[tuple[str, str]] = (),
) -> Holdout:
    """Decide for every sample whether it is held out.

    Each group draws a number from its smallest digest; those below `fraction` are held out.  A
    stratum with room for a held-out group of its own but none drawn gives its lowest.  A group
    larger than the whole holdout should be is trained on, whatever its number says.

    Args:
        contents: Digests of what each sample shows, one at least.
        strata: What each sample is a case of, such as its source.
        fraction: Share of the groups to hold out, in [0, 1).
        seed: Changes which groups are held out.
        alike: Pairs of digests of pictures that look the same.
    """
    if not contents:
        return Holdout(np.zeros(0, dtype=bool), 0, 0)
    names, group_of = _groups(contents, alike)
    sizes = np.bincount(group_of, minlength=len(names))
    limit = max(1.0, fraction * len(contents))
    draws = np.where(sizes <= limit, [_chance(name, seed) for name in names], np.inf)
    held = draws < fraction
    _complete_strata(held, draws, group_of, strata, fraction)
    return Holdout(held[group_of], len(names), int(sizes.max()))


def _groups(
    contents: Sequence[Sequence[str]], alike: Sequence[tuple[str, str]]
) -> tuple[list[str], np.ndarray]:
    """Return the smallest digest of each group, and the group of each sample."""
    numbers: dict[str, int] = {}
    left, right = [], []
    for digests in contents:
        first = numbers.setdefault(digests[0], len(numbers))
        for digest in digests[1:]:
            left.append(first)
            right.append(numbers.setdefault(digest, len(numbers)))
    for one, other in alike:
        if one in numbers and other in numbers:
            left.append(numbers[one])
            right.append(numbers[other])
    size = len(numbers)
    links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    smallest: dict[int, str] = {}
    for digest, group in zip(numbers, component.tolist(), strict=True):
        if group not in smallest or digest < smallest[group]:
            smallest[group] = digest
    members = component[[numbers[digests[0]] for digests in contents]]
    # Every group has a sample: digests are those that samples show.
    return [smallest[group] for group in range(len(smallest))], members


def _complete_strata(
    held: np.ndarray,
    draws: np.ndarray,
    group_of: np.ndarray,
    strata: Sequence[str],
    fraction: float,
) -> None:
    codes = np.unique(np.asarray(strata, dtype=object).astype(str), return_inverse=True)[1]
    for stratum in range(int(codes.max()) + 1):
        groups = np.unique(group_of[codes == stratum])
        lowest = groups[np.argmin(draws[groups])]
        # Two at least, so that one is left to train on; half a group expected, to be worth it.
        wants = len(groups) > 1 and fraction * len(groups) >= 0.5
        if wants and draws[lowest] < 1 and not held[groups].any():
            held[lowest] = True


def _chance(group: str, seed: int) -> float:
    """Turn a group's smallest digest into a number in [0, 1), evenly spread."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
