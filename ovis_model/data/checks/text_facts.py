"""What a turn's text holds that it should not: one finding per kind, judged by nobody here."""

import re
import sys
from typing import Any

from ovis_model import tokens
from ovis_model.data.schema import Sample, Turn

#: Tokens that steer the model; inside a text they would end a turn or fake another one.
CONTROL_TOKENS = tuple(token for token, hidden in tokens.ADDED_TOKENS if hidden)
#: Longer than any word of a language; an encoded file is one such word.
MAX_WORD_CHARS = 1000

_CONTROL_TOKEN = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
#: C0 but tab, line feed and carriage return; DEL; halves of surrogate pairs.
_CONTROL_CHARACTER = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
#: Zero width, soft hyphen, byte order mark; marks, overrides and isolates of direction.  Not the
#: joiners, which Persian and emoji are written with.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_HUGE_WORD = re.compile(rf"\S{{{MAX_WORD_CHARS + 1},}}")
_PLACEHOLDER = re.compile(f"{tokens.IMAGE_PLACEHOLDER}|{tokens.VIDEO_PLACEHOLDER}")
_THINK_TAG = re.compile(f"{tokens.THINK_OPEN}|{tokens.THINK_CLOSE}")
_GROUNDING = re.compile(r"<(box|point)>(.*?)</\1>", re.DOTALL)
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
_POINT = rf"\({_NUMBER},{_NUMBER}\)"
_COORDINATES = {
    "point": re.compile(rf"\s*{_POINT}\s*"),
    "box": re.compile(rf"\s*{_POINT}\s*,\s*{_POINT}\s*"),
}

#: Columns of the table of turns beside row, id and turn.
TURN_COLUMNS = (
    "role",
    "num_chars",
    "num_stray_placeholders",
    "think_problem",
    "control_token",
    "control_character",
    "invisible_character",
    "huge_word",
    "grounding_problem",
)


def turn_facts(turn: Turn) -> tuple[Any, ...]:
    """Return the values of `TURN_COLUMNS` for one turn.

    Text of ordinary letters passes a few searches that find nothing; that is what most turns
    cost.
    """
    text = turn.value
    # ASCII cannot hold what these look for.
    invisible = None if text.isascii() else _found(_INVISIBLE, text)
    has_tags = "<" in text
    return (
        sys.intern(turn.role),
        _count_chars(turn),
        len(_PLACEHOLDER.findall(text)) if has_tags and turn.role != "human" else 0,
        think_problem(turn) if has_tags else None,
        _first_match(_CONTROL_TOKEN, text) if has_tags else None,
        None if text.isprintable() else _found(_CONTROL_CHARACTER, text),
        invisible,
        _huge_word(text) if len(text) > MAX_WORD_CHARS else None,
        grounding_problem(turn) if has_tags else None,
    )


def count_placeholders(sample: Sample) -> tuple[int, int]:
    """Count <image> and <video> in the questions."""
    asked = [turn.value for turn in sample.conversations if turn.role == "human"]
    return (
        sum(text.count(tokens.IMAGE_PLACEHOLDER) for text in asked),
        sum(text.count(tokens.VIDEO_PLACEHOLDER) for text in asked),
    )


def kinds_of_media(sample: Sample) -> str:
    """Name what a sample carries: "none", "images", "video" or "images+video"."""
    found = {"images": bool(sample.image), "video": sample.video is not None}
    return "+".join(kind for kind, present in found.items() if present) or "none"


def thoughts(sample: Sample) -> list[str]:
    """Return the text between the think tags of every answer that is learned."""
    return [
        turn.value.partition(tokens.THINK_OPEN)[2].partition(tokens.THINK_CLOSE)[0]
        for turn in sample.conversations
        if turn.role == "gpt" and tokens.THINK_OPEN in turn.value
    ]


def normalised(text: str) -> str:
    r"""Return what of a question identifies it: its words, without case, markup and spacing.

    Example:
        >>> normalised("<image>\nWhich  digit is THIS?")
        'which digit is this'
    """
    words = _PLACEHOLDER.sub(" ", text).casefold()
    return " ".join(re.findall(r"\w+", words))


def _count_chars(turn: Turn) -> int:
    """Count what is left of a turn: for an answer, without its thought."""
    text = turn.value
    if turn.role == "gpt":
        text = text.rpartition(tokens.THINK_CLOSE)[2]
    return len(text.strip())


def think_problem(turn: Turn) -> str | None:
    """Say what is wrong with the think tags of a turn, or None."""
    tags = _THINK_TAG.findall(turn.value)
    if not tags:
        return None
    if turn.role in ("human", "system"):
        return f"{tags[0]} in a {turn.role!r} turn"
    if tags == [tokens.THINK_OPEN]:
        return f"{tokens.THINK_OPEN} is never closed"
    if tags != [tokens.THINK_OPEN, tokens.THINK_CLOSE]:
        return "tags are " + " ".join(tags[:6])
    if not turn.value.lstrip().startswith(tokens.THINK_OPEN):
        return f"text before {tokens.THINK_OPEN}"
    return None


def grounding_problem(turn: Turn) -> str | None:
    """Find a box or point that is not in Ovis2.5's notation; only in answers, which teach it."""
    if turn.role != "gpt":
        return None
    for kind, content in _GROUNDING.findall(turn.value):
        match = _COORDINATES[kind].fullmatch(content)
        values = [float(text) for text in match.groups()] if match else []
        outside = any(value >= 1 for value in values)
        flipped = kind == "box" and values and (values[0] > values[2] or values[1] > values[3])
        if match is None or outside or flipped:
            return f"<{kind}>{content[:60]}</{kind}>"
    return None


def _huge_word(text: str) -> str | None:
    match = _HUGE_WORD.search(text)
    return None if match is None else f"{match.end() - match.start():,} letters without a space"


def _first_match(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else match.group()


def _found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else f"U+{ord(match.group()):04X} at character {match.start()}"


KINDS = (
    *("single_image", "multi_image", "video_file", "video_frames", "text_only"),
    *("with_think", "system_prompt", "multi_turn", "grounding"),
)


def kinds_of_sample(sample: Sample) -> list[str]:
    """Name a sample's one kind of media and every feature of its conversation."""
    if isinstance(sample.video, str):
        media = "video_file"
    elif sample.video:
        media = "video_frames"
    else:
        media = ("text_only", "single_image", "multi_image")[min(len(sample.image), 2)]
    text = "".join(turn.value for turn in sample.conversations)
    roles = [turn.role for turn in sample.conversations]
    features = {
        "with_think": tokens.THINK_OPEN in text,
        "system_prompt": "system" in roles,
        "multi_turn": roles.count("human") > 1,
        "grounding": any(tag in text for tag in ("<box>", "<point>", "<ref>")),
    }
    return [media, *(name for name, present in features.items() if present)]
