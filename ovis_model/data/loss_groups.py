"""Whose loss a token's is: that of its sample, and of its thinking or its answer.

num_learned   tokens of a sample, or of all samples of a batch, that are learned
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovis_model.tokens import IGNORE_ID, TokenIds

#: Groups of one sample: what it says before `</think>`, and after it.
PARTS = ("thinking", "answer")


@dataclass(frozen=True)
class LossGroups:
    """The groups of a batch's learned tokens.

    Attributes:
        sources: Where each sample came from, in the order of the batch.
        groups: Of each learned token, two per sample, `PARTS` in order, int64 [num_learned]; in
            the order in which the model returns their losses.
    """

    sources: tuple[str | None, ...]
    groups: Tensor


def learned_tokens(labels: Tensor | None) -> Tensor:
    """Return the labels that are predicted, in order; nothing precedes the first position.

    Args:
        labels: Of one sample, int64 [seq_len].

    Returns:
        int64 [num_learned].
    """
    assert labels is not None  # a training sample
    return labels[1:][labels[1:] != IGNORE_ID]


def is_thinking(learned: Tensor, token_ids: TokenIds) -> Tensor:
    """Tell which tokens are part of the thinking, `<think>` and `</think>` included.

    Args:
        learned: Tokens of one sample, int64 [num_learned].
        token_ids: Of the tokenizer.

    Returns:
        bool [num_learned].

    Example:
        >>> ids = TokenIds(im_start=1, im_end=2, pad=0, think_open=8, think_close=9,
        ...                closing_sentence=())
        >>> is_thinking(torch.tensor([8, 5, 9, 6, 2]), ids).tolist()
        [True, True, True, False, False]
    """
    closing = learned == token_ids.think_close
    is_open = (learned == token_ids.think_open).cumsum(0) > closing.cumsum(0)
    return is_open | closing


def group_tokens(
    labels: list[Tensor | None], sources: list[str | None], thinking: list[Tensor | None]
) -> LossGroups:
    """Group the learned tokens of a batch, padded or packed.

    Args:
        labels: Of each sample, int64 [seq_len].
        sources: Of each sample.
        thinking: Of each sample, bool [num_learned], or None for no thinking.
    """
    groups = []
    for number, (one, thought) in enumerate(zip(labels, thinking, strict=True)):
        answer = torch.full((len(learned_tokens(one)),), 2 * number + 1)
        groups.append(answer if thought is None else answer - thought.long())
    return LossGroups(tuple(sources), torch.cat(groups))
