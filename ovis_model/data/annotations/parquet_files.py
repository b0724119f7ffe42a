"""Annotations in Parquet: a table with one row per record, read batch by batch.

A column has one type, so a table cannot hold everything that JSON can: `image` is a list,
`video` one file and `video_frames` a list of frames.  What is null in a row is not there.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ovis_model.errors import DataError

#: Rows decoded together, and rows written together.
BATCH_ROWS = 1024
_ROW_GROUP_ROWS = 8192
_MAGIC = b"PAR1"
_TEXT = pa.string()

#: The canonical sample as a table; what nobody names here is not written.
SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("image", pa.list_(_TEXT)),
        ("video", _TEXT),
        ("video_frames", pa.list_(_TEXT)),
        ("video_start", pa.float64()),
        ("video_end", pa.float64()),
        ("conversations", pa.list_(pa.struct([("from", _TEXT), ("value", _TEXT)]))),
        ("source", _TEXT),
        (
            "fit",
            pa.struct([(key, pa.int64()) for key in ("max_pixels", "max_frames", "max_tokens")]),
        ),
    ]
)


def is_parquet(path: Path) -> bool:
    """Tell by the first bytes."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Read the rows as JSON values, each with what JSON has no value for, in words.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            may_hold_bytes = any("binary" in str(column.type) for column in file.schema_arrow)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row, problem in _decode(batch):
                    if problem is None and may_hold_bytes:
                        problem = _find_bytes(row)  # noqa: PLW2901
                    yield _plain(row), problem
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as Parquet ({reason}); copy it again") from error


def _decode(batch: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Turn a batch into Python values; a text that is no UTF-8 costs its row alone."""
    try:
        for row in batch.to_pylist():
            yield row, None
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0], None
            except UnicodeDecodeError as error:
                yield {}, f"a text is not UTF-8: {error}"


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows of `SCHEMA`, some thousands at a time, and return how many there were."""
    rows, count = iter(rows), 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(rows, _ROW_GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
            count += len(batch)
    return count


def _find_bytes(row: Mapping[str, Any]) -> str | None:
    for column, cell in row.items():
        if _holds_bytes(cell):
            return (
                f"column {column!r} holds bytes; write the media to files below the raw data "
                "and give their paths"
            )
    return None


def _plain(cell: Any) -> Any:
    """Drop what is null, and replace what no JSON file could hold."""
    if isinstance(cell, str | int | float):
        return cell
    if isinstance(cell, Mapping):
        return {str(key): _plain(part) for key, part in cell.items() if part is not None}
    if isinstance(cell, list | tuple):
        return [_plain(part) for part in cell]
    return None if cell is None else str(cell)  # bytes, dates, decimals


def _holds_bytes(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return any(map(_holds_bytes, cell.values()))
    if isinstance(cell, list | tuple):
        return any(map(_holds_bytes, cell))
    return isinstance(cell, bytes)
