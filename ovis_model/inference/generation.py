"""Prompts in, parsed outputs out: the one place where a model generates.

Evaluation and `Ovis25Inference` share it, so that a benchmark measures what a user gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ovis_model.inference.thinking import ParsedOutput, check_room_for_answer, parse_generation
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor, pad_batch
from ovis_model.tokens import TokenIds


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is generated.

    Attributes:
        max_new_tokens: Tokens in all, thinking and closing sentence included.
        enable_thinking: Whether the model is let think before it answers.
        thinking_budget: Tokens of thinking before it is closed by force; None never does.
        do_sample: Sample instead of taking the likeliest token.
        temperature: Of sampling; without effect when greedy.
    """

    max_new_tokens: int
    enable_thinking: bool = False
    thinking_budget: int | None = None
    do_sample: bool = False
    temperature: float = 0.6

    def check(self, token_ids: TokenIds) -> None:
        """Refuse settings that leave no room for an answer.

        Raises:
            ValueError: With the numbers, and what would work.
        """
        check_room_for_answer(
            thinking_budget=self.thinking_budget,
            max_new_tokens=self.max_new_tokens,
            closing_tokens=len(token_ids.closing_sentence),
        )
        if self.do_sample and not self.temperature > 0:
            raise ValueError(
                f"sampling needs a temperature above 0, got {self.temperature}; "
                "use do_sample=False for greedy decoding"
            )

    def keywords(self, token_ids: TokenIds) -> dict[str, Any]:
        """Arguments for the model's `generate`; sampling ones only when sampling."""
        sampling = {"temperature": self.temperature} if self.do_sample else {}
        return {
            "thinking_budget": self.thinking_budget if self.enable_thinking else None,
            "max_new_tokens": self.max_new_tokens,
            "do_sample": self.do_sample,
            "eos_token_id": list(eos_ids(token_ids)),
            "pad_token_id": token_ids.pad,
            **sampling,
        }


def eos_ids(token_ids: TokenIds) -> tuple[int, ...]:
    """Ids that end a turn, as the released generation_config.json lists them."""
    return token_ids.im_end, token_ids.pad


def generate_ids(
    model: Ovis2_5ForConditionalGeneration,
    processor: Ovis2_5Processor,
    prompts: Sequence[EncodedSample],
    settings: GenerationSettings,
    **extra: Any,
) -> Tensor:
    """Continue encoded prompts, all of them in one left-padded batch.

    Args:
        model: In evaluation mode.
        processor: The one that encoded the prompts.
        prompts: Encoded, without labels.
        settings: Lengths and decoding.
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
    with torch.inference_mode():
        return model.generate(**inputs, **settings.keywords(token_ids), **extra)


def generate_outputs(
    model: Ovis2_5ForConditionalGeneration,
    processor: Ovis2_5Processor,
    prompts: Sequence[EncodedSample],
    settings: GenerationSettings,
) -> list[ParsedOutput]:
    """Answer encoded prompts, one output per prompt, in their order."""
    rows = generate_ids(model, processor, prompts, settings).tolist()
    token_ids = processor.token_ids
    return [
        parse_generation(row, processor.tokenizer, token_ids, eos_ids=eos_ids(token_ids))
        for row in rows
    ]
