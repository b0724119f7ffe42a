"""Rows of a tab-separated table of any size, and where each of them begins.

Every cell is text: nothing is taken for a number or for missing.  A row is read again by its
place, so pictures inside a table need not be kept in memory.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ovis_model.errors import DataError

#: Largest cell, in letters: several pictures of tens of megabytes in base64.
MAX_CELL_CHARS = 1 << 30


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        line: Where it begins, counted from 1.
        offset: The same in bytes.
        cells: By column.
    """

    line: int
    offset: int
    cells: Mapping[str, str]


class _Lines(Iterator[str]):
    """Decoded lines of a file, one at a time, with the place of the next."""

    def __init__(self, file: BinaryIO, *, line: int = 1) -> None:
        self._file = file
        self.line = line
        self.offset = file.tell()

    def __next__(self) -> str:
        data = self._file.readline()
        if not data:
            raise StopIteration
        self.offset += len(data)
        self.line += 1
        return data.decode("utf-8")


def read_table(path: Path) -> Iterator[Row]:
    """Read a table from its first row with cells.

    Args:
        path: UTF-8, tab-separated; cells with tabs, quotes or line breaks are quoted.

    Raises:
        DataError: Naming file and line, if the table is broken.
    """
    with _open(path) as file:
        lines = _Lines(file)
        columns = _read_record(path, lines)
        if columns is None:
            raise DataError(f"{path} is empty; its first line should name the columns")
        columns[0] = columns[0].removeprefix("\ufeff")
        _check_columns(path, columns)
        while True:
            line, offset = lines.line, lines.offset
            cells = _read_record(path, lines)
            if cells is None:
                return
            if cells:  # a blank line has none
                yield Row(line, offset, _name(path, line, columns, cells))


def read_row(path: Path, offset: int) -> list[str]:
    """Read one row again, as cells in the order of the columns.

    Raises:
        DataError: If it is not there any more.
    """
    with _open(path) as file:
        file.seek(offset)
        cells = _read_record(path, _Lines(file))
    if cells is None:
        raise DataError(f"{path} is shorter than it was when it was first read; start again")
    return cells


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _read_record(path: Path, lines: _Lines) -> list[str] | None:
    # Of the whole process, but larger cells harm nobody.
    csv.field_size_limit(MAX_CELL_CHARS)
    line = lines.line
    try:
        return next(csv.reader(lines, delimiter="\t", strict=True), None)
    except csv.Error as error:
        raise DataError(
            f"{path}, the row that begins in line {line}: {error}; a cell with a quote, a tab or "
            'a line break has to be quoted, and quotes inside it doubled ("")'
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, the row that begins in line {line}: not UTF-8: {error}"
        ) from error


def _check_columns(path: Path, columns: list[str]) -> None:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(f"{path}: more than one column is called {', '.join(map(repr, twice))}")


def _name(path: Path, line: int, columns: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise DataError(
            f"{path}, line {line}: {len(cells)} cells for {len(columns)} columns; is a tab or a "
            "quote in a cell that is not quoted?"
        )
    return dict(zip(columns, cells, strict=True))
