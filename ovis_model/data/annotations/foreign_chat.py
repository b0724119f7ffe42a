"""Conversations of other programs, turned into the seed's layout.

What they agree on is a list of turns and lists of media; they differ in how turns spell who
speaks, in whether media stand in the text as `<image>` or as parts of a message, and in the names
of the lists.  Words, their order and the order of the media stay as they are.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ovis_model import tokens
from ovis_model.data.annotations.coordinates import (
    Size,
    SizeOf,
    convert_coordinates,
    has_marks,
    needs_size,
)
from ovis_model.data.annotations.foreign_objects import fill_in_objects, has_openings
from ovis_model.data.schema import ROLES
from ovis_model.errors import DataError

#: Who speaks, by the names other programs give them.
ROLES_READ_AS: dict[str, str] = {
    **{role: role for role in ROLES},
    "user": "human",
    "prompter": "human",
    "assistant": "gpt",
    "chatgpt": "gpt",
    "bing": "gpt",
    "bard": "gpt",
    "model": "gpt",
    "bot": "gpt",
    "developer": "system",
}
#: Keys of a record that its turns and media may be under, or that say something about them.
MEDIA_KEYS = ("image", "images", "video", "videos", "video_frames")
_PLACEHOLDERS = {"image": tokens.IMAGE_PLACEHOLDER, "video": tokens.VIDEO_PLACEHOLDER}
_TIMES = ("video_start", "video_end")
_SPEAKER_KEYS, _TEXT_KEYS = ("from", "role"), ("value", "content", "text")
_LOSS_KEYS = ("loss", "weight")
#: Keys of a message that say something a sample has no place for, unless they are empty.
_UNREADABLE = ("tool_calls", "function_call", "audio")
_TURN_KEYS = frozenset((*_SPEAKER_KEYS, *_TEXT_KEYS, *_LOSS_KEYS, *_UNREADABLE, "name"))
#: A path with a scheme: it would be fetched from elsewhere.
ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
#: Parts of a message, by their type; the path is under one of these keys.
_PARTS = {"image": "image", "image_url": "image", "video": "video", "video_url": "video"}
_PATH_KEYS = ("image_url", "video_url", "image", "video", "path", "url")


@dataclass(frozen=True, slots=True)
class Context:
    """What a converter may need beside the record.

    Attributes:
        coordinates: How boxes are written in the texts, one of `coordinates.CONVENTIONS`.
        size_of: Tells the size of a picture, or None if nobody can.
    """

    coordinates: str = "ovis"
    size_of: SizeOf | None = None

    def size(self, path: Any) -> Size | None:
        """Return a picture's size, or None if nobody can tell."""
        return self.size_of(path) if self.size_of is not None and isinstance(path, str) else None


@dataclass(slots=True)
class Converted:
    """A record in the seed's layout.

    Attributes:
        value: The record; keys that its format does not know are still there.
        notes: What was mapped or put right, worth counting.
        part: Which of several samples in one record this is, for people; or None.
    """

    value: Any
    notes: tuple[str, ...] = ()
    part: str | None = None


@dataclass(slots=True)
class _Chat:
    """A conversation on its way from one layout to the other."""

    turns: list[tuple[str, str]] = field(default_factory=list)
    media: dict[str, list[Any]] = field(default_factory=lambda: {"image": [], "video": []})
    times: dict[str, Any] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    #: Keys of the record that have been read.
    read: set[str] = field(default_factory=set)


def convert_chat(
    value: Mapping[str, Any], turns: Iterable[Any], context: Context, *, read: Iterable[str]
) -> list[Converted]:
    """Turn a record with the given turns into the seed's layout.

    Args:
        value: The record.
        turns: Its turns, each an object that says who speaks, and what.
        context: How coordinates are written, and who knows sizes.
        read: Keys of the record that the turns were read from.

    Raises:
        DataError: If something in it cannot be read.
    """
    chat = _Chat(read=set(read))
    for number, turn in enumerate(turns, start=1):
        _read_turn(chat, turn, f"turn {number}")
    _read_system(chat, value)
    _read_media_lists(chat, value)
    _read_times(chat, value)
    texts = _convert_texts(chat, value, context)
    if isinstance(value.get("objects"), Mapping) and has_openings(texts):
        texts = fill_in_objects(texts, value["objects"], chat.media["image"], context.size)
        chat.read.add("objects")
    converted = {key: each for key, each in value.items() if key not in chat.read}
    images, videos = chat.media["image"], chat.media["video"]
    if images:
        is_one = len(images) == 1 and isinstance(images[0], str)
        converted["image"] = images[0] if is_one else images
    if videos:
        converted["video"] = videos[0]
    converted.update(chat.times)
    converted["conversations"] = [
        {"from": role, "value": text} for (role, _), text in zip(chat.turns, texts, strict=True)
    ]
    return [Converted(converted, tuple(sorted(chat.notes)))]


def _read_turn(chat: _Chat, turn: Any, where: str) -> None:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where} is a {type(turn).__name__}, not an object")
    role = _read_role(chat, turn, where)
    if role == "gpt" and any(turn.get(key) in (False, 0) for key in _LOSS_KEYS if key in turn):
        role = "ignored_gpt"
        chat.notes.add("answer without loss read as ignored_gpt")
    for key in turn.keys() - _TURN_KEYS:
        chat.notes.add(f"key {key} of a turn ignored")
    for key in _UNREADABLE:
        if turn.get(key):
            raise DataError(f"{where} has {key!r}, which a sample has no place for")
    content = next((turn[key] for key in _TEXT_KEYS if key in turn), None)
    chat.turns.append((role, _read_content(chat, content, where)))


def _read_role(chat: _Chat, turn: Mapping[str, Any], where: str) -> str:
    speaker = next((turn[key] for key in _SPEAKER_KEYS if key in turn), None)
    if not isinstance(speaker, str):
        raise DataError(f"{where} does not say who speaks; expected 'from' or 'role'")
    role = ROLES_READ_AS.get(speaker.lower())
    if role is None:
        known = ", ".join(ROLES_READ_AS)
        raise DataError(f"{where} is spoken by {speaker!r}; known are {known}")
    if role != speaker:
        chat.notes.add(f"role {speaker} read as {role}")
    return role


def _read_content(chat: _Chat, content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"{where}: what is said is a {type(content).__name__}, not text")
    pieces = [_read_part(chat, part, where) for part in content]
    pieces = [piece for piece in pieces if piece]
    last = len(pieces) - 1
    # As the seed writes them: a placeholder ends its line.
    media = _PLACEHOLDERS.values()
    return "".join(
        piece + "\n" if piece in media and index < last else piece
        for index, piece in enumerate(pieces)
    )


def _read_part(chat: _Chat, part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: a part of a message is a {type(part).__name__}")
    kind = part.get("type") or next((k for k in ("text", *_PARTS) if k in part), None)
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    medium = _PARTS.get(kind) if isinstance(kind, str) else None
    if medium is None:
        raise DataError(f"{where}: a part of type {kind!r} is not read; text, image, video are")
    path = next((part[key] for key in _PATH_KEYS if part.get(key) is not None), None)
    path = path.get("url") if isinstance(path, Mapping) else path
    if path is not None:
        for each in path if isinstance(path, list) else [path]:
            _check_path(each, where)
        chat.media[medium].append(path)
    chat.times.update({key: part[key] for key in _TIMES if part.get(key) is not None})
    return _PLACEHOLDERS[medium]


def _check_path(path: Any, where: str) -> None:
    if not isinstance(path, str) or ADDRESS.match(path):
        shown = repr(path)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise DataError(
            f"{where}: {shown} is no path; media must be files below the raw data folder: save "
            "it there and name it by a relative path"
        )


def _read_system(chat: _Chat, value: Mapping[str, Any]) -> None:
    system = value.get("system")
    if "system" not in value or (system is not None and not isinstance(system, str)):
        return  # not a prompt: it stays, and is counted among the keys nobody reads
    chat.read.add("system")
    if not system:
        return
    if any(role == "system" for role, _ in chat.turns):
        chat.notes.add("key system ignored: a turn is the system prompt")
    else:
        chat.turns.insert(0, ("system", system))


def _read_media_lists(chat: _Chat, value: Mapping[str, Any]) -> None:
    chat.read.update(MEDIA_KEYS)
    for kind, keys in (("image", MEDIA_KEYS[:2]), ("video", MEDIA_KEYS[2:])):
        given = [key for key in keys if value.get(key) not in (None, [])]
        if not given:
            continue
        if len(given) > 1 or chat.media[kind]:
            others = " and ".join(map(repr, given[1:])) or "the messages"
            raise DataError(f"{kind}s are under {given[0]!r} and in {others}; keep one of them")
        chat.media[kind] = _as_list(value[given[0]], given[0])
        if given[0] in ("images", "videos"):
            _add_placeholders(chat, kind)
    if len(chat.media["video"]) > 1:
        raise DataError(
            f"there are {len(chat.media['video'])} videos, but a sample has one; split it"
        )


def _as_list(given: Any, key: str) -> list[Any]:
    # A list under `video` or `video_frames` is one video, given as its frames.
    is_one = not isinstance(given, list) or key in ("video", "video_frames")
    return [_path_of(each) for each in ([given] if is_one else given)]


def _path_of(medium: Any) -> Any:
    """Take the path out of {"path": ...}, as libraries of data sets write it."""
    if isinstance(medium, Mapping) and "path" in medium:
        if medium.get("bytes"):
            raise DataError("an image is given as bytes; media must be files, save it as one")
        return medium["path"]
    return medium


def _add_placeholders(chat: _Chat, kind: str) -> None:
    """Put media that no text mentions in front, as the programs that write these lists do."""
    placeholder, count = _PLACEHOLDERS[kind], len(chat.media[kind])
    if any(placeholder in text for _, text in chat.turns):
        return
    for index, (role, text) in enumerate(chat.turns):
        if role == "human":
            chat.turns[index] = (role, f"{placeholder}\n" * count + text)
            chat.notes.add(f"{placeholder} put in front of the first question")
            return


def _read_times(chat: _Chat, value: Mapping[str, Any]) -> None:
    found = {key: value[key] for key in _TIMES if value.get(key) is not None}
    others = {"video_start": value.get("start"), "video_end": value.get("end")}
    is_file = bool(chat.media["video"]) and isinstance(chat.media["video"][0], str)
    if is_file and not found and all(isinstance(s, int | float) for s in others.values()):
        found = others
        chat.read.update(("start", "end"))
        chat.notes.add("start and end read as video_start and video_end")
    chat.read.update(_TIMES)
    chat.times.update(found)


def _convert_texts(chat: _Chat, value: Mapping[str, Any], context: Context) -> list[str]:
    texts = [text for _, text in chat.turns]
    if context.coordinates == "ovis":
        return texts
    size = None
    if needs_size(context.coordinates) and any(map(has_marks, texts)):
        size = _common_size(chat.media["image"], value, context)
    return [convert_coordinates(text, convention=context.coordinates, size=size) for text in texts]


def _common_size(images: list[Any], value: Mapping[str, Any], context: Context) -> Size | None:
    width, height = value.get("width"), value.get("height")
    if len(images) == 1 and isinstance(width, int) and isinstance(height, int):
        return width, height
    sizes = {context.size(path) for path in images}
    if len(sizes) > 1:
        raise DataError(
            f"the text has coordinates in pixels, and its {len(images)} images are of different "
            "sizes; write them as fractions"
        )
    return next(iter(sizes), None)
