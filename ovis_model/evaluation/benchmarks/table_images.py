"""Pictures that a VLMEvalKit table holds as base64, decoded when they are wanted.

A cell holds one picture, a list of them, or at most 64 letters: the index of another row, whose
pictures are meant.  A picture is called by the row that holds it: `17#0` is the first of row 17.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.cells import need_list
from ovis_model.evaluation.benchmarks.table import read_row

#: Longer cells are pictures, others name the row of one.
MAX_INDEX_CHARS = 64
Cell = str | Sequence[str]


@dataclass(frozen=True)
class TableImages:
    """The pictures of a table.

    Attributes:
        path: The table.
        column: The position of the column with the pictures.
        offsets: Where each row begins, in bytes, by its index.
    """

    path: Path
    column: int
    offsets: Mapping[str, int]

    def source(self, name: str) -> bytes:
        """Decode a picture.

        Raises:
            DataError: If there is none of this name, or the cell is not base64.
        """
        index, _, position = name.rpartition("#")
        if index not in self.offsets:
            raise DataError(f"{self.path} holds no picture {name!r}")
        entries = split_cell(read_row(self.path, self.offsets[index])[self.column])
        try:
            return base64.b64decode("".join(entries[int(position)].split()), validate=True)
        except binascii.Error as error:
            raise DataError(
                f"{self.path}, picture {name!r} is not base64: {error}; copy the file again"
            ) from error

    def sha256(self, name: str) -> str:
        """Digest a picture."""
        return hashlib.sha256(self.source(name)).hexdigest()


def split_cell(cell: str) -> list[str]:
    """Return what a cell of pictures holds, [] if it is empty.

    Raises:
        ValueError: If it begins as a list and is none.
    """
    return need_list(cell, "image") if cell.startswith("[") else [cell] * bool(cell)


class ImageCells:
    """Collects, row by row, what the cells of a table show."""

    def __init__(self) -> None:
        """Begin with no row."""
        self.offsets: dict[str, int] = {}
        self._entries: dict[str, list[str | None]] = {}

    def add(self, index: str, cell: str, offset: int) -> None:
        """Remember a row: which of its entries name other rows, not the pictures themselves.

        Raises:
            ValueError: If the cell begins as a list and is none.
        """
        self._entries[index] = [
            entry if len(entry) <= MAX_INDEX_CHARS else None for entry in split_cell(cell)
        ]
        self.offsets[index] = offset

    def names(self, index: str) -> tuple[str, ...]:
        """Return what the pictures of a row are called, once all rows are known.

        Raises:
            ValueError: If a row that is named is missing, or holds no picture itself.
        """
        found: list[str] = []
        for position, other in enumerate(self._entries[index]):
            found += [f"{index}#{position}"] if other is None else self._names_of_other(other)
        return tuple(found)

    def _names_of_other(self, index: str) -> list[str]:
        entries = self._entries.get(index)
        if entries is None:
            raise ValueError(f"the image is that of row {index!r}, and there is no such row")
        if not entries or not all(entry is None for entry in entries):
            raise ValueError(f"the image is that of row {index!r}, which holds none itself")
        return [f"{index}#{position}" for position in range(len(entries))]
