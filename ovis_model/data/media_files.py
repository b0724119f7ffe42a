"""Reading extracted pictures, from a folder or from the tar files they are packed in.

    data/extracted/media/<aa>/<sha256>.<ext>    a file per picture, or
    data/extracted/media.index.jsonl            which shard holds a picture, and where
    data/extracted/media-00000.tar              plain ustar, written by ovis_model.data.shards

Nothing in a shard is believed: a picture is the bytes that the index points at, behind a header
that says the same, and with the digest that is its name.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ovis_model.data.media.images import read_size
from ovis_model.errors import DataError

INDEX = "media.index.jsonl"
_SHARD = re.compile(r"media-\d{5,}\.tar")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_AGAIN = "delete the folder and run `dvc repro extract`"


@dataclass(frozen=True, slots=True)
class Member:
    """Where a picture lies, one line of the index.

    Attributes:
        name: As samples spell it.
        shard: File name of the tar.
        offset: Of the picture's first byte in the shard.
        size: Bytes of the picture.
        width, height: Pixels.
    """

    name: str
    shard: str
    offset: int
    size: int
    width: int
    height: int


class MediaFiles:
    """The pictures below a folder, whichever way they are kept.

    Holds no open file: it may be sent to other processes, and used after a fork.

    Args:
        root: Folder the samples' paths are relative to.

    Raises:
        DataError: If there is an index and it cannot be believed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._members = _read_index(root) if (root / INDEX).is_file() else None

    def read(self, name: str) -> bytes:
        """Return the bytes of a picture.

        Raises:
            DataError: If it is missing, lies outside of the folder, or is not what its name says.
        """
        content = self._read_file(name) if self._members is None else self._read_member(name)
        digest = PurePosixPath(name).stem
        if _DIGEST.fullmatch(digest) and hashlib.sha256(content).hexdigest() != digest:
            raise DataError(f"{self.root / name} is damaged: its name is its digest; {_AGAIN}")
        return content

    def read_size(self, name: str) -> tuple[int, int]:
        """Return a picture's width and height as it is shown, without decoding it.

        Raises:
            DataError: As `read`, or if a file's header cannot be read.
        """
        if self._members is None:
            return read_size(self.path_of(name))
        member = self._member(name)
        return member.width, member.height

    def path_of(self, name: str) -> Path:
        """Return the path of a file that is not packed: a video, or a picture without shards.

        Raises:
            DataError: If it lies outside of the folder.
        """
        if not _stays_below(name):
            raise DataError(f"{name!r} leads out of {self.root}; name files below it")
        return self.root / name

    def _read_file(self, name: str) -> bytes:
        path = self.path_of(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error

    def _member(self, name: str) -> Member:
        assert self._members is not None
        if name not in self._members:
            raise DataError(f"{name!r} is not listed in {self.root / INDEX}; {_AGAIN}")
        return self._members[name]

    def _read_member(self, name: str) -> bytes:
        member = self._member(name)
        path = self.root / member.shard
        try:
            with path.open("rb") as file:
                file.seek(member.offset - tarfile.BLOCKSIZE)
                found = file.read(tarfile.BLOCKSIZE + member.size)
            header = tarfile.TarInfo.frombuf(found[: tarfile.BLOCKSIZE], "utf-8", "strict")
        except (OSError, ValueError, tarfile.HeaderError) as error:
            raise DataError(f"{path} cannot be read at {name!r} ({error}); {_AGAIN}") from error
        content = found[tarfile.BLOCKSIZE :]
        described = (header.name, header.size, header.type)
        if described != (name, member.size, tarfile.REGTYPE) or len(content) != member.size:
            raise DataError(
                f"{path} does not hold {name!r} where {INDEX} says, or not as a plain file; "
                f"{_AGAIN}"
            )
        return content


def _stays_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _read_index(root: Path) -> dict[str, Member]:
    path = root / INDEX
    members: dict[str, Member] = {}
    shard_bytes: dict[str, int] = {}
    for number, values in _read_lines(path):
        try:
            member = _parse_member(values)
            if member.shard not in shard_bytes:
                shard_bytes[member.shard] = (root / member.shard).stat().st_size
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: {error}; {_AGAIN}") from error
        if member.name in members:
            raise DataError(f"{path}, line {number}: {member.name!r} is listed twice; {_AGAIN}")
        if member.offset + member.size > shard_bytes[member.shard]:
            raise DataError(
                f"{path}, line {number}: {member.name!r} would end behind the end of "
                f"{member.shard}; {_AGAIN}"
            )
        members[member.name] = member
    return members


def _read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}; {_AGAIN}") from error


def _parse_member(values: Any) -> Member:
    member = Member(**values)
    numbers = (member.offset, member.size, member.width, member.height)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{member.name!r} has no whole numbers for its place and size")
    if not isinstance(member.name, str) or not _stays_below(member.name):
        raise ValueError(f"the name {member.name!r} leads out of the folder")
    if not isinstance(member.shard, str) or not _SHARD.fullmatch(member.shard):
        raise ValueError(f"{member.shard!r} is not the name of a shard")
    if member.offset < tarfile.BLOCKSIZE:
        raise ValueError(f"{member.name!r} would begin before any header")
    return member
