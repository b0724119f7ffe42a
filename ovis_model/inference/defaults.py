"""The seed's default values, and what takes their place when the caller says nothing.

The seed's signatures give numbers where a fine-tuned checkpoint knows better, and a token limit
below its own thinking budget.  A `Default` is that number, and can be told from the same number
given by the caller.
"""

from ovis_model.inference.generation import GenerationSettings


class Default(int):
    """A number nobody asked for."""


BUDGET = Default(2048)
MAX_NEW_TOKENS = Default(1024)
#: Room for the default budget and as long an answer as without thinking.
MAX_NEW_TOKENS_THINKING = 3072
MIN_PIXELS = Default(448 * 448)
SINGLE_MAX_PIXELS = Default(1792 * 1792)
MANY_MAX_PIXELS = Default(896 * 896)
NUM_FRAMES = Default(8)


def given(value: int) -> int | None:
    """Return a value the caller gave, None for a default.

    Example:
        >>> given(2048), given(BUDGET)
        (2048, None)
    """
    return None if isinstance(value, Default) else value


def choose_settings(
    *, thinking: tuple[bool, bool, int], max_new_tokens: int, temperature: float, do_sample: bool
) -> GenerationSettings:
    """Settle what the seed's arguments mean together.

    Args:
        thinking: enable_thinking, enable_thinking_budget and thinking_budget.  Giving a budget
            while thinking is enabled enables it; without thinking both are without effect.
        max_new_tokens: Tokens in all.
        temperature: Of sampling.
        do_sample: Whether to sample.

    Raises:
        ValueError: If a budget is at least as large as max_new_tokens.
    """
    enable_thinking, enable_budget, budget = thinking
    bounded = enable_thinking and (enable_budget or given(budget) is not None)
    if enable_thinking and given(max_new_tokens) is None:
        max_new_tokens = MAX_NEW_TOKENS_THINKING
    if bounded and budget >= max_new_tokens:
        raise ValueError(
            f"thinking_budget ({budget} tokens) leaves no room for an answer within "
            f"max_new_tokens ({max_new_tokens} tokens); raise max_new_tokens"
        )
    return GenerationSettings(
        max_new_tokens=int(max_new_tokens),
        enable_thinking=enable_thinking,
        thinking_budget=int(budget) if bounded else None,
        do_sample=do_sample,
        temperature=temperature,
    )
