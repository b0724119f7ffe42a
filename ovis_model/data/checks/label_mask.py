r"""What a model reads of a sample and what it learns: the label mask, in pieces of text.

    for piece in mask_of(sample, tokenizer, visual_tokens=[66]):
        piece.kind, piece.text          ("read_only", "<|im_start|>user\n"), ...

The ids and labels are those that training uses, turned back into text.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from ovis_model.data.schema import Sample
from ovis_model.processing.conversation import format_conversation
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

#: supervised: its loss is counted; read_only: the model reads it and learns nothing from it;
#: visual: stands for the tokens of an image or a video; cut: beyond `fit.max_tokens`, never read.
Kind = Literal["supervised", "read_only", "visual", "cut"]

_MEDIA = {IMAGE_PLACEHOLDER_ID: "image", VIDEO_PLACEHOLDER_ID: "video"}
#: What a tokenizer writes for bytes that are no whole character.
_BROKEN = "\N{REPLACEMENT CHARACTER}"
#: Characters that are not seen, or that change what is seen: controls, marks of direction,
#: zero-width spaces, halves of characters and tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True)
class Piece:
    """A run of tokens with one fate.

    Attributes:
        text: The tokens as text; of a medium, its name and number.
        kind: What training does with them.
        num_tokens: How many there are; None where no tokenizer counted them.
    """

    text: str
    kind: Kind
    num_tokens: int | None = None


def mask_of(
    sample: Sample, tokenizer: Tokenizer, *, visual_tokens: Sequence[int] | None = None
) -> list[Piece]:
    """Tell, for a whole sample, what is learned and what is only read.

    Args:
        sample: The sample; of its `fit`, the limit of tokens is applied.
        tokenizer: The model's.
        visual_tokens: Tokens of each image, or of the video, in the order of the placeholders;
            None counts each as one and leaves the number out of the text.

    Returns:
        Pieces in order, neighbours of one kind joined.

    Raises:
        DataError: If the conversation cannot be encoded.
        ValueError: If `visual_tokens` and the placeholders differ in number.
    """
    return _join(tokens_of(sample, tokenizer, visual_tokens=visual_tokens))


def tokens_of(
    sample: Sample, tokenizer: Tokenizer, *, visual_tokens: Sequence[int] | None = None
) -> list[Piece]:
    """Do as `mask_of` does, but keep every token apart.

    Tokens that are only parts of a character stay together.
    """
    ids, labels = format_conversation(sample.conversations, tokenizer)
    media = _name_media(ids, visual_tokens)
    limit = None if sample.fit is None else sample.fit.max_tokens
    kinds = _kinds(ids, labels, media, limit)
    pieces: list[Piece] = []
    for (kind, is_medium), run in groupby(
        range(len(ids)), key=lambda place: (kinds[place], place in media)
    ):
        places = list(run)
        if is_medium:
            pieces += [Piece(media[place][0], kind, media[place][1]) for place in places]
        else:
            pieces += _decode([ids[place] for place in places], kind, tokenizer)
    return pieces


def _name_media(
    ids: Sequence[int], visual_tokens: Sequence[int] | None
) -> dict[int, tuple[str, int]]:
    """Return text and number of tokens of each medium, by its place among the ids."""
    places = [place for place, token in enumerate(ids) if token in _MEDIA]
    if visual_tokens is not None and len(visual_tokens) != len(places):
        raise ValueError(
            f"the text has {len(places)} placeholder(s) for {len(visual_tokens)} media"
        )
    names = [f"{_MEDIA[ids[place]]} {number}" for number, place in enumerate(places, start=1)]
    if visual_tokens is None:
        return {place: (name, 1) for place, name in zip(places, names, strict=True)}
    return {
        place: (f"{name} ({count} tokens)", count)
        for place, name, count in zip(places, names, visual_tokens, strict=True)
    }


def _kinds(
    ids: Sequence[int],
    labels: Sequence[int],
    media: dict[int, tuple[str, int]],
    limit: int | None,
) -> list[Kind]:
    """Tell the fate of each id; a medium that the limit would halve is cut with what follows."""
    kinds: list[Kind] = []
    length = 0
    for place, label in enumerate(labels):
        length += media[place][1] if place in media else 1
        if limit is not None and length > limit:
            cut: list[Kind] = ["cut"] * (len(ids) - len(kinds))
            return kinds + cut
        if place in media:
            kinds.append("visual")
        else:
            kinds.append("read_only" if label == IGNORE_ID else "supervised")
    return kinds


def _decode(ids: Sequence[int], kind: Kind, tokenizer: Tokenizer) -> Iterator[Piece]:
    decode = tokenizer.backend_tokenizer.decode
    pending: list[int] = []
    for token in ids:
        pending.append(token)
        text = decode(pending, skip_special_tokens=False)
        if not text.endswith(_BROKEN):
            yield Piece(text, kind, len(pending))
            pending = []
    if pending:
        yield Piece(decode(pending, skip_special_tokens=False), kind, len(pending))


def _join(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for kind, run in groupby(pieces, key=lambda piece: piece.kind):
        if kind == "visual":
            joined += run
            continue
        parts = list(run)
        counts = [part.num_tokens for part in parts if part.num_tokens is not None]
        joined.append(
            Piece("".join(part.text for part in parts), kind, sum(counts) if counts else None)
        )
    return joined


def mask_by_turn(sample: Sample) -> list[Piece]:
    r"""Tell what is learned from the turns alone, where there is no tokenizer.

    Right to the character for a conversation that can be encoded, except for the newline that a
    tokenizer may join to the one before it.

    Example:
        >>> from ovis_model.data.schema import Turn
        >>> turns = [Turn(role="human", value="Hi"), Turn(role="gpt", value="Ho")]
        >>> [(p.kind, p.text[-12:]) for p in mask_by_turn(Sample(id="1", conversations=turns))]
        [('read_only', '\n\n</think>\n\n'), ('supervised', 'Ho<|im_end|>')]
    """
    pieces: list[Piece] = []
    num_media = 0
    for turn in sample.conversations:
        is_answer = turn.role == "gpt"
        kind: Kind = "supervised" if is_answer else "read_only"
        role = {"system": "system", "human": "user"}.get(turn.role, "assistant")
        thinks = THINK_OPEN in turn.value and THINK_CLOSE in turn.value
        header = f"{IM_START}{role}\n" + (EMPTY_THINK if is_answer and not thinks else "")
        pieces.append(Piece(header, "read_only"))
        shown = VIDEO_PLACEHOLDER if VIDEO_PLACEHOLDER in turn.value else IMAGE_PLACEHOLDER
        for part in re.split(f"({shown})", turn.value):
            if part == shown:
                num_media += 1
                pieces.append(Piece(f"{shown.strip('<>')} {num_media}", "visual"))
            elif part:
                pieces.append(Piece(part, kind))
        pieces += [Piece(IM_END, kind), Piece("\n", "read_only")]
    if sample.conversations[-1].role == "gpt":
        del pieces[-1]  # after the last answer it is not even read
    return _join(pieces)


def visible(text: str) -> str:
    r"""Write characters that are not seen, or that steer a terminal, as their numbers.

    Example:
        >>> visible("a\x1b[2Jb\u202ec\n")
        'a⟨U+001B⟩[2Jb⟨U+202E⟩c\n'
    """
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
