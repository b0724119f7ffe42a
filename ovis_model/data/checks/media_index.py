"""Facts of all media of a dataset: looked at once, remembered until the file changes.

The memory is a file of JSON lines that only grows while a run looks, so that an interrupted run
continues where it was, and one after a change looks at what changed.  A file counts as unchanged
while its size, times and inode are; extraction compares the bytes themselves.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from ovis_model.config import MediaLimits
from ovis_model.data.checks.media_fact import Kind, MediaFact
from ovis_model.data.decoding.pool import Decoders
from ovis_model.progress import WatchedBar

#: Raised when what an inspection finds changes, so that old memories are not trusted.
INSPECTION_VERSION = 3
#: Lines written between two flushes: what a killed run has to look at again.
_FLUSH_EVERY = 256


@dataclass(frozen=True)
class Inspection:
    """How media are looked at.

    Attributes:
        root: Folder that paths start from.
        mode: "decode" looks at every pixel, "header" at what the file says about itself.
        limits: What a file may cost.
        memory: File of what was found before, or None to look at everything.
    """

    root: Path
    mode: str
    limits: MediaLimits
    memory: Path | None = None


def inspect_all(
    media: Sequence[tuple[Kind, str]], how: Inspection, decoders: Decoders
) -> list[MediaFact]:
    """Look at every medium that is new or has changed.

    Args:
        media: Kind and path of each, relative to the root.
        how: Where and how to look.
        decoders: Who looks.

    Returns:
        One fact per medium, in order.
    """
    facts: list[MediaFact | None] = [None] * len(media)
    marks = _marks(media, how)
    remembered = _remember(how.memory, set(marks) - {None}) if how.memory is not None else {}
    for index, mark in enumerate(marks):
        if mark is not None and mark in remembered:
            facts[index] = MediaFact.from_dict(orjson.loads(remembered[mark])["fact"])
    missing = [index for index, fact in enumerate(facts) if fact is None]
    limits = how.limits.model_dump()
    root = str(how.root.resolve())  # workers of a cluster stand in other folders
    requests = (
        {
            "root": root,
            "path": media[index][1],
            "kind": media[index][0],
            "mode": how.mode,
            "limits": limits,
        }
        for index in missing
    )
    with _Notebook(how.memory) as notebook:
        bar = WatchedBar(total=len(missing), desc="inspect", unit="file", delay=2, mininterval=2)
        for index, reply in zip(missing, decoders.run("inspect", requests), strict=True):
            kind, path = media[index]
            fact = (
                MediaFact.from_dict(reply.value)
                if reply.value is not None
                else MediaFact(path, kind, problem=reply.problem, detail=reply.detail)
            )
            facts[index] = fact
            if reply.value is not None:  # another run may have more time and memory
                notebook.write(marks[index], fact)
            bar.update()
        bar.close()
    return [fact for fact in facts if fact is not None]


def _marks(media: Iterable[tuple[Kind, str]], how: Inspection) -> list[bytes | None]:
    """Digest what identifies each look: the file as it lies there, and how it is looked at."""
    manner = json.dumps([INSPECTION_VERSION, how.mode, how.limits.model_dump()], sort_keys=True)
    base = hashlib.blake2b(manner.encode(), digest_size=16)
    root = str(how.root.resolve())
    found: list[bytes | None] = []
    for kind, path in media:
        try:
            # Joined as text: an absolute path ends up below the root, where nothing is.
            status = os.stat(f"{root}/{path}")  # noqa: PTH116 - building a Path takes longer
        except (OSError, ValueError):
            found.append(None)
            continue
        digest = base.copy()
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(f"{kind}\0{path}\0{times}".encode("utf-8", "surrogatepass"))
        found.append(digest.digest())
    return found


def _remember(memory: Path, wanted: set[bytes | None]) -> Mapping[bytes, bytes]:
    """Read the lines of looks that are still true; a line cut off by a kill is not one."""
    found: dict[bytes, bytes] = {}
    if not memory.is_file():
        return found
    with memory.open("rb") as file:
        for line in file:
            # {"mark":"<32 hex digits>", ...}
            mark = _mark_of(line)
            if mark in wanted and line.endswith(b"}\n"):
                assert mark is not None
                found[mark] = line
    return found


def _mark_of(line: bytes) -> bytes | None:
    begin = len(b'{"mark":"')
    try:
        return bytes.fromhex(line[begin : begin + 32].decode("ascii"))
    except ValueError:
        return None


class _Notebook:
    """Appends what was found to the memory."""

    def __init__(self, memory: Path | None) -> None:
        self._memory = memory
        self._file: BinaryIO | None = None
        self._unflushed = 0

    def __enter__(self) -> "_Notebook":
        if self._memory is not None:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._memory.open("ab")
            if self._file.tell() and not _ends_a_line(self._memory):
                self._file.write(b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, mark: bytes | None, fact: MediaFact) -> None:
        """Note one fact, unless the file could not even be found."""
        if self._file is None or mark is None:
            return
        self._file.write(orjson.dumps({"mark": mark.hex(), "fact": fact.to_dict()}) + b"\n")
        self._unflushed += 1
        if self._unflushed >= _FLUSH_EVERY:
            self._file.flush()
            self._unflushed = 0


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
