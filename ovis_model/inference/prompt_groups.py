"""Which prompts may share one reading of what they show.

Several questions on one image begin alike up to the question.  Such prompts form a group: their
common beginning, which holds all their media, is read once; what is left of each is text.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch

from ovis_model.processing.processing_ovis2_5 import EncodedSample


@dataclass(frozen=True)
class PromptGroup:
    """Prompts to be generated together.

    Attributes:
        prefix: What they all begin with, media included; None if they share nothing.
        rows: What is left of each prompt, with the prompt's index; shortest first.
    """

    prefix: EncodedSample | None
    rows: tuple[tuple[int, EncodedSample], ...]


def group_prompts(prompts: Sequence[EncodedSample]) -> list[PromptGroup]:
    """Group prompts that show the same media after the same words.

    Args:
        prompts: Encoded, without labels.

    Returns:
        Groups of two prompts or more with a prefix, then one group of all others.
    """
    alike: dict[bytes, list[int]] = {}
    for index, prompt in enumerate(prompts):
        if prompt.pixel_values is not None:
            alike.setdefault(_beginning(prompt), []).append(index)
    shared = [indices for indices in alike.values() if len(indices) > 1]
    groups = [_share(prompts, indices) for indices in shared]
    taken = {index for indices in shared for index in indices}
    others = [index for index in range(len(prompts)) if index not in taken]
    if others:
        groups.append(PromptGroup(None, _by_length([(i, prompts[i]) for i in others])))
    return groups


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Count the ids that all sequences begin with, but leave each of them at least one.

    Example:
        >>> common_length([[1, 2, 3, 4], [1, 2, 5]])
        2
        >>> common_length([[1, 2], [1, 2]])
        1
    """
    alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*sequences, strict=False))
    return min(len(list(alike)), min(map(len, sequences)) - 1)


def _share(prompts: Sequence[EncodedSample], indices: Sequence[int]) -> PromptGroup:
    length = common_length([prompts[index].input_ids.tolist() for index in indices])
    first = prompts[indices[0]]
    rests = [
        (
            index,
            replace(
                prompts[index],
                input_ids=prompts[index].input_ids[length:],
                pixel_values=None,
                grid_thws=None,
            ),
        )
        for index in indices
    ]
    return PromptGroup(replace(first, input_ids=first.input_ids[:length]), _by_length(rests))


def _beginning(prompt: EncodedSample) -> bytes:
    """Identify everything up to the last visual position: the ids and the pixels."""
    assert prompt.pixel_values is not None and prompt.grid_thws is not None  # noqa: PT018
    last = int(torch.nonzero(prompt.input_ids < 0)[-1])
    digest = hashlib.blake2b(prompt.input_ids[: last + 1].numpy().tobytes())
    digest.update(prompt.grid_thws.numpy().tobytes())
    digest.update(prompt.pixel_values.contiguous().numpy().data)
    return digest.digest()


def _by_length(
    rows: list[tuple[int, EncodedSample]],
) -> tuple[tuple[int, EncodedSample], ...]:
    return tuple(sorted(rows, key=lambda row: len(row[1].input_ids)))
