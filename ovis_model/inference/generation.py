"""Prompts in, parsed outputs out: the one place where a model generates.

Evaluation and `Ovis25Inference` share it, so that a benchmark measures what a user gets.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ovis_model.inference.row_sampling import RowSampler
from ovis_model.inference.thinking import (
    ParsedOutput,
    answer_ids,
    cut_at_stop,
    parse_generation,
)
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.thinking_budget import check_budget
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor, pad_batch
from ovis_model.tokens import TokenIds, Tokenizer


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated; greedy and free of penalties unless told otherwise.

    Attributes:
        max_new_tokens: Tokens in all, thinking and closing sentence included.
        enable_thinking: Whether the model is let think before it answers.
        thinking_budget: Tokens of thinking before it is closed by force; None never does.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Of sampling; without effect when greedy.
        top_p: Sample from the likeliest tokens of this total probability; None leaves it to
            transformers; without effect when greedy.
        top_k: Sample from so many likeliest tokens; None leaves it to transformers; without
            effect when greedy.
        repetition_penalty: Divides the scores of tokens already generated; None and 1 do not.
        stop: Strings that end the answer; they are looked for in the answer, not in the thought,
            and are not part of the text.
        seed: Of sampling; None goes on with torch's own random numbers.
    """

    max_new_tokens: int
    enable_thinking: bool = False
    thinking_budget: int | None = None
    do_sample: bool = False
    temperature: float = 0.6
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def check(self, token_ids: TokenIds) -> None:
        """Refuse settings that leave no room for an answer, or that mean nothing.

        Raises:
            ValueError: With the numbers, and what would work.
        """
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.thinking_budget is not None:
            check_budget(self.thinking_budget, self.max_new_tokens, token_ids)
        if self.do_sample and not self.temperature > 0:
            raise ValueError(
                f"sampling needs a temperature above 0, got {self.temperature}; "
                "use do_sample=False for greedy decoding"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a probability above 0 and up to 1, got {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1 token, got {self.top_k}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(
                f"repetition_penalty must be above 0 (1 is none), got {self.repetition_penalty}"
            )
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every answer at once")

    def keywords(self, token_ids: TokenIds) -> dict[str, Any]:
        """Arguments for the model's `generate`; sampling ones only when sampling."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        given = {name: value for name, value in sampling.items() if value is not None}
        return {
            "thinking_budget": self.thinking_budget if self.enable_thinking else None,
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "eos_token_id": list(eos_ids(token_ids)),
            "pad_token_id": token_ids.pad,
            **(given if self.do_sample else {}),
        }


class StopStringCriteria(StoppingCriteria):
    """End a row as soon as its answer holds a stop string."""

    def __init__(self, stop: Sequence[str], tokenizer: Tokenizer, token_ids: TokenIds) -> None:
        """Remember what to look for."""
        self._stop = stop
        self._tokenizer = tokenizer
        self._token_ids = token_ids
        # A token is at least one byte, and may begin in the middle of a character.
        self._num_last_tokens = max(len(text.encode()) for text in stop) + 4

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return which rows have ended, bool [batch].

        Args:
            input_ids: Ids generated so far, without the prompt, int64 [batch, num_generated].
            scores: Not used.
            **kwargs: Not used.
        """
        ended = [self._ends(answer_ids(row, self._token_ids)) for row in input_ids.tolist()]
        return torch.tensor(ended, device=input_ids.device)

    def _ends(self, answer: list[int]) -> bool:
        tail = self._tokenizer.decode(answer[-self._num_last_tokens :], skip_special_tokens=True)
        if not any(text in tail for text in self._stop):
            return False
        whole = self._tokenizer.decode(answer, skip_special_tokens=True)
        return cut_at_stop(whole, self._stop) is not None


def eos_ids(token_ids: TokenIds) -> tuple[int, ...]:
    """Ids that end a turn, as the released generation_config.json lists them."""
    return token_ids.im_end, token_ids.pad


def generate_ids(
    model: Ovis2_5ForConditionalGeneration,
    processor: Ovis2_5Processor,
    prompts: Sequence[EncodedSample],
    settings: GenerationSettings,
    *,
    row_seeds: Sequence[int] | None = None,
    **extra: Any,
) -> Tensor:
    """Continue encoded prompts, all of them in one left-padded batch.

    Args:
        model: In evaluation mode.
        processor: The one that encoded the prompts.
        prompts: Encoded, without labels.
        settings: Lengths and decoding.
        row_seeds: One per prompt: when sampling, what a row gets then does not depend on the
            rows beside it, and `settings.seed` is without effect.  None draws for all at once.
        **extra: Handed on to `generate`, such as a streamer.

    Returns:
        New ids, right-padded, int64 [num_prompts, num_new_tokens].
    """
    token_ids = processor.token_ids
    batch = pad_batch(list(prompts), pad_id=token_ids.pad, side="left")
    device = next(model.parameters()).device
    inputs: dict[str, Any] = {
        name: tensor.to(device) for name, tensor in batch.items() if tensor is not None
    }
    keywords = settings.keywords(token_ids)
    processors = LogitsProcessorList()
    if settings.repetition_penalty is not None:
        # As a processor of our own: asked for by name, transformers would leave out as many of a
        # row's first new tokens as the row has padding.
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if row_seeds is not None and settings.do_sample:
        sampling = {name: keywords.pop(name, None) for name in ("temperature", "top_k", "top_p")}
        processors.append(RowSampler(row_seeds, device=device, **sampling))
        keywords["do_sample"] = False
    if processors:
        extra["logits_processor"] = processors
    if settings.stop:
        criteria = StopStringCriteria(settings.stop, processor.tokenizer, token_ids)
        extra["stopping_criteria"] = StoppingCriteriaList([criteria])
    with torch.inference_mode(), _random_numbers(settings.seed, device):
        return model.generate(**inputs, **keywords, **extra)


@contextmanager
def _random_numbers(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from a seed, and leave torch's own random numbers as they were."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def generate_outputs(
    model: Ovis2_5ForConditionalGeneration,
    processor: Ovis2_5Processor,
    prompts: Sequence[EncodedSample],
    settings: GenerationSettings,
    **extra: Any,
) -> list[ParsedOutput]:
    """Answer encoded prompts, one output per prompt, in their order."""
    rows = generate_ids(model, processor, prompts, settings, **extra).tolist()
    return [parse_row(processor, row, settings) for row in rows]


def parse_row(
    processor: Ovis2_5Processor, row: list[int], settings: GenerationSettings
) -> ParsedOutput:
    """Take one row of new ids apart, as its settings ended it."""
    return parse_generation(
        row,
        processor.tokenizer,
        processor.token_ids,
        eos_ids=eos_ids(processor.token_ids),
        stop=settings.stop,
    )
