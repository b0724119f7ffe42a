"""Sampling in which every row has random numbers of its own.

torch draws for a whole batch at once, so that what a row gets depends on its neighbours.  Here a
row's tokens follow from its own seed: the same in any batch, on any process, after any restart,
as far as the scores of the model are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class RowSampler(LogitsProcessor):
    """Choose one token per row; a greedy decoder then has nothing else to take.

    Adding Gumbel noise to the scores and taking the largest is a draw from their softmax
    (the Gumbel-max trick).
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        temperature: float,
        top_k: int | None = None,
        top_p: float | None = None,
        device: torch.device,
    ) -> None:
        """Start the random numbers of every row.

        Args:
            seeds: One per row.
            temperature: Above 0.
            top_k: Sample from so many likeliest tokens; None samples from all.
            top_p: Sample from the likeliest tokens of this total probability; None from all.
            device: Where the scores are.
        """
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        # In the order of transformers' own sampling.
        self._warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(float(temperature))]
        if top_k is not None:
            self._warpers.append(TopKLogitsWarper(top_k))
        if top_p is not None:
            self._warpers.append(TopPLogitsWarper(top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave each row one possible token.

        Args:
            input_ids: Ids generated so far, int64 [batch, num_generated].
            scores: Next-token scores [batch, vocab].

        Returns:
            Scores that are 0 for the chosen token and -inf for all others.
        """
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        noise = torch.stack(
            [
                torch.empty_like(row).exponential_(generator=generator)
                for row, generator in zip(scores, self._generators, strict=True)
            ]
        )
        chosen = (scores - noise.log()).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)
