"""Keep thinking within its budget, per row, in the one decoding pass.

The reference decodes twice and prefills everything again in between, for one row only.  Here the
closing sentence is forced where it is due, with the one key-value cache: read in one go when
every row needs it, token by token through the logits when only some do.  Under greedy decoding
the ids are those of the reference.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `Ovis2_5.generate`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

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
        overdue = self.overdue(input_ids)
        forced = torch.full_like(scores, -torch.inf)
        forced[:, closing[place]] = 0
        return torch.where(overdue[:, None], forced, scores)

    def overdue(self, input_ids: Tensor) -> Tensor:
        """Tell which rows thought through the whole budget, bool [batch]."""
        thought = input_ids[:, : self.budget]
        closed = (thought == self.token_ids.think_close) | (thought == self.token_ids.im_end)
        return ~closed.any(dim=1)

    def closing_of_all(self, input_ids: Tensor, unfinished: Tensor) -> Tensor | None:
        """Return the closing sentence if it is due now and every unfinished row needs it.

        Args:
            input_ids: Ids generated so far, int64 [batch, num_generated].
            unfinished: Rows still being written, bool [batch].

        Returns:
            int64 [num_closing], or None.
        """
        if input_ids.shape[1] != self.budget or (unfinished & ~self.overdue(input_ids)).any():
            return None
        return torch.tensor(self.token_ids.closing_sentence, device=input_ids.device)


class BudgetedDecoding:
    """transformers' plain decoding loop, which reads a due closing sentence in one forward pass.

    Passed to transformers' `generate` as `custom_generate`.
    """

    def __init__(
        self, processor: ThinkingBudgetLogitsProcessor, streamer: BaseStreamer | None
    ) -> None:
        """Remember what `generate` does not hand on.

        Args:
            processor: Knows the budget; it is also among the logits processors.
            streamer: Receives new ids, or None.
        """
        self.processor = processor
        self.streamer = streamer

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Tensor:
        """Decode until every row has ended.

        Args:
            model: The language model.
            input_ids: No ids: the prompt is embeddings, int64 [batch, 0].
            logits_processor: Applied to the scores of each step.
            stopping_criteria: End rows.
            generation_config: Sampling and padding.
            **model_kwargs: The prompt, its mask and cache.

        Returns:
            New ids, int64 [batch, num_new_tokens].
        """
        pad: Any = generation_config._pad_token_tensor
        processed: Any = logits_processor  # declared for LongTensor, a type no tensor has
        unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self._show(input_ids)
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
        while True:
            new_ids = self.processor.closing_of_all(input_ids, unfinished)
            if new_ids is None:
                scores = processed(input_ids, outputs.logits[:, -1].float())
                new_ids = _choose(scores, sample=bool(generation_config.do_sample))
            new_ids = torch.where(unfinished[:, None], new_ids, pad)  # [batch, num_new]
            input_ids = torch.cat([input_ids, new_ids], dim=1)
            self._show(new_ids)
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            if not unfinished.any():
                break
            num_new = new_ids.shape[1]
            model_kwargs = model._update_model_kwargs_for_generation(
                outputs, model_kwargs, num_new_tokens=num_new
            )
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=num_new, **model_kwargs
            )
            outputs = model(**inputs, return_dict=True)
        if self.streamer is not None:
            self.streamer.end()
        return input_ids

    def _show(self, new_ids: Tensor) -> None:
        """Stream ids; the first call is for those of the prompt, of which there are none."""
        if self.streamer is not None:
            for ids in new_ids.T if new_ids.shape[1] else [new_ids]:
                self.streamer.put(ids.cpu())


def _choose(scores: Tensor, *, sample: bool) -> Tensor:
    """Choose the next token of each row, int64 [batch, 1]."""
    if sample:
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1)
    return scores.argmax(dim=-1, keepdim=True)


#: Arguments of `generate` that need transformers' own loop.
OWN_LOOPS = frozenset(
    ("assistant_model", "custom_generate", "num_beams", "return_dict_in_generate", "stop_strings")
)


def budget_arguments(
    budget: int, token_ids: TokenIds, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of transformers' `generate` that keep a budget.

    Args:
        budget: Tokens a row may generate before its thinking must have closed.
        token_ids: Ids of the closing sentence and of what makes it needless.
        arguments: What the caller gave.
    """
    processor = ThinkingBudgetLogitsProcessor(budget, token_ids)
    given = arguments.get("logits_processor") or []
    changed: dict[str, Any] = {"logits_processor": LogitsProcessorList([*given, processor])}
    # Under ZeRO-3 every process has to take the same number of steps, which transformers' loop
    # sees to.
    if not OWN_LOOPS & arguments.keys() and not is_deepspeed_zero3_enabled():
        changed["custom_generate"] = BudgetedDecoding(processor, arguments.get("streamer"))
        changed["streamer"] = None
    return changed


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
    closing = len(token_ids.closing_sentence)
    needed = budget + closing + 1
    if max_new_tokens < needed:
        raise ValueError(
            f"thinking_budget ({budget} tokens) and the closing sentence ({closing} tokens) leave "
            f"no room for an answer within max_new_tokens ({max_new_tokens} tokens); set "
            f"max_new_tokens to at least {needed}"
        )
