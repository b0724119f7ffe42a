"""The annotation files people have: four shapes in, one stream of raw records out.

    {"conversations": [sample, ...]}     the seed's file
    [sample, ...]                        a bare list
    sample                               one object alone
    sample NEWLINE sample NEWLINE ...    JSON lines; read one line at a time

A file that is none of these is an error.  A single record that is broken is not: it comes out
with its `problem`, so that validation can report all of them at once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ovis_model.data.schema import Sample, parse_sample
from ovis_model.errors import DataError

#: Prefix of an id made for a sample that came without one.
GENERATED_ID_PREFIX = "auto-"
#: Marks, in decoded JSON, an object that gave a key twice: JSON itself would keep the last.
_DUPLICATES = "\0duplicates"
#: JSONDecodeError and UnicodeDecodeError are ValueErrors; absurdly deep nesting is the other.
_NOT_JSON = (ValueError, RecursionError)


@dataclass(frozen=True)
class Record:
    """One entry of an annotation file, before anyone knows whether it is a sample.

    Attributes:
        place: Where it stands in the file, for people: "line 3" or "entry 3".
        value: The decoded JSON, or None if it could not be decoded.
        problem: Why it could not be decoded, or None.
    """

    place: str
    value: Any
    problem: str | None = None

    @property
    def id(self) -> str:
        """The id the record gives itself, or one made from its content.

        Made from content, not from position, so that inserting a sample renames no other.
        """
        given = self.value.get("id") if isinstance(self.value, Mapping) else None
        if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
            # A lone surrogate could be neither printed nor written.
            return str(given).encode("utf-8", "backslashreplace").decode("utf-8")
        content = json.dumps(self.value if self.problem is None else self.place, sort_keys=True)
        return GENERATED_ID_PREFIX + hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def has_generated_id(self) -> bool:
        """Whether the file gives this record no id (an unusable id is not a missing one)."""
        return not isinstance(self.value, Mapping) or self.value.get("id") is None

    def parse(self) -> Sample:
        """Turn the record into a sample.

        Raises:
            DataError: If it is not one; the message says what is wrong inside it.
        """
        if self.problem is not None:
            raise DataError(self.problem)
        repeated = _repeated_keys(self.value)
        if repeated:
            raise DataError(f"the key {repeated[0]!r} is given twice in one object")
        value = self.value
        if isinstance(value, Mapping) and value.get("id") is None:
            value = {**value, "id": self.id}
        return parse_sample(value)


def read_records(path: Path) -> Iterator[Record]:
    """Read an annotation file of any of the four shapes.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, not JSON or holds no samples.
    """
    if not path.is_file():
        raise DataError(
            f"annotations file {path} is missing; set validate.raw_data and "
            "validate.annotations in params.yaml to where your annotations are"
        )
    records = _read_json_lines(path) if _is_json_lines(path) else _read_json(path)
    found_any = False
    for record in records:
        found_any = True
        yield record
    if not found_any:
        raise DataError(f"{path} holds no samples; expected {_SHAPES}")


_SHAPES = 'the seed\'s {"conversations": [...]}, a list of samples, or one sample per line'


def _is_json_lines(path: Path) -> bool:
    """Tell JSON lines from one JSON document: the first line is a whole object, and not alone."""
    if path.suffix == ".jsonl":
        return True
    with path.open("rb") as file:
        first = file.readline()
        rest = any(line.strip() for line in file)
    try:
        return isinstance(_decode(first.decode("utf-8-sig")), dict) and rest
    except _NOT_JSON:
        return False


def _read_json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                yield Record(place, _decode(line.decode("utf-8-sig" if number == 1 else "utf-8")))
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
                yield Record(place, None, problem=f"{place} is not JSON: {error}")


def _read_json(path: Path) -> Iterator[Record]:
    try:
        document = _decode(path.read_text(encoding="utf-8-sig"))
    except _NOT_JSON as error:
        size = path.stat().st_size
        what = "is empty" if size == 0 else f"({size} bytes) is not JSON: {error}"
        raise DataError(f"{path} {what}; expected {_SHAPES}") from error
    for number, value in enumerate(_entries(document, path), start=1):
        yield Record(f"entry {number}", value)


def _entries(document: Any, path: Path) -> list[Any]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or not isinstance(document.get("conversations"), list):
        keys = f" with the keys {sorted(document)[:5]}" if isinstance(document, dict) else ""
        raise DataError(
            f"{path} holds a {type(document).__name__}{keys} at the top; expected {_SHAPES}"
        )
    inner = document["conversations"]
    # A sample has `conversations` too: there it holds turns, in the seed's file samples.
    is_sample = "id" in document or any(isinstance(e, dict) and "from" in e for e in inner)
    return [document] if is_sample else inner


def _decode(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        value[_DUPLICATES] = sorted({key for key in keys if keys.count(key) > 1})
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _repeated_keys(value: Any) -> list[str]:
    """List keys given twice in the record or in one of its turns."""
    if not isinstance(value, Mapping):
        return []
    turns = value.get("conversations")
    objects = [value, *(turns if isinstance(turns, list) else [])]
    return [key for o in objects if isinstance(o, dict) for key in o.get(_DUPLICATES, [])]
