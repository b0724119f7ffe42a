"""A JSONL file of samples as a sequence: opened at once, one line read when it is asked for.

A million samples as objects take gigabytes in every process of a training; where their lines
begin takes eight megabytes.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from pydantic import ValidationError

from ovis_model.data.schema import Sample, parse_sample_json
from ovis_model.errors import DataError

#: Read at once while line ends are looked for.
_BLOCK_BYTES = 1 << 20


class SampleFile(Sequence[Sample]):
    """Canonical JSONL, read by line number; may be used from many threads and processes."""

    def __init__(self, path: Path) -> None:
        """Find where every line begins.

        Raises:
            DataError: If the file is missing.
        """
        self.path = path
        self._descriptor: int | None = None
        try:
            with path.open("rb") as file:
                self._offsets = _line_offsets(file)
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing; `dvc repro` writes it") from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Read one sample, or several.

        Raises:
            DataError: Naming file and line, if a line is not a sample.
            IndexError: Beyond the last line.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has {len(self)} samples, there is no number {index}")
        begin, end = int(self._offsets[number]), int(self._offsets[number + 1])
        # pread: no position that processes forked from this one would share.
        return self._parse(number, os.pread(self._open(), end - begin, begin))

    def __iter__(self) -> Iterator[Sample]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                yield self._parse(number, line)

    def _parse(self, number: int, line: bytes) -> Sample:
        try:
            return parse_sample_json(line)
        except ValidationError as error:
            raise DataError(
                f"{self.path}, line {number + 1}: {error.errors()[0]['msg']}. The pipeline writes "
                "this file: run `dvc repro` to write it anew"
            ) from error

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}


def _line_offsets(file: Any) -> np.ndarray:
    """Return where each line begins and, at last, where the file ends."""
    ends = [np.zeros(1, dtype=np.int64)]
    position = 0
    last = b"\n"
    while block := file.read(_BLOCK_BYTES):
        ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position + 1)
        position += len(block)
        last = block[-1:]
    if last != b"\n":
        ends.append(np.array([position], dtype=np.int64))
    return np.concatenate(ends)
