"""Packing pictures into tar files, so that DVC handles hundreds of files and not a million.

Pictures keep the order in which samples name them, and a shard ends behind a picture whose own
digest says so (content-defined chunking).  Where shards end therefore depends on nothing that
comes later: adding samples behind the others rewrites the last shard and writes new ones; adding
or removing pictures anywhere rewrites the shards from there to the next end that a digest sets,
one or two as a rule.  All others keep their bytes, though perhaps not their number, and DVC,
which knows files by content, does not store them again.  Reordering all samples reorders all.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from ovis_model.data.media_files import INDEX, Member

#: Most bytes of a shard; a picture that is larger than this has one of its own.
SHARD_BYTES = 256 * 2**20

Size = tuple[int, int]
Picture = tuple[str, Size, bytes]


def pack(
    sizes: dict[str, Size],
    read: Callable[[str], bytes],
    folder: Path,
    *,
    max_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write all pictures as media-00000.tar, ... and media.index.jsonl.

    The bytes depend on names, contents and order alone.

    Args:
        sizes: Width and height of each picture by name, in the order of their first use; a name
            ends with the sha256 of the picture and an extension.
        read: Returns a picture's bytes by name.
        folder: Where to write.
        max_bytes: Most bytes of a shard.

    Returns:
        The shards, in order.
    """
    shards = []
    with (folder / INDEX).open("w", encoding="utf-8", newline="\n") as index:
        pictures = ((name, size, read(name)) for name, size in sizes.items())
        for number, group in enumerate(_group(pictures, max_bytes)):
            shards.append(folder / f"media-{number:05d}.tar")
            for member in _write_shard(shards[-1], group):
                index.write(json.dumps(asdict(member), separators=(",", ":")) + "\n")
    return shards


def _group(pictures: Iterable[Picture], max_bytes: int) -> Iterator[list[Picture]]:
    """Cut the sequence behind every picture that says so, or that fills a shard."""
    # tarfile fills up to whole records behind the last member.
    room = max_bytes - tarfile.RECORDSIZE
    group: list[Picture] = []
    filled = 0
    for picture in pictures:
        cost = _cost(picture)
        if group and filled + cost > room:
            yield group
            group, filled = [], 0
        group.append(picture)
        filled += cost
        if _ends_shard(picture[0], cost, max_bytes // 4):
            yield group
            group, filled = [], 0
    if group:
        yield group


def _cost(picture: Picture) -> int:
    blocks = -(-len(picture[2]) // tarfile.BLOCKSIZE)
    return (1 + blocks) * tarfile.BLOCKSIZE


def _ends_shard(name: str, cost: int, mean_bytes: int) -> bool:
    """Draw by the picture's digest, so that a shard has `mean_bytes` on average."""
    draw = int(PurePosixPath(name).stem[:16], 16) / 2**64
    return draw < cost / mean_bytes


def _write_shard(path: Path, pictures: list[Picture]) -> Iterator[Member]:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (width, height), content in sorted(pictures):
            info = tarfile.TarInfo(name)  # no time, no owner: equal pictures, equal bytes
            info.size = len(content)
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(info, io.BytesIO(content))
            yield Member(name, path.name, offset, len(content), width, height)
