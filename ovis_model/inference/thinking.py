"""What a model wrote, taken apart: the thought, the answer, and how each of them ended.

Ids are read rather than text, because `</think>` is one token and the forced closing sentence
is a known run of ids: a model that merely writes about thinking cannot be misread.

    natural   the model closed its thought itself
    forced    the thinking budget ran out and the closing sentence was put in
    never     a thought was opened and the output ended inside it
    none      there was no thought
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from ovis_model.tokens import THINK_CLOSE, THINK_OPEN, TokenIds, Tokenizer

FinishReason = Literal["stop", "length", "stop_string"]
ThinkingClosed = Literal["natural", "forced", "never", "none"]


@dataclass(frozen=True)
class ParsedOutput:
    """One generated row.

    Attributes:
        text: Everything that was generated, special tokens removed, `<think>` kept; cut before a
            stop string.
        thinking: The thought, without its tags, stripped.
        answer: What follows the thought, stripped; empty if the thought never closed.
        finish_reason: "stop" if the model ended its turn, "stop_string" if a stop string did,
            "length" if max_new_tokens did.
        thinking_closed: See the module's table.
        thinking_tokens: Tokens spent on thinking, `<think>` included, `</think>` and a forced
            sentence not: the number that is held against the thinking budget.
        answer_tokens: Tokens after the thought.
        generated_tokens: All tokens, end token and forced sentence included.
    """

    text: str
    thinking: str
    answer: str
    finish_reason: FinishReason
    thinking_closed: ThinkingClosed
    thinking_tokens: int
    answer_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class _Split:
    thinking: list[int]
    answer: list[int]
    closed: ThinkingClosed
    thinking_tokens: int


def parse_generation(
    ids: Sequence[int],
    tokenizer: Tokenizer,
    token_ids: TokenIds,
    *,
    eos_ids: Collection[int],
    stop: Sequence[str] = (),
) -> ParsedOutput:
    """Take one generated row apart.

    Args:
        ids: New ids only [num_new], padding after the end token allowed.
        tokenizer: Turns the parts back into text.
        token_ids: Which ids open and close a thought, and the forced closing sentence.
        eos_ids: Ids that end a turn; everything from the first of them on is cut.
        stop: Strings before which the answer is cut.
    """
    end = next((index for index, token in enumerate(ids) if token in eos_ids), None)
    content = list(ids if end is None else ids[:end])
    split = _split(content, token_ids)
    answer = _decode(tokenizer, split.answer)
    cut = cut_at_stop(answer, stop)
    if cut is None:
        text, finish_reason = _decode(tokenizer, content), "length" if end is None else "stop"
    else:
        # A row that a stop string ended is filled up with pad tokens, which end nothing.
        end, finish_reason = None, "stop_string"
        text = _decode(tokenizer, content[: len(content) - len(split.answer)]) + cut
    return ParsedOutput(
        text=text,
        thinking=_decode(tokenizer, split.thinking).strip(),
        answer=(answer if cut is None else cut).strip(),
        finish_reason=cast("FinishReason", finish_reason),
        thinking_closed=split.closed,
        thinking_tokens=split.thinking_tokens,
        answer_tokens=len(split.answer),
        generated_tokens=len(content) if end is None else end + 1,
    )


def answer_ids(ids: list[int], token_ids: TokenIds) -> list[int]:
    """Return the ids after the thought, none while the thought is open."""
    if token_ids.think_close in ids:
        return ids[ids.index(token_ids.think_close) + 1 :]
    return [] if ids[:1] == [token_ids.think_open] else ids


def cut_at_stop(answer: str, stop: Sequence[str]) -> str | None:
    r"""Cut an answer before the first stop string in it.

    White space before the answer's first letter does not count: a model puts two line breaks
    between thought and answer.

    Returns:
        The text before the stop string, or None if there is none.

    Example:
        >>> cut_at_stop("\n\n7\n\nBecause", ["\n\n", "!"])
        '\n\n7'
        >>> cut_at_stop("\n\n7", ["\n\n", "!"]) is None
        True
    """
    place = find_stop(answer, stop, start=len(answer) - len(answer.lstrip()))
    return None if place is None else answer[:place]


def find_stop(text: str, stop: Sequence[str], *, start: int = 0) -> int | None:
    """Return where the first stop string at or after `start` begins, None if there is none."""
    places = [text.find(wanted, start) for wanted in stop]
    return min((place for place in places if place >= 0), default=None)


def _split(content: list[int], token_ids: TokenIds) -> _Split:
    opened = content[:1] == [token_ids.think_open]
    if token_ids.think_close not in content:
        if opened:
            return _Split(content[1:], [], "never", len(content))
        return _Split([], content, "none", 0)
    close = content.index(token_ids.think_close)
    thinking, answer = content[int(opened) : close], content[close + 1 :]
    forced_at = _start_of_forced_close(content, close, token_ids)
    if forced_at is None:
        return _Split(thinking, answer, "natural", close)
    after = forced_at + len(token_ids.closing_sentence)
    return _Split(content[int(opened) : forced_at], content[after:], "forced", forced_at)


def _start_of_forced_close(content: list[int], close: int, token_ids: TokenIds) -> int | None:
    """Where the forced sentence begins, if it is what closed the thought."""
    sentence = list(token_ids.closing_sentence)
    start = close - sentence.index(token_ids.think_close)
    return start if start >= 0 and content[start : start + len(sentence)] == sentence else None


def _decode(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def split_thinking(text: str) -> tuple[str, str]:
    r"""Split text at the first `</think>` into (thinking, answer), for text without ids.

    Text that opens a thought and never closes it has no answer.

    Example:
        >>> split_thinking("<think>two strokes</think>\n\n7")
        ('two strokes', '7')
        >>> split_thinking("7")
        ('', '7')
        >>> split_thinking("<think>two strokes")
        ('two strokes', '')
    """
    before, closed, after = text.partition(THINK_CLOSE)
    opened = text.lstrip().startswith(THINK_OPEN)
    thought = before.lstrip().removeprefix(THINK_OPEN).strip()
    if closed:
        return thought, after.strip()
    return (thought, "") if opened else ("", text.strip())
