"""JSON as strict as the standard: no key twice, no NaN, no half characters; fast where it can be.

Python's own reader takes all of these in silence; orjson refuses all but repeated keys, at a
fifth of the time.  So orjson reads first, and a count tells whether a key was dropped.  Whatever
it refuses or may have read otherwise is read again, slowly, to say what is wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

#: A sample is four levels deep; orjson writes no more than this, and Python's stack ends at 1,000.
MAX_DEPTH = 254


@dataclass(frozen=True)
class Flaw:
    """Why a record that Python could decode is refused all the same.

    Attributes:
        text: In words.
        leaves_a_value: Whether what was decoded is worth keeping, to find the record's id.
    """

    text: str
    leaves_a_value: bool


class Repeats(dict[str, Any]):
    """An object that gave a key twice; it holds the last, as Python does."""

    key: str = ""

    @property
    def text(self) -> str:
        """Say it in words."""
        return f"the key {self.key!r} is given twice in one object"


class _Constant(str):
    """NaN, Infinity or -Infinity where a value should stand."""

    __slots__ = ()


def decode(data: bytes) -> tuple[Any, Flaw | None]:
    """Decode the JSON of one record.

    Returns:
        The value, and what is wrong with it although it could be decoded.

    Raises:
        ValueError: If it is not JSON; the message says where.
    """
    try:
        value = orjson.loads(data)
        if _is_whole(value, data):
            return value, None
    except (ValueError, TypeError):  # TypeError: nested too deep for `orjson.dumps`
        pass
    value = _decode_slowly(data)
    return value, find_flaw(value)


def decode_document(data: bytes) -> tuple[Any, bool]:
    """Decode the JSON of many records.

    Returns:
        The value, and whether every record in it is known to be free of flaws; if not,
        `find_flaw` tells for each.

    Raises:
        ValueError: If it is not JSON; the message says at which byte.
    """
    try:
        value = orjson.loads(data)
        if (
            not _hides_colons(data)
            and not _has_rounded_id(value)
            and _count_colons(value) == data.count(b":")
        ):
            return value, True
    except (ValueError, TypeError):
        pass
    return _decode_slowly(data), False


def _has_rounded_id(document: Any) -> bool:
    entries = document.get("conversations") if isinstance(document, dict) else document
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and isinstance(entry.get("id"), float) for entry in entries
    )


def _is_whole(value: Any, data: bytes) -> bool:
    """Tell whether nothing was dropped or rounded, so that the slow reader is not needed.

    Every key brings a colon, and orjson writes all texts as they are: so where a key was dropped,
    what is written again has fewer colons.  Integers of more than 64 bits become floats, which
    is noticed at the top of a record, where ids stand.
    """
    if isinstance(value, dict) and float in map(type, value.values()):
        return False
    return not _hides_colons(data) and orjson.dumps(value).count(b":") == data.count(b":")


def _hides_colons(data: bytes) -> bool:
    """Tell whether a colon is written as an escape, which a count of colons would miss."""
    # Most texts have no escapes of this kind at all, and one search is faster than two.
    return b"\\u003" in data and (b"\\u003a" in data or b"\\u003A" in data)


def _count_colons(document: Any) -> int:
    """Count them record by record: a document written again whole would double the memory."""
    if isinstance(document, list):
        return sum(orjson.dumps(entry).count(b":") for entry in document)
    if isinstance(document, dict):
        own: int = sum(1 + key.count(":") for key in document)
        return own + sum(
            _count_colons(part) if isinstance(part, list) else orjson.dumps(part).count(b":")
            for part in document.values()
        )
    return 0


def _decode_slowly(data: bytes) -> Any:
    text = data.decode()  # UnicodeDecodeError is a ValueError that names the byte
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_Constant)
    except json.JSONDecodeError as error:
        at_byte = len(text[: error.pos].encode())
        raise ValueError(f"{error} at byte {at_byte}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    keys = [key for key, _ in pairs]
    repeats = Repeats(value)
    repeats.key = min(key for key in value if keys.count(key) > 1)
    return repeats


def find_flaw(value: Any) -> Flaw | None:
    """Search a decoded record for what makes it no JSON of the standard."""
    level, depth = [value], 0
    repeats: Flaw | None = None
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return Flaw(f"it is nested deeper than {MAX_DEPTH} levels", leaves_a_value=False)
        below: list[Any] = []
        for part in level:
            if isinstance(part, _Constant):
                return Flaw(f"{part} is not a JSON value", leaves_a_value=False)
            if isinstance(part, Repeats):
                repeats = repeats or Flaw(part.text, leaves_a_value=True)
            if isinstance(part, str) and not _is_writable(part):
                repeats = repeats or Flaw(
                    "a text holds half a character (a lone surrogate)", leaves_a_value=True
                )
            below.extend(_parts(part))
        level = below
    return repeats


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _is_writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
