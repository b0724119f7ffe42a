"""Parsed samples on disk between two passes, so that a million of them do not fill the memory."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from ovis_model.data.schema import Sample, parse_sample_json


class SampleSpool:
    """Canonical lines by row number, written once in order, then read in any order.

    A row without a sample (its record could not be parsed) holds nothing.
    """

    def __init__(self, path: Path) -> None:
        """Create the file at `path`; leaving the context removes it."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("w+b")
        #: Where each row's line begins, and at last where the next would.
        self._offsets = array("q", [0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, sample: Sample | None) -> bytes:
        """Write the next row and return its line."""
        line = b"" if sample is None else sample.to_json().encode() + b"\n"
        self._file.write(line)
        self._offsets.append(self._offsets[-1] + len(line))
        return line

    def read(self, row: int) -> Sample:
        """Return the sample of a row that holds one."""
        begin, end = self._offsets[row], self._offsets[row + 1]
        self._file.seek(begin)
        return parse_sample_json(self._file.read(end - begin))

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        """Read every row that holds a sample, in order."""
        self._file.flush()
        with self._path.open("rb") as file:
            for row in range(len(self)):
                if size := self._offsets[row + 1] - self._offsets[row]:
                    yield row, parse_sample_json(file.read(size))
