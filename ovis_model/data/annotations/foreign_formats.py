"""Every format by name: how it is recognised, and what turns its records into the seed's layout.

ovis             {"id", "image" | "video" | "video_frames", "conversations": [{"from", "value"}]}
sharegpt, llava  the same with other names for who speaks; or pairs,
                 {"conversation": [{"human", "assistant"}]}
openai           {"messages": [{"role", "content"}]}, the content a text, or parts with paths
ms_swift         {"messages", "images", "videos", "objects"}; {"query", "response", "history"}
llama_factory    either list of turns with "images", "videos" and "system"; or
                 {"instruction", "input", "output", "history"}
caption          {"image", "caption"}
coco_captions    COCO's {"images": [...], "annotations": [{"image_id", "caption"}]}
refcoco          {"image", "sentences", "bbox", "width", "height"}, and other spellings
datainfo         the official index of several files, see `ovis_model.data.sources`
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ovis_model.data.annotations.foreign_chat import MEDIA_KEYS, Context, Converted, convert_chat
from ovis_model.data.annotations.foreign_pictures import (
    from_caption,
    from_coco_caption,
    from_refcoco,
)
from ovis_model.data.schema import ROLES
from ovis_model.errors import DataError

Converter = Callable[[Mapping[str, Any], Context], list[Converted]]

_PLAIN_ROLES = frozenset(ROLES)
#: Keys that make a record more than a canonical sample, even where its turns are plain.
_MORE_THAN_CANONICAL = frozenset(
    {*MEDIA_KEYS, "system", "start", "end", "objects"} - {"image", "video"}
)
_LISTS_BESIDE_MESSAGES = ("images", "videos", "audios", "objects")
_READABLE_TURN = frozenset({"from", "value", "loss"})


def is_canonical(value: Any) -> bool:
    """Tell whether a record can be passed on as it is; asked of every one, so written for speed.

    True promises that its turns have canonical roles and that no key of another format is there,
    not that it is a sample.
    """
    if type(value) is not dict or not _MORE_THAN_CANONICAL.isdisjoint(value):
        return False
    turns = value.get("conversations")
    if type(turns) is not list:
        return False
    for turn in turns:
        if type(turn) is not dict or len(turn) != 2 or "value" not in turn:
            return False
        role = turn.get("from")
        if type(role) is not str or role not in _PLAIN_ROLES:
            return False
    return True


def from_ovis(value: Mapping[str, Any], context: Context) -> list[Converted]:
    """Read the seed's and the official layout."""
    if not _are_readable(value.get("conversations")):
        return [Converted(value)]  # the schema says best what is wrong with it
    return from_conversations(value, context)


def _are_readable(turns: Any) -> bool:
    return isinstance(turns, list) and all(
        isinstance(turn, dict)
        and isinstance(turn.get("from"), str)
        and isinstance(turn.get("value"), str)
        and turn.keys() <= _READABLE_TURN
        for turn in turns
    )


def from_conversations(value: Mapping[str, Any], context: Context) -> list[Converted]:
    """Read ShareGPT, LLaVA, and ms-swift's pairs under `conversation`."""
    if "conversation" not in value or "conversations" in value:
        turns = _list_under(value, "conversations")
        return convert_chat(value, turns, context, read=["conversations"])
    pairs = _list_under(value, "conversation")
    if not all(
        isinstance(pair, Mapping) and pair.keys() == {"human", "assistant"} for pair in pairs
    ):
        raise DataError('\'conversation\' is not a list of {"human", "assistant"}')
    turns = [
        {"from": role, "value": pair[role]} for pair in pairs for role in ("human", "assistant")
    ]
    return convert_chat(value, turns, context, read=["conversation"])


def from_messages(value: Mapping[str, Any], context: Context) -> list[Converted]:
    """Read OpenAI's messages, and the lists of media beside them."""
    turns = _list_under(value, "messages")
    return convert_chat(value, turns, context, read=["messages"])


def from_instructions(value: Mapping[str, Any], context: Context) -> list[Converted]:
    """Read Alpaca's instructions with an output, and queries with a response."""
    asked = [key for key in ("instruction", "query", "input") if value.get(key)]
    answer = next((key for key in ("output", "response") if key in value), None)
    if not asked or answer is None:
        raise DataError("there is no 'instruction' with 'output', nor 'query' with 'response'")
    if not all(isinstance(value[key], str) for key in asked):
        raise DataError(f"{' and '.join(map(repr, asked))} should be texts")
    history = value.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in history
    ):
        raise DataError("'history' is not a list of [question, answer]")
    pairs = [*history, ["\n".join(value[key] for key in asked), value[answer]]]
    roles = ("human", "gpt")
    turns = [
        {"from": role, "value": text}
        for pair in pairs
        for role, text in zip(roles, pair, strict=True)
    ]
    return convert_chat(value, turns, context, read=[*asked, "input", answer, "history"])


def _from_any_chat(value: Mapping[str, Any], context: Context) -> list[Converted]:
    if "messages" in value:
        return from_messages(value, context)
    if "conversations" in value or "conversation" in value:
        return from_conversations(value, context)
    return from_instructions(value, context)


def _list_under(value: Mapping[str, Any], key: str) -> list[Any]:
    turns = value.get(key)
    if not isinstance(turns, list):
        what = "is missing" if turns is None else f"is a {type(turns).__name__}, not a list"
        raise DataError(f"{key!r} {what}")
    return turns


CONVERTERS: dict[str, Converter] = {
    "ovis": from_ovis,
    "sharegpt": from_conversations,
    "llava": from_conversations,
    "openai": from_messages,
    "ms_swift": _from_any_chat,
    "llama_factory": _from_any_chat,
    "caption": from_caption,
    "coco_captions": from_coco_caption,
    "refcoco": from_refcoco,
}
#: What `validate.format` may be.
FORMATS = ("auto", *CONVERTERS, "datainfo")


def detect_format(value: Any) -> str | None:
    """Tell a record's format by its keys, or None if they are nobody's.

    Example:
        >>> detect_format({"messages": [], "images": ["a.png"]})
        'ms_swift'
    """
    if not isinstance(value, Mapping):
        return None
    for is_of, name in _SIGNS:
        if is_of(value):
            return name
    return None


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda value: all(key in value for key in keys)


def _has_pairs(value: Mapping[str, Any]) -> bool:
    pairs = value.get("conversation")
    return isinstance(pairs, list) and any(isinstance(p, Mapping) and "human" in p for p in pairs)


def _has_speaking_roles(value: Mapping[str, Any]) -> bool:
    turns = value.get("conversations")
    return isinstance(turns, list) and any(isinstance(t, Mapping) and "role" in t for t in turns)


#: In this order: the first that applies.
_SIGNS: tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...] = (
    (_has_speaking_roles, "sharegpt"),
    (lambda v: "conversations" in v and ("images" in v or "videos" in v), "llama_factory"),
    (_has("conversations"), "ovis"),
    (_has_pairs, "sharegpt"),
    (lambda v: "messages" in v and any(k in v for k in _LISTS_BESIDE_MESSAGES), "ms_swift"),
    (_has("messages"), "openai"),
    (_has("instruction", "output"), "llama_factory"),
    (_has("query", "response"), "ms_swift"),
    (_has("bbox"), "refcoco"),
    (_has("image_id", "caption"), "coco_captions"),
    (_has("image", "caption"), "caption"),
)


def most_common_format(values: Iterable[Any]) -> str:
    """Tell the format of a file by its first records; "ovis" if none is recognised.

    One format for all: a record that lost a key must not be taken for one of another format.
    """
    counts = Counter(name for value in values if (name := detect_format(value)) is not None)
    return max(counts, key=counts.__getitem__, default="ovis")
