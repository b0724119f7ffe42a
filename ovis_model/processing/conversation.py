"""Conversations to ids and labels, with placeholders still in place.

What is learned: the answers of `gpt` turns and their `<|im_end|>`.  What is only read: system
and human turns, every `<|im_start|>role` line, `ignored_gpt` turns, and the empty thinking
block put before an answer that has none.

Source: AIDC-AI/Ovis @ 4de4946, `Qwen3ConversationFormatter`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ovis_model.errors import DataError
from ovis_model.processing.tokenization import tokenize_all
from ovis_model.tokens import (
    EMPTY_THINK,
    IGNORE_ID,
    IM_END,
    IM_START,
    IMAGE_PLACEHOLDER,
    THINK_CLOSE,
    THINK_OPEN,
    VIDEO_PLACEHOLDER,
    Tokenizer,
)

#: Role in the data to role in the prompt.
ROLES = {"system": "system", "human": "user", "gpt": "assistant", "ignored_gpt": "assistant"}

PROMPT_ROLES = ("system", "user", "assistant")
ITEM_TYPES = ("text", "image", "video")


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
    if generation_preface is not None:
        return _format_prompt(turns, tokenizer, generation_preface)
    headers = [_header(turn) for turn in turns]
    texts = [_text(turn, header) for turn, header in zip(turns, headers, strict=True)]
    # Tokenized together with the answer, a header that ends in newlines may swallow the answer's
    # own first newline; its tokens are counted alone, as in the reference.
    answering = list({h for turn, h in zip(turns, headers, strict=True) if turn.role == "gpt"})
    encoded = tokenize_all([*texts, *answering], tokenizer)
    num_ignored = {h: len(e) for h, e in zip(answering, encoded[len(texts) :], strict=True)}
    ids: list[int] = []
    labels: list[int] = []
    for turn, header, turn_ids in zip(turns, headers, encoded, strict=False):
        ids += turn_ids
        start = num_ignored[header] if turn.role == "gpt" else len(turn_ids)
        labels += [IGNORE_ID] * start
        # The newline after an <|im_end|> is read, not learned.
        labels += [*turn_ids[start:-1], IGNORE_ID] if turn.role == "gpt" else []
    if turns[-1].role == "gpt":
        del ids[-1], labels[-1]  # after the last one it is not even read
    return ids, labels


def _format_prompt(
    turns: Sequence[TurnLike], tokenizer: Tokenizer, preface: str
) -> tuple[list[int], list[int]]:
    asked = turns[:-1] if turns[-1].role == "gpt" else turns
    texts = [_text(turn, f"{IM_START}{ROLES[turn.role]}\n") for turn in asked]
    texts.append(f"{IM_START}assistant\n{preface}")
    ids = [token for text_ids in tokenize_all(texts, tokenizer) for token in text_ids]
    return ids, [IGNORE_ID] * len(ids)


def _header(turn: TurnLike) -> str:
    header = f"{IM_START}{ROLES[turn.role]}\n"
    return header + EMPTY_THINK if turn.role == "gpt" and not _has_thinking(turn.value) else header


def _text(turn: TurnLike, header: str) -> str:
    return f"{header}{turn.value}{IM_END}\n"


def _has_thinking(text: str) -> bool:
    return THINK_OPEN in text and THINK_CLOSE in text


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse chat messages that no prompt can be made of.

    Args:
        messages: {"role": ..., "content": text, or a list of items of type text, image or video}.

    Raises:
        ValueError: If a role or an item's type is unknown, images and a video are mixed, or
            there is neither text nor a medium.
    """
    items = [
        item for number, message in enumerate(messages, 1) for item in _items(number, message)
    ]
    types = {item.get("type") for item in items}
    if types >= {"image", "video"}:
        raise ValueError(
            "the prompt shows images and a video; a prompt shows images or one video, never both: "
            "ask in two prompts"
        )
    if not types & {"image", "video"} and not any(item.get("text") for item in items):
        raise ValueError(
            "the prompt is empty, it has no text and no media; give a message with text, an image "
            "or a video"
        )


def _items(number: int, message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in PROMPT_ROLES:
        raise ValueError(
            f"message {number} has the role {role!r}; use one of {', '.join(PROMPT_ROLES)}"
        )
    items = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
    known = ("text",) if role == "assistant" else ITEM_TYPES
    for item in items:
        if item.get("type") not in known:
            raise ValueError(
                f"message {number} is the {role}'s and holds an item of type "
                f"{item.get('type')!r}; use {' or '.join(known)}"
            )
    return items


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
