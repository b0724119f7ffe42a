"""Keep thinking within its budget, per row, in the one decoding pass.

The reference decodes twice and prefills everything again in between, for one row only.
Forcing the closing sentence through the logits gives the same ids under greedy decoding.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `Ovis2_5.generate`.
"""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from ovis_model.tokens import TokenIds


class ThinkingBudgetLogitsProcessor(LogitsProcessor):
    """Force the closing sentence in rows that spent the budget without `</think>`.

    It holds no state: what a row must emit follows from the ids generated so far.
    """

    def __init__(self, budget: int, token_ids: TokenIds) -> None:
        """Remember the budget.

        Args:
            budget: Tokens a row may generate before thinking must have closed.
            token_ids: Ids of `</think>`, of the end of turn and of the closing sentence.
        """
        self.budget = budget
        self.token_ids = token_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask the scores of rows that are being closed.

        Args:
            input_ids: Ids generated so far, without the prompt, int64 [batch, num_generated].
            scores: Next-token scores [batch, vocab].

        Returns:
            Scores in which a closed row has one possible token.
        """
        closing = self.token_ids.closing_sentence
        place = input_ids.shape[1] - self.budget
        if not 0 <= place < len(closing):
            return scores
        # DIVERGES(batched-thinking-budget): the reference decides by the first row, and fails on
        # two.
        # DIVERGES(penalty-history): the reference starts a second decoding here, and a repetition
        # penalty forgets what was thought.
        # DIVERGES(any-end-ends): a row that ended with another token than <|im_end|> is filled
        # up by `generate` whatever is asked for here; the reference opens it again.
        thought = input_ids[:, : self.budget]
        closed = (thought == self.token_ids.think_close) | (thought == self.token_ids.im_end)
        overdue = ~closed.any(dim=1)
        forced = torch.full_like(scores, -torch.inf)
        forced[:, closing[place]] = 0
        return torch.where(overdue[:, None], forced, scores)


def check_budget(budget: int, max_new_tokens: int, token_ids: TokenIds) -> None:
    """Refuse a budget after which no answer could follow.

    Args:
        budget: Tokens a row may generate before its thinking must have closed.
        max_new_tokens: Tokens in all.
        token_ids: For the length of the closing sentence.

    Raises:
        ValueError: With the numbers, and what would work.
    """
    # DIVERGES(budget-without-room): the reference thinks first and fails afterwards.
    if budget < 1:
        raise ValueError(f"thinking_budget must be at least 1 token, got {budget}")
    needed = budget + len(token_ids.closing_sentence) + 1
    if max_new_tokens < needed:
        raise ValueError(
            f"thinking_budget {budget} plus the closing sentence of "
            f"{len(token_ids.closing_sentence)} tokens and one token of answer need "
            f"max_new_tokens >= {needed}, got {max_new_tokens}"
        )
