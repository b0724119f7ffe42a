"""What of an output is marked under official settings, and how its thought ended.

Text decides here, not token ids, so that every backend is judged alike.  An output is one phase
of generation, or two: a thought that has spent its budget is closed by a sentence, and a second
phase answers.

Source: VLMEvalKit @ 6f67cef5, `Ovis2_5.vllm_infer` and `generate_inner`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ovis_model.inference.thinking import ParsedOutput
from ovis_model.tokens import CLOSING_SENTENCE, THINK_CLOSE, THINK_OPEN

_FINAL_ANSWER = re.compile(r"the\s+final\s+answer\s+is|final\s+answer\s*:", re.IGNORECASE)
_COLONS_AND_BLANKS = re.compile(r"[:\s]*")


@dataclass(frozen=True)
class Phase:
    """What one call of a backend generated.

    Attributes:
        text: With `<think>` and `</think>`, without what came before it.
        finish_reason: "length" if the token limit ended it, else "stop".
    """

    text: str
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Response:
    """An output taken apart.

    Attributes:
        text: All of it, a forced closing sentence included.
        thinking: What stands before the first `</think>`; empty without one.
        response: What follows it, or else everything.
        prediction: What is marked: the response, or what follows its last "Final answer:".
        forced_close: The budget closed the thought.
        unclosed_thinking: A thought was opened and never closed.
        no_think_block: Thinking was asked for and there was no thought.
        answer_truncated: The answer was cut off at the token limit.
    """

    text: str
    thinking: str
    response: str
    prediction: str
    forced_close: bool
    unclosed_thinking: bool
    no_think_block: bool
    answer_truncated: bool


def continuation(first: Phase) -> str | None:
    """Return what goes between a first phase and a second one, None if there is no second.

    Example:
        >>> continuation(Phase("<think>a</think>b", "length")), continuation(Phase("a", "stop"))
        ('', None)
    """
    if first.finish_reason == "stop":
        return None
    return "" if THINK_CLOSE in first.text else CLOSING_SENTENCE


def read_phases(
    phases: Sequence[Phase], *, enable_thinking: bool, asks_for_final_answer: bool
) -> Response:
    """Take the output of one or two phases apart.

    Args:
        phases: What was generated; two of them where the first one spent a thinking budget.
        enable_thinking: Whether the model was let think.
        asks_for_final_answer: Whether the prompt asked for the words "Final answer:".

    Raises:
        ValueError: If there is no phase, or more than two.
    """
    if not 1 <= len(phases) <= 2:
        raise ValueError(f"an output has one or two phases, not {len(phases)}")
    between = continuation(phases[0]) or "" if len(phases) == 2 else ""
    return _read(
        between.join(phase.text for phase in phases),
        forced_close=between == CLOSING_SENTENCE,
        is_cut=phases[-1].finish_reason == "length",
        enable_thinking=enable_thinking,
        asks_for_final_answer=asks_for_final_answer,
    )


def read_output(
    output: ParsedOutput, *, enable_thinking: bool, asks_for_final_answer: bool
) -> Response:
    """Take an output of this project's own generation apart, which knows one phase only.

    Args:
        output: The output.
        enable_thinking: Whether the model was let think.
        asks_for_final_answer: Whether the prompt asked for the words "Final answer:".
    """
    return _read(
        output.text,
        forced_close=output.thinking_closed == "forced",
        is_cut=output.finish_reason == "length",
        enable_thinking=enable_thinking,
        asks_for_final_answer=asks_for_final_answer,
    )


def extract_final_answer(response: str) -> str:
    r"""Return what follows the last "final answer:" or "the final answer is".

    Where there is none, everything is the answer.

    Example:
        >>> extract_final_answer("Final answer: A\nNo. The final answer is: B")
        'B'
        >>> extract_final_answer("**Final answer**: B")
        '**Final answer**: B'
    """
    # The original's one expression takes minutes for the longest outputs; this one is linear.
    ends = [match.end() for match in _FINAL_ANSWER.finditer(response)]
    if not ends:
        return response
    return _COLONS_AND_BLANKS.sub("", response[ends[-1] :], count=1)


def _read(
    text: str,
    *,
    forced_close: bool,
    is_cut: bool,
    enable_thinking: bool,
    asks_for_final_answer: bool,
) -> Response:
    before, closed, after = text.partition(THINK_CLOSE)
    thinking = before.partition(THINK_OPEN)[2] if THINK_OPEN in before else before
    response = after.strip() if closed else text.strip()
    has_opened = THINK_OPEN in text
    return Response(
        text=text,
        thinking=thinking.strip() if closed else "",
        response=response,
        prediction=extract_final_answer(response) if asks_for_final_answer else response,
        forced_close=forced_close,
        unclosed_thinking=has_opened and not closed,
        no_think_block=enable_thinking and not has_opened and not closed,
        answer_truncated=is_cut,
    )
