"""Conversations to ids and labels, with placeholders still in place.

What is learned: the answers of `gpt` turns and their `<|im_end|>`.  What is only read: system
and human turns, every `<|im_start|>role` line, `ignored_gpt` turns, and the empty thinking
block put before an answer that has none.

Source: AIDC-AI/Ovis @ 4de4946, `Qwen3ConversationFormatter`.
"""

from collections.abc import Sequence
from typing import Protocol

from ovis_model.errors import DataError
from ovis_model.tokens import (
    EMPTY_THINK,
    IGNORE_ID,
    IM_END,
    IM_START,
    IMAGE_PLACEHOLDER,
    IMAGE_PLACEHOLDER_ID,
    THINK_CLOSE,
    THINK_OPEN,
    VIDEO_PLACEHOLDER,
    VIDEO_PLACEHOLDER_ID,
    Tokenizer,
)

#: Role in the data to role in the prompt.
ROLES = {"system": "system", "human": "user", "gpt": "assistant", "ignored_gpt": "assistant"}


class TurnLike(Protocol):
    """One message; `ovis_model.data.schema.Turn` is one."""

    @property
    def role(self) -> str:
        """One of `ROLES`."""
        ...

    @property
    def value(self) -> str:
        """The text, with <image> or <video> placeholders."""
        ...


def tokenize_with_placeholders(text: str, tokenizer: Tokenizer) -> list[int]:
    """Tokenize text, with one negative id per placeholder.

    A text with a <video> takes <image> as plain letters, as the reference does.

    Returns:
        Ids; -200 stands for <image>, -201 for <video>.
    """
    is_video = VIDEO_PLACEHOLDER in text
    placeholder = VIDEO_PLACEHOLDER if is_video else IMAGE_PLACEHOLDER
    placeholder_id = VIDEO_PLACEHOLDER_ID if is_video else IMAGE_PLACEHOLDER_ID
    ids: list[int] = []
    for number, piece in enumerate(text.split(placeholder)):
        if number:
            ids.append(placeholder_id)
        ids += tokenizer.encode(piece, add_special_tokens=False)
    return ids


def format_conversation(
    turns: Sequence[TurnLike],
    tokenizer: Tokenizer,
    *,
    generation_preface: str | None = None,
) -> tuple[list[int], list[int]]:
    """Turn a conversation into ids and labels.

    Args:
        turns: The messages in order.
        tokenizer: A Qwen3 tokenizer.
        generation_preface: None formats for training.  A text formats for generation: it opens
            the answer ("" lets the model think, an empty thinking block stops it), a final gpt
            turn is left out, and earlier answers get no empty thinking block.

    Returns:
        Ids with placeholders as -200 and -201, and labels of the same length.

    Raises:
        DataError: If there is no turn, a role is unknown, or images and a video are mixed.
    """
    _check(turns)
    training = generation_preface is None
    if not training and turns[-1].role == "gpt":
        turns = turns[:-1]
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        turn_ids, turn_labels = _format_turn(turn, tokenizer, training=training)
        ids += turn_ids
        labels += turn_labels
    if not training:
        opening = f"{IM_START}assistant\n{generation_preface}"
        ids += tokenizer.encode(opening, add_special_tokens=False)
        labels = [IGNORE_ID] * len(ids)  # a prompt teaches nothing
    elif turns[-1].role == "gpt":
        # The newline after the last <|im_end|> is neither read nor learned.
        del ids[-1], labels[-1]
    return ids, labels


def _format_turn(
    turn: TurnLike, tokenizer: Tokenizer, *, training: bool
) -> tuple[list[int], list[int]]:
    header = f"{IM_START}{ROLES[turn.role]}\n"
    if training and turn.role == "gpt" and not _has_thinking(turn.value):
        header += EMPTY_THINK
    ids = tokenize_with_placeholders(f"{header}{turn.value}{IM_END}\n", tokenizer)
    if turn.role != "gpt":
        return ids, [IGNORE_ID] * len(ids)
    # Tokenized together with the answer, a header that ends in newlines may swallow the answer's
    # own first newline; its tokens are counted alone, as in the reference.
    num_ignored = len(tokenizer.encode(header, add_special_tokens=False))
    return ids, [IGNORE_ID] * num_ignored + ids[num_ignored:-1] + [IGNORE_ID]


def _has_thinking(text: str) -> bool:
    return THINK_OPEN in text and THINK_CLOSE in text


def _check(turns: Sequence[TurnLike]) -> None:
    if not turns:
        raise DataError("the conversation has no turns; give at least a 'human' and a 'gpt' turn")
    if unknown := sorted({turn.role for turn in turns} - set(ROLES)):
        raise DataError(f"unknown role(s) {unknown}; use one of {', '.join(ROLES)}")
    with_video = [VIDEO_PLACEHOLDER in turn.value for turn in turns]
    with_image = [IMAGE_PLACEHOLDER in turn.value for turn in turns]
    mixed = any(i and not v for i, v in zip(with_image, with_video, strict=True))
    if any(with_video) and mixed:
        raise DataError(
            "the conversation has <image> and <video> placeholders; a sample carries images or "
            "one video, never both: split it into two samples"
        )
