"""From the bytes of an annotation file to raw records, whatever encoding the file has.

    {"conversations": [record, ...]}         the seed's file
    [record, ...]                            a bare list
    record                                   one object alone
    {"images": [...], "annotations": [...]}  COCO's two tables, joined to one record per annotation
    record NEWLINE record NEWLINE ...        JSON lines; read one line at a time
    any of these through gzip
    Parquet                                  read batch by batch

What a file is, is told from its content, not from its name.  A file that is none of these is an
error.  A single record that is broken is not: it comes out with its `problem`, so that validation
can report all of them at once.
"""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from ovis_model.data.annotations import json_text
from ovis_model.data.annotations.parquet_files import is_parquet, read_rows
from ovis_model.data.schema import Sample, parse_sample
from ovis_model.errors import DataError

#: Prefix of an id made for a sample that came without one.
GENERATED_ID_PREFIX = "auto-"
#: A longer line is no sample, and must not be held in memory to find that out.
MAX_LINE_BYTES = 16 * 2**20
#: A JSON document is decoded whole, at several times its size in memory.
MAX_DOCUMENT_BYTES = 2 * 2**30
SHAPES = 'the seed\'s {"conversations": [...]}, a list of samples, or one sample per line'

_GZIP_MAGIC = b"\x1f\x8b"
#: What gzip raises on damaged files; BadGzipFile is an OSError.
_DAMAGED = (EOFError, OSError, zlib.error)
_BOM = b"\xef\xbb\xbf"
#: A single object with one of these is a record: the seed's file has none of them at its top.
_KEYS_OF_A_RECORD = frozenset(
    {"id", "messages", "conversation", "instruction", "query", "caption", "bbox"}
)


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an annotation file, before anyone knows whether it is a sample.

    Attributes:
        place: Where it stands, for people: "line 3", "entry 3", "row 3"; with the file's name
            before it where there are several files.
        value: The decoded record, or None if it could not be decoded.
        problem: Why it cannot be read, or None.
        code: What kind of a reason that is, see `ovis_model.data.reasons`: "not_json" or "schema".
        notes: What was put right while reading, worth counting.
        source: Which set of annotations it is of, where there are several.
    """

    place: str
    value: Any
    problem: str | None = None
    code: str = "schema"
    notes: tuple[str, ...] = ()
    source: str | None = None

    @property
    def id(self) -> str:
        """The id the record gives itself, or one made from its content.

        Made from content, not from position, so that inserting a sample renames no other.
        """
        given = self.value.get("id") if isinstance(self.value, Mapping) else None
        if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
            # A lone surrogate could be neither printed nor written.
            return str(given).encode("utf-8", "backslashreplace").decode("utf-8")
        content = json.dumps(self.place if self.value is None else self.value, sort_keys=True)
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
        value = self.value
        if isinstance(value, Mapping) and value.get("id") is None:
            value = {**value, "id": self.id}
        return parse_sample(value)


def read_raw_records(path: Path) -> Iterator[Record]:
    """Read the records of a file as they are written, in whatever format.

    Raises:
        DataError: If the file is missing, empty, damaged, not JSON, or holds no samples.
    """
    if not path.is_file():
        raise DataError(
            f"annotations file {path} is {'a folder' if path.is_dir() else 'missing'}; name an "
            "annotation file; in the pipeline set validate.raw_data and "
            "validate.annotations in params.yaml to where your annotations are"
        )
    found_any = False
    for record in _read(path):
        found_any = True
        yield record
    if not found_any:
        raise DataError(f"{path} holds no samples; expected {SHAPES}")


def _read(path: Path) -> Iterator[Record]:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty; expected {SHAPES}")
        if is_parquet(path):
            return _read_parquet(path)
        return _read_json_lines(path) if is_json_lines(path) else _read_document(path)
    except _DAMAGED as error:
        _blame(path, error)


def _blame(path: Path, error: Exception) -> NoReturn:
    raise DataError(f"{path} cannot be read to its end ({error}); copy the file again") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if it is that."""
    with path.open("rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return io.BufferedReader(gzip.GzipFile(path)) if is_gzip else path.open("rb")


def is_json_lines(path: Path) -> bool:
    """Tell JSON lines from one JSON document: the first line is a whole object, and not alone."""
    if ".jsonl" in path.suffixes or ".ndjson" in path.suffixes:
        return True
    with open_bytes(path) as file:
        first = file.readline(MAX_LINE_BYTES)
        rest = any(line.strip() for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""))
    try:
        value, _ = json_text.decode(first.removeprefix(_BOM))
    except ValueError:
        return False
    return isinstance(value, dict) and rest


def _read_json_lines(path: Path) -> Iterator[Record]:
    try:
        with open_bytes(path) as file:
            for number, line in bounded_lines(file):
                if line is None:
                    problem = f"is longer than {MAX_LINE_BYTES // 2**20} MB; it is no sample"
                    yield Record(f"line {number}", None, f"line {number} {problem}", "not_json")
                elif not line.isspace():
                    yield _decode_line(f"line {number}", line.removeprefix(_BOM))
    except _DAMAGED as error:
        _blame(path, error)


def bounded_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Number the lines from 1; one that is too long comes as None and is never held whole."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield number, None


def _decode_line(place: str, line: bytes) -> Record:
    try:
        value, flaw = json_text.decode(line)
    except ValueError as error:
        return Record(place, None, f"{place} is not JSON: {error}", "not_json")
    return Record(place, value) if flaw is None else _flawed(place, value, flaw)


def _flawed(place: str, value: Any, flaw: json_text.Flaw) -> Record:
    kept = value if flaw.leaves_a_value else None
    return Record(place, kept, flaw.text, "not_json")


def _read_document(path: Path) -> Iterator[Record]:
    with open_bytes(path) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"{path} is one JSON document of more than {MAX_DOCUMENT_BYTES // 2**30} GB, which "
            "would have to be in memory whole; write one sample per line (.jsonl) instead"
        )
    try:
        document, is_clean = json_text.decode_document(data.removeprefix(_BOM))
    except ValueError as error:
        raise DataError(
            f"{path} ({len(data)} bytes) is not JSON: {error}; expected {SHAPES}"
        ) from error
    del data
    return _number(_entries(document, path), is_clean)


def _number(entries: list[Any], is_clean: bool) -> Iterator[Record]:
    for number, value in enumerate(entries, start=1):
        place = f"entry {number}"
        flaw = None if is_clean else json_text.find_flaw(value)
        yield Record(place, value) if flaw is None else _flawed(place, value, flaw)


def _entries(document: Any, path: Path) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, json_text.Repeats):
        raise DataError(f"{path}: {document.text} at its top; keep one of them")
    if isinstance(document, dict):
        if isinstance(document.get("annotations"), list) and "images" in document:
            return _join_coco(document, path)
        inner = document.get("conversations")
        # A sample has `conversations` too: there it holds turns, in the seed's file samples.
        if not _KEYS_OF_A_RECORD.isdisjoint(document) or are_turns(inner):
            return [document]
        if isinstance(inner, list):
            return inner
    keys = f" with the keys {sorted(document)[:5]}" if isinstance(document, dict) else ""
    raise DataError(
        f"{path} holds a {type(document).__name__}{keys} at the top; expected {SHAPES}"
    )


def are_turns(value: Any) -> bool:
    """Tell the turns of one conversation from a list of samples."""
    return isinstance(value, list) and any(
        isinstance(entry, dict) and not {"from", "role"}.isdisjoint(entry) for entry in value
    )


def _join_coco(document: dict[str, Any], path: Path) -> list[Any]:
    """Give every annotation the file name and the size of its image."""
    images = document["images"]
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise DataError(f"{path}: 'images' is not a list of objects, as COCO's files have it")
    by_id = {str(image.get("id")): image for image in images}
    entries: list[Any] = []
    for annotation in document["annotations"]:
        if isinstance(annotation, dict):
            image = by_id.get(str(annotation.get("image_id")), {})
            shared = {k: image[k] for k in ("file_name", "width", "height") if k in image}
            entries.append({**shared, **annotation})
        else:
            entries.append(annotation)
    return entries


def _read_parquet(path: Path) -> Iterator[Record]:
    for number, (row, problem) in enumerate(read_rows(path), start=1):
        place = f"row {number}"
        yield Record(place, row, problem)
