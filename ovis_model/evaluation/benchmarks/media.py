"""Where the pictures of a benchmark are: files of a folder, or cells of a table."""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from ovis_model.reports import sha256_of_file


class MediaStore(Protocol):
    """Finds media by the names that items use."""

    def source(self, name: str) -> Path | bytes:
        """Return a file's path, or a picture's bytes.

        Raises:
            DataError: If there is no such picture.
        """
        ...

    def sha256(self, name: str) -> str:
        """Digest what `source` returns.

        Raises:
            OSError: If a file cannot be read.
            DataError: If there is no such picture.
        """
        ...


@dataclass(frozen=True)
class FolderMedia:
    """Files below one folder."""

    folder: Path

    def source(self, name: str) -> Path:
        """Return where a file lies; whether it is there is the reader's to find out."""
        return self.folder / name

    def sha256(self, name: str) -> str:
        """Digest a file."""
        return sha256_of_file(self.source(name))


def check_inside(name: str) -> None:
    """Refuse a path that leaves the folder of the media.

    Raises:
        ValueError: If it does.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{name!r} leaves the benchmark's folder")


def md5_of_file(path: Path) -> str:
    """Return the hexadecimal MD5 of a file, by which official files are known."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
