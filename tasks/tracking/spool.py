"""What a process says of its runs, on this disk until the store has it.

    .mlflow/spool/<when>-<what>-<process>/records.jsonl   append-only, synced record by record
                                          sent.json       how much of it the store has
                                          files/<n>/      copies of what is to be attached

The writer holds a lock on its records for as long as it lives.  Whoever else gets the lock
knows that the writer is dead, and may send what it left.
"""

import fcntl
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ovis_model.reports import write_text
from tasks.artifacts import MLFLOW_HOME

SPOOL = MLFLOW_HOME / "spool"
RECORDS, SENT, FILES = "records.jsonl", "sent.json", "files"
#: Records that the store does not take, whatever its state, with its reason; beside it, in a
#: folder of the same name, the files they are about.
REFUSED = SPOOL / "refused.jsonl"

Record = dict[str, Any]

logger = logging.getLogger(__name__)


class Spool:
    """The records of one process, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._records = self.folder / RECORDS
        self._num_kept = 0
        self._offset = 0
        self._writing = threading.Lock()
        self._damaged: set[int] = set()
        self.runs: dict[str, str] = {}
        self.reread()

    @classmethod
    @contextmanager
    def begin(cls, what: str) -> Iterator[Self]:
        """Begin a folder of records, and hold its lock as long as the block.

        Who looks for spools looks for records, so these appear with their lock on.
        """
        folder = SPOOL / f"{time.time_ns():020d}-{what}-{os.getpid()}"
        folder.mkdir(parents=True)
        hidden = folder / f"{RECORDS}.partial"
        with hidden.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(folder / RECORDS)
            yield cls(folder)

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
        with self._writing, self._records.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                rest = memoryview(line.encode())
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:  # half a line of a full disk would spoil the next record
                file.truncate(size)
                raise

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

    def rescue(self, place: str) -> str:
        """Move a copy to where it outlives the records; returns its new place."""
        source = self.folder / place
        target = REFUSED.with_suffix("") / source.parent.name / source.name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        return target.as_posix()

    def pending(self) -> Iterator[tuple[int, Record]]:
        """Yield each complete record that was not sent yet, with where it ends in the file."""
        end = self._offset
        with self._records.open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or torn by the end of its writer
                end += len(line)
                record = _parse(line)
                if record is not None:
                    yield end, record
                elif end not in self._damaged:
                    self._damaged.add(end)
                    self._put_aside(line)

    def _put_aside(self, line: bytes) -> None:
        logger.warning(
            "damaged lines in %s so far: %d; each is kept in %s",
            self._records,
            len(self._damaged),
            REFUSED,
        )
        keep_refused({"line": line.decode(errors="replace")}, "it is no record")

    def all(self) -> Iterator[Record]:
        """Yield every complete record, sent or not."""
        for line in self._records.read_bytes().splitlines(keepends=True):
            record = _parse(line) if line.endswith(b"\n") else None
            if record is not None:
                yield record

    def count(self) -> int:
        """Return how many records wait."""
        return sum(1 for _ in self.pending())

    def mark_sent(self, end: int) -> None:
        """Remember that the store has everything up to here, and the ids it gave to runs."""
        self._offset = end
        write_text(self.folder / SENT, json.dumps({"offset": end, "runs": self.runs}) + "\n")

    def reread(self) -> None:
        """Read how much was sent."""
        try:
            sent = _parse((self.folder / SENT).read_bytes())
        except FileNotFoundError:  # nothing yet, or all and another process removed it just now
            return
        if sent is None:
            logger.warning("%s is damaged; all is sent again, which does no harm", SENT)
        else:
            self._offset, self.runs = sent["offset"], sent["runs"]

    def remove(self) -> None:
        """Forget records that the store has."""
        shutil.rmtree(self.folder)


def _parse(line: bytes) -> Record | None:
    """Return what a line says; None if it is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def left_behind() -> list[Spool]:
    """Return what is still here, the oldest first; of some the writer may live."""
    return [Spool(records.parent) for records in sorted(SPOOL.glob(f"*/{RECORDS}"))]


def keep_refused(record: Record, reason: str) -> None:
    """Put a record aside that the store does not take."""
    with REFUSED.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**record, "reason": reason}) + "\n")
