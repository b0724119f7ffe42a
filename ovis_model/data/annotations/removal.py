"""Annotation files without one sample: what the raw data becomes when something must be forgotten.

JSON lines keep every other byte.  A JSON document is written anew, one record per line, with the
same values.  Both may be gzipped.  Other encodings are not rewritten in place: convert them first.
"""

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.data.annotations import json_text
from ovis_model.data.annotations.files import (
    Record,
    are_turns,
    is_json_lines,
    open_bytes,
)
from ovis_model.data.annotations.parquet_files import is_parquet, read_rows
from ovis_model.errors import DataError


@dataclass(frozen=True)
class Removal:
    """A file as it will be without some records; nothing is written before `apply`.

    Attributes:
        path: The annotation file.
        records: What will be gone.
        content: The bytes of the new file.
    """

    path: Path
    records: Sequence[Any]
    content: bytes

    def apply(self) -> None:
        """Put the new file in the old one's place, whole.

        A link to elsewhere is replaced, so a copy in a cache keeps its bytes.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as file:
            file.write(self.content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def find_removal(path: Path, sample_id: str) -> Removal | None:
    """Work out a file without the records that have an id; None if it has none of them.

    Raises:
        DataError: If the file cannot be rewritten without losing something else.
    """
    if is_parquet(path):
        if all(Record("", row).id != sample_id for row, _ in read_rows(path)):
            return None
        raise DataError(
            f"{path} is Parquet, which is not rewritten; `ovis data convert {path} "
            f"{path.with_suffix('.jsonl').name}` first, and name that in params.yaml"
        )
    removed: list[Any] = []
    if is_json_lines(path):
        content = b"".join(_other_lines(path, sample_id, removed))
    else:
        content = _other_entries(path, sample_id, removed)
    if not removed:
        return None
    with open_bytes(path) as file:
        is_gzip = isinstance(getattr(file, "raw", None), gzip.GzipFile)
    return Removal(path, removed, gzip.compress(content, mtime=0) if is_gzip else content)


def _other_lines(path: Path, sample_id: str, removed: list[Any]) -> Iterator[bytes]:
    """Pass on the lines of all other samples, also those that cannot be read."""
    with open_bytes(path) as file:
        for line in file:
            value = _decode(line)
            if Record("", value).id == sample_id:
                removed.append(value)
            else:
                yield line


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return None


def _other_entries(path: Path, sample_id: str, removed: list[Any]) -> bytes:
    with open_bytes(path) as file:
        data = file.read()
    try:
        document, is_clean = json_text.decode_document(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    is_seed = isinstance(document, dict) and not are_turns(document.get("conversations"))
    entries = document.get("conversations") if is_seed else document
    if not isinstance(entries, list) or (is_seed and len(document) > 1):
        raise DataError(
            f"{path} is neither a list of samples nor the seed's file; `ovis data convert` it to "
            ".jsonl first, and name that in params.yaml"
        )
    matches = [Record("", entry).id == sample_id for entry in entries]
    removed += [entry for entry, is_it in zip(entries, matches, strict=True) if is_it]
    if removed and not is_clean:
        raise DataError(
            f"{path} has repeated keys or values that JSON does not know; `ovis validate` names "
            "them: put them right first, or they would be lost"
        )
    kept = [entry for entry, is_it in zip(entries, matches, strict=True) if not is_it]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in kept)
    begin, end = ('{"conversations": [', "]}") if is_seed else ("[", "]")
    return f"{begin}\n{lines}\n{end}\n".encode()
