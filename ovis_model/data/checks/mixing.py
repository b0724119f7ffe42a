"""How often each sample of each source is learned from in an epoch: caps and weights.

What is chosen depends on the seed and the sample's id alone, so that adding a sample to one
source leaves the choice in another as it was.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ovis_model.config import SourceConfig


@dataclass(frozen=True)
class Mix:
    """What mixing decided.

    Attributes:
        copies: How often each sample is written to the training part; 0 leaves it out.
        dropped_by: For a sample that is left out, the policy: "cap" or "weight".
    """

    copies: list[int]
    dropped_by: dict[int, str]


def mix_sources(
    ids: Sequence[str],
    sources: Sequence[str | None],
    plan: Iterable[SourceConfig],
    *,
    seed: int,
) -> Mix:
    """Apply every source's cap, then its weight.

    A weight of 2.5 takes every sample twice and half of them a third time; a weight of 0.5 takes
    half of them.  Counts are exact to the sample: round(weight x samples).

    Args:
        ids: Of the good samples of the training part.
        sources: Which source each is of; one that the plan does not name is taken once.
        plan: The sources.
        seed: Changes which samples are chosen.
    """
    copies = [1] * len(ids)
    dropped_by: dict[int, str] = {}
    by_name: Mapping[str, SourceConfig] = {source.name: source for source in plan}
    members: dict[str, list[int]] = {name: [] for name in by_name}
    for index, source in enumerate(sources):
        if source in members:
            members[source].append(index)
    for name, indices in members.items():
        plan_of = by_name[name]
        # By a digest: a shuffle that another sample does not change.
        indices.sort(key=lambda index: _rank(ids[index], seed))
        kept = indices[: plan_of.max_samples]
        whole, part = divmod(plan_of.weight, 1)
        num_extra = round(part * len(kept))
        for position, index in enumerate(kept):
            copies[index] = int(whole) + (position < num_extra)
        for index in indices[len(kept) :]:
            copies[index] = 0
            dropped_by[index] = "cap"
        dropped_by |= {index: "weight" for index in kept if copies[index] == 0}
    return Mix(copies, dropped_by)


def _rank(sample_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()
