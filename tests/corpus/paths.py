"""Kinds 31 to 38: paths that lead elsewhere, and files that are none."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

from tests.corpus.dataset import Dataset, Expectation, Kind
from tests.corpus.media import SIZE, encoded, patched, quadrants, write_clip

#: Addresses of this computer and of no computer; nothing may ever be fetched from one.
ADDRESSES = (
    "http://host.invalid/a.png",
    "https://host.invalid/a.png",
    "HTTP://host.invalid/a.png",
    "ftp://host.invalid/a.png",
    "s3://bucket/a.png",
    "file:///etc/hostname",
    "data:image/png;base64,iVBORw0KGgo=",
    "http://169.254.169.254/latest/meta-data",
    "http://127.0.0.1:9/a.png",
    "http://[::1]:9/a.png",
    "hf://datasets/a/b.png",
    "concat:images/good.png|images/good.png",
)


def _secret(data: Dataset) -> Path:
    """Write a good image and one that no sample may reach."""
    data.good()
    quadrants().save(data.path("images/good.png"))
    secret = data.path("secret.png", below="outside")
    quadrants(turn=1).save(secret)
    data.image("good-image", "images/good.png")
    return secret


def absolute(data: Dataset) -> Expectation:
    secret = _secret(data).absolute()
    clip = write_clip(data.path("secret.mp4", below="outside")).absolute()
    data.image("outside", str(secret), "unsafe_path")
    data.image("system", "/etc/passwd", "unsafe_path")
    data.image("kernel", "/proc/self/environ", "unsafe_path")
    data.image("inside", str((data.raw / "images/good.png").absolute()), "unsafe_path")
    data.image("drive", "C:/secret.png", "unsafe_path")
    data.video("clip", str(clip), "unsafe_path")
    data.video("frame", ["images/good.png", str(secret)], "unsafe_path")
    return data.write("Q", "The official code reads it.")


def parent(data: Dataset) -> Expectation:
    _secret(data)
    data.image("up", "../outside/secret.png", "unsafe_path")
    data.image("down-and-up", "images/../../outside/secret.png", "unsafe_path")
    data.image("nowhere", "../../../../../../../../etc/hostname", "unsafe_path")
    data.video("frame", ["images/good.png", "../outside/secret.png"], "unsafe_path")
    data.image("dots", "images/..good.png", "missing_media")
    return data.write("Q", "Two dots lead out of the folder.")


def links(data: Dataset) -> Expectation:
    secret = _secret(data)
    data.path("images/out.png").symlink_to(secret.absolute())
    data.path("images/up.png").symlink_to(Path("../../outside/secret.png"))
    data.path("folder").symlink_to(secret.parent.absolute())
    data.path("images/in.png").symlink_to("good.png")
    data.path("images/loop.png").symlink_to("pool.png")
    data.path("images/pool.png").symlink_to("loop.png")
    data.path("images/nowhere.png").symlink_to("nothing.png")
    data.image("absolute", "images/out.png", "unsafe_path")
    data.image("relative", "images/up.png", "unsafe_path")
    data.image("through-folder", "folder/secret.png", "unsafe_path")
    data.image("inside", "images/in.png")
    data.image("loop", "images/loop.png", "unsafe_path")
    data.image("dangling", "images/nowhere.png", "missing_media")
    return data.write("Q", "A link inside the folder is fine, one out of it is not.")


def no_files(data: Dataset) -> Expectation:
    _secret(data)
    os.mkfifo(data.path("images/pipe.png"))
    os.mkfifo(data.path("videos/pipe.mp4"))
    data.path("images/folder.png").mkdir()
    data.path("images/zero.png").symlink_to("/dev/zero")
    _make_socket(data.path("images/socket.png"))
    data.image("pipe", "images/pipe.png", "not_a_file")
    data.image("folder", "images/folder.png", "not_a_file")
    data.image("socket", "images/socket.png", "not_a_file")
    data.image("device", "images/zero.png", "unsafe_path")
    data.video("film-pipe", "videos/pipe.mp4", "not_a_file")
    data.video("pipe-frame", ["images/good.png", "images/pipe.png"], "not_a_file")
    return data.write("Q", "Opening a pipe would wait for ever.")


def _make_socket(path: Path) -> None:
    # A socket's address has room for 108 bytes only, hence the way through the open folder.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def missing(data: Dataset) -> Expectation:
    _secret(data)
    data.image("image", "images/none.png", "missing_media")
    data.image("one-of-two-folders", "none/good.png", "missing_media")
    data.image("case", "images/Good.png", "missing_media")
    data.image("below-a-file", "images/good.png/a.png", "missing_media")
    data.image("long-name", "images/" + "n" * 300 + ".png", "unsafe_path")
    data.video("clip", "videos/none.mp4", "missing_media")
    data.video("frame", ["images/good.png", "images/none.png"], "missing_media")
    return data.write("Q", "There is no such file.")


def empty(data: Dataset) -> Expectation:
    _secret(data)
    data.path("images/empty.png").touch()
    data.path("videos/empty.mp4").touch()
    data.image("image", "images/empty.png", "empty_file")
    data.video("clip", "videos/empty.mp4", "empty_file")
    data.video("frame", ["images/good.png", "images/empty.png"], "empty_file")
    return data.write("Q", "No byte was copied.")


def addresses(data: Dataset) -> Expectation:
    _secret(data)
    for number, address in enumerate(ADDRESSES):
        data.image(f"image-{number}", address, "unsafe_path")
    data.video("clip", "http://host.invalid/a.mp4", "unsafe_path")
    data.video("frame", ["images/good.png", "http://host.invalid/b.png"], "unsafe_path")
    return data.write("Q", "Nothing is fetched.")


def shards(data: Dataset) -> Expectation:
    """Write shards that hold more, or other, than their index says; one folder each."""
    _secret(data)
    picture = encoded(quadrants(), "PNG")
    other = patched(picture, len(picture) - 20, bytes(2))
    name = _content_name(picture)
    good, slip = _file(name, picture), "../../../outside/slip.png"
    refused = {
        "symlink": ([_special(name, tarfile.SYMTYPE, "/etc/passwd")], "not as a plain file"),
        "hardlink": ([_special(name, tarfile.LNKTYPE, slip)], "not as a plain file"),
        "device": ([_special(name, tarfile.CHRTYPE)], "not as a plain file"),
        "folder": ([_special(name, tarfile.DIRTYPE)], "not as a plain file"),
        "swapped": ([_file(name, other)], "name is its digest"),
        "renamed": ([_file("media/00/other.png", picture)], "does not hold"),
        "missing": ([], "behind the end"),
    }
    for slug, (members, _) in refused.items():
        _write_shard(data, slug, members, {"name": name, "size": len(picture)})
    patterns = {slug: pattern for slug, (_, pattern) in refused.items()}
    for slug, wrong, pattern in (
        ("index-parent", {"name": slip}, "leads out"),
        ("index-absolute", {"name": "/slip.png"}, "leads out"),
        ("index-shard", {"shard": "../../outside/media-00000.tar"}, "not the name of a shard"),
        ("index-negative", {"offset": -512}, "no whole numbers"),
        ("index-early", {"offset": 0}, "before any header"),
        ("index-far", {"offset": 2**40}, "behind the end"),
        ("index-huge", {"size": 2**40}, "behind the end"),
        ("index-more", {"run": "rm"}, "run"),
    ):
        _write_shard(data, slug, [good], {"name": name, "size": len(picture), **wrong})
        patterns[slug] = pattern
    entry = {"name": name, "size": len(picture)}
    _write_shard(data, "index-twice", [good], entry, entry)
    _write_shard(data, "bomb", [good], entry)
    bomb = data.path("bomb/media-00000.tar", below="shards")
    bomb.write_bytes(gzip.compress(bytes(32 * 2**20), mtime=0))
    _write_shard(data, "stowaways", [good, _file(slip, other), _file("/slip.png", other)], entry)
    patterns |= {"index-twice": "listed twice", "bomb": "cannot be read|behind the end"}
    return data.write(
        "D",
        "A shard is read by offsets, never unpacked; surprises that nobody asks for do nothing.",
        stage="shards",
        refused={
            **patterns,
            "index-twice": "listed twice",
            "bomb": "cannot be read|does not hold",
        },
    )


def _content_name(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"media/{digest[:2]}/{digest}.png"


def _file(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def _special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def _write_shard(
    data: Dataset,
    slug: str,
    members: list[tuple[tarfile.TarInfo, bytes]],
    *entries: dict[str, Any],
) -> None:
    """Write a tar and an index that points at its first member, unless an entry says other."""
    path = data.path(f"{slug}/media-00000.tar", below="shards")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    if not members:
        path.write_bytes(b"")
    usual = {"shard": path.name, "offset": tarfile.BLOCKSIZE, "width": SIZE[0], "height": SIZE[1]}
    lines = [json.dumps({**usual, **entry}) + "\n" for entry in entries]
    path.with_name("media.index.jsonl").write_text("".join(lines), encoding="utf-8")


PATHS = (
    Kind(31, "absolute", absolute),
    Kind(32, "parent", parent),
    Kind(33, "links", links),
    Kind(34, "no_files", no_files),
    Kind(35, "missing", missing),
    Kind(36, "empty", empty),
    Kind(37, "addresses", addresses),
    Kind(38, "shards", shards),
)
