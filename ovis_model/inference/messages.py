"""Text with placeholders as the chat-template message that gives exactly this prompt."""

from itertools import groupby
from typing import Any

from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

Message = dict[str, Any]

#: How Ovis2.5 was taught to be asked for places.
REQUESTS = {
    "box": "Please provide the bounding box coordinates.",
    "point": "Please provide the point coordinates.",
}

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


def question_message(text: str, *, num_images: int = 0, num_videos: int = 0) -> Message:
    r"""Turn a question and what it shows into a chat-template message.

    Media come before the text, as in training, unless the text says by `<image>` or `<video>`
    on lines of their own where they belong.

    Raises:
        ValueError: If there is no text, or its placeholders do not fit the media.

    Example:
        >>> question_message("Why?")["content"]
        [{'type': 'text', 'text': 'Why?'}]
    """
    if not text.strip():
        raise ValueError("the prompt is empty; ask something")
    shown = {"image": num_images, "video": num_videos}
    if not any(placeholder in text for placeholder in _PART_TYPES):
        parts = [{"type": kind} for kind, count in shown.items() for _ in range(count)]
        return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
    message = user_message(text)
    types = [part["type"] for part in message["content"]]
    for kind, count in shown.items():
        if types.count(kind) != count:
            raise ValueError(
                f"the prompt has {types.count(kind)} <{kind}> placeholder(s) for {count} "
                f"{kind}(s); write one per {kind}, or none at all to put them before the text"
            )
    return message


def system_message(text: str) -> Message:
    """Turn an instruction for the whole conversation into a chat-template message.

    Raises:
        ValueError: If it holds a placeholder: a system message shows nothing.
    """
    for placeholder in _PART_TYPES:
        if placeholder in text:
            raise ValueError(f"the system message cannot show anything; remove {placeholder}")
    return {"role": "system", "content": text}


def grounding_prompt(text: str, request_type: str) -> str:
    """Write a request for boxes or points in the words Ovis2.5 was taught.

    Raises:
        ValueError: If there is nothing to find, or the request type is unknown.

    Example:
        >>> grounding_prompt("Find the <ref>red apple</ref>", "point")
        'Find the <ref>red apple</ref>. Please provide the point coordinates.'
    """
    if request_type not in REQUESTS:
        raise ValueError(f"request_type is one of {', '.join(REQUESTS)}, not {request_type!r}")
    wanted = text.strip()
    if not wanted:
        raise ValueError("grounding needs a prompt that says what to find")
    if not wanted.endswith("."):
        wanted += "."
    return f"{wanted} {REQUESTS[request_type]}"


def _without_placeholder(text: str) -> str:
    for placeholder in _PART_TYPES:
        if placeholder in text:
            raise ValueError(f"{placeholder} must be a line of its own, it is not in {text!r}")
    return text
