"""Text with placeholders as the chat-template message that gives exactly this prompt."""

from itertools import groupby
from typing import Any

from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

Message = dict[str, Any]

_PART_TYPES = {IMAGE_PLACEHOLDER: "image", VIDEO_PLACEHOLDER: "video"}


def user_message(text: str) -> Message:
    r"""Turn text with `<image>` and `<video>` placeholders into a chat-template message.

    The template joins parts with line breaks and deletes placeholders inside text, so a
    placeholder has to be a line of its own: then the prompt is the text, letter by letter.

    Raises:
        ValueError: If a placeholder shares its line with text.

    Example:
        >>> user_message("<image>\nWhich digit is this?")["content"]
        [{'type': 'image'}, {'type': 'text', 'text': 'Which digit is this?'}]
    """
    parts: list[dict[str, str]] = []
    for is_text, lines in groupby(text.split("\n"), key=lambda line: line not in _PART_TYPES):
        if is_text:
            parts.append({"type": "text", "text": _without_placeholder("\n".join(lines))})
        else:
            parts += [{"type": _PART_TYPES[line]} for line in lines]
    return {"role": "user", "content": parts}


def _without_placeholder(text: str) -> str:
    for placeholder in _PART_TYPES:
        if placeholder in text:
            raise ValueError(f"{placeholder} must be a line of its own, it is not in {text!r}")
    return text
