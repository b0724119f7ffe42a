"""Which samples are held out: decided by content, so that nothing leaks and little moves.

Samples that share the bytes of any image or video stay on one side.  The side depends on the
seed and on content alone, so that adding a sample leaves the others where they are, except
those it joins with something else.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovis_model.data.schema import Sample


@dataclass(frozen=True)
class Split:
    """Both sides, each in the order of the input.

    Attributes:
        num_groups: Sets of samples that share content and cannot be told apart.
        largest_group: Samples in the largest of them.
    """

    train: tuple[Sample, ...]
    holdout: tuple[Sample, ...]
    num_groups: int
    largest_group: int


def split_samples(
    samples: Sequence[Sample], digests: Mapping[str, str], *, fraction: float, seed: int
) -> Split:
    """Divide samples into a part to train on and a part to hold out.

    A group larger than the whole holdout should be is trained on, whatever its hash says.

    Args:
        samples: The good samples.
        digests: sha256 of the file at each path that a sample names.
        fraction: Share of the groups to hold out, in [0, 1).
        seed: Changes which groups are held out.

    Returns:
        The two sides; the holdout may be empty where there are few samples.
    """
    contents = [_contents(sample, digests) for sample in samples]
    anchors = _join(contents)
    group_of = [anchors[content[0]] for content in contents]
    sizes = Counter(group_of)
    limit = max(1.0, fraction * len(samples))
    held = {
        group for group, size in sizes.items() if size <= limit and _chance(group, seed) < fraction
    }
    sides: dict[bool, list[Sample]] = {False: [], True: []}
    for sample, group in zip(samples, group_of, strict=True):
        sides[group in held].append(sample)
    return Split(
        train=tuple(sides[False]),
        holdout=tuple(sides[True]),
        num_groups=len(sizes),
        largest_group=max(sizes.values(), default=0),
    )


def _contents(sample: Sample, digests: Mapping[str, str]) -> list[str]:
    """Name what a sample shows by digest; where it shows nothing, its text is the content."""
    if sample.media:
        return [digests[path] for path in sample.media]
    text = "\n".join(turn.value for turn in sample.conversations)
    return [hashlib.sha256(text.encode()).hexdigest()]


def _join(contents: Sequence[Sequence[str]]) -> dict[str, str]:
    """Map every digest to the smallest digest it is connected with (union-find)."""
    parent: dict[str, str] = {}

    def root(digest: str) -> str:
        while parent.setdefault(digest, digest) != digest:
            parent[digest] = parent[parent[digest]]
            digest = parent[digest]
        return digest

    for content in contents:
        for digest in content:
            first, second = sorted((root(content[0]), root(digest)))
            parent[second] = first
    return {digest: root(digest) for digest in list(parent)}


def _chance(group: str, seed: int) -> float:
    """Turn a group's anchor into a number in [0, 1), evenly spread."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
