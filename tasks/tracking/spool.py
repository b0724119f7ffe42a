"""What a process says of its runs, on this disk until the store has it.

    .mlflow/spool/<when>-<what>-<process>/records.jsonl   append-only, synced record by record
                                          sent.json       how much of it the store has
                                          files/<n>/      copies of what is to be attached

The writer holds a lock on its records for as long as it lives.  Whoever else gets the lock
knows that the writer is dead, and may send what it left.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ovis_model.reports import write_text
from tasks.artifacts import MLFLOW_HOME

SPOOL = MLFLOW_HOME / "spool"
RECORDS, SENT, FILES = "records.jsonl", "sent.json", "files"
#: Records that the store does not take, whatever its state, with its reason.
REFUSED = SPOOL / "refused.jsonl"

Record = dict[str, Any]


class Spool:
    """The records of one process, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._records = self.folder / RECORDS
        self._num_kept = 0
        self._offset = 0
        self.runs: dict[str, str] = {}
        self.reread()

    @classmethod
    def create(cls, what: str) -> Self:
        """Begin a folder of records."""
        folder = SPOOL / f"{time.time_ns():020d}-{what}-{os.getpid()}"
        folder.mkdir(parents=True)
        (folder / RECORDS).touch()
        return cls(folder)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Try to hold the lock; yields whether it is held."""
        try:
            file = self._records.open("rb")
        except FileNotFoundError:  # sent and removed by another process just now
            yield False
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                # Another process may have removed it between open and lock.
                yield self._records.exists()

    def append(self, record: Record) -> None:
        """Write one record down; it is on the disk when this returns."""
        line = json.dumps({**record, "at": time.time_ns() // 1_000_000}) + "\n"
        with self._records.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def keep(self, path: Path) -> str:
        """Copy a file or a folder, to be sent later; returns its place below `folder`."""
        self._num_kept += 1
        place = Path(FILES) / f"{time.time_ns()}-{self._num_kept}" / path.name
        target = self.folder / place
        target.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copy(path, target)
        return place.as_posix()

    def pending(self) -> Iterator[tuple[int, Record]]:
        """Yield each complete record that was not sent yet, with where it ends in the file."""
        end = self._offset
        with self._records.open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or torn by the end of its writer
                end += len(line)
                yield end, json.loads(line)

    def all(self) -> Iterator[Record]:
        """Yield every complete record, sent or not."""
        for line in self._records.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)

    def count(self) -> int:
        """Return how many records wait."""
        return sum(1 for _ in self.pending())

    def mark_sent(self, end: int) -> None:
        """Remember that the store has everything up to here, and the ids it gave to runs."""
        self._offset = end
        write_text(self.folder / SENT, json.dumps({"offset": end, "runs": self.runs}) + "\n")

    def reread(self) -> None:
        """Read how much was sent."""
        if (self.folder / SENT).is_file():
            sent = json.loads((self.folder / SENT).read_text(encoding="utf-8"))
            self._offset, self.runs = sent["offset"], sent["runs"]

    def remove(self) -> None:
        """Forget records that the store has."""
        shutil.rmtree(self.folder)


def left_behind() -> list[Spool]:
    """Return what is still here, the oldest first; of some the writer may live."""
    return [Spool(records.parent) for records in sorted(SPOOL.glob(f"*/{RECORDS}"))]


def keep_refused(record: Record, reason: str) -> None:
    """Put a record aside that the store does not take."""
    with REFUSED.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**record, "reason": reason}) + "\n")
