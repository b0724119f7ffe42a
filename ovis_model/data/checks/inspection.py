"""Looking at one media file that a stranger named and another one made.

`inspect` never raises for a bad file: what is wrong is part of the facts.  It is meant to run in
a child process (`ovis_model.data.decoding.pool`), because decoders can hang, crash and eat memory.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ovis_model.data.checks.media_fact import MediaFact, pixel_digest
from ovis_model.data.media import images
from ovis_model.errors import DataError, MediaError

#: Paths with a scheme would be fetched from elsewhere.
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
#: Endings of file names, by what may be in such a file.  Containers of videos come in families
#: that differ in a few bytes, and nobody cares.
_ISO, _MATROSKA = (".mp4", ".m4v", ".mov", ".qt", ".3gp"), (".mkv", ".webm", ".mk3d")
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "mp4": _ISO,
    "mov": _ISO,
    "mkv": _MATROSKA,
    "webm": _MATROSKA,
    "avi": (".avi",),
    "mpg": (".mpg", ".mpeg", ".vob"),
    "ts": (".ts", ".mts", ".m2ts"),
    "flv": (".flv",),
    "ogg": (".ogv", ".ogg"),
}
#: Endings that say what is in a file, and of which some would be wrong.
_TELLING = {ending for endings in _EXTENSIONS.values() for ending in endings} | {
    *(".svg", ".pdf", ".eps", ".ico", ".psd", ".heic", ".heif", ".avif", ".jxl", ".jp2"),
    *(".txt", ".html", ".htm", ".json", ".xml", ".zip", ".gz", ".mp3", ".wav"),
}
#: A fact before anything was found: `asdict` takes as long as reading a small file.
_NOTHING_FOUND = MediaFact("", "image").to_dict()


def inspect(request: Mapping[str, Any]) -> dict[str, Any]:
    """Look at one file.

    Args:
        request: "root", the folder that paths may not leave; "path", relative to it; "kind",
            "image" or "video"; "mode", "decode" for every pixel of an image or "header" for what
            it says about itself; "limits", the values of `ovis_model.config.MediaLimits`.

    Returns:
        `MediaFact.to_dict()`, with `problem` and `detail` where the file cannot be used.
    """
    found: dict[str, Any] = {}
    try:
        if request["kind"] == "image":
            _inspect_image(request, found)
        else:
            _inspect_video(request, found)
        if _has_wrong_extension(request["path"], found["format"]):
            found["notes"] = ("wrong_extension", *found.get("notes", ()))
    except MediaError as error:
        found.update(problem=error.code, detail=str(error))
    except (DataError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError from error
        found.update(problem="unreadable_media", detail=f"{request['path']}: {error}")
    if "detail" in found:  # reports must not depend on where the data lies
        found["detail"] = found["detail"].replace(f"{request['root']}{os.sep}", "")
    return {**_NOTHING_FOUND, "path": request["path"], "kind": request["kind"], **found}


def _inspect_image(request: Mapping[str, Any], found: dict[str, Any]) -> None:
    path, limits = request["path"], request["limits"]
    content = read_below(request["root"], path, max_bytes=limits["max_image_bytes"])
    found.update(sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))
    max_pixels = limits["max_pixels"]
    if request["mode"] == "header":
        header, rgb = images.read_header(content, name=path, max_pixels=max_pixels), None
    else:
        header, rgb = images.decode(content, name=path, max_pixels=max_pixels)
    found.update(
        format=header.format,
        mode=header.mode,
        width=header.size[0],
        height=header.size[1],
        turned=header.is_turned,
    )
    images.check_shape(header.size, name=path, min_side=limits["min_side"])
    if rgb is not None:
        found.update(pixels=pixel_digest(rgb), look=images.look(rgb))
        if found["look"] is None and images.is_blank(rgb):
            found["notes"] = ("blank",)


def _inspect_video(request: Mapping[str, Any], found: dict[str, Any]) -> None:
    from ovis_model.config import MediaLimits  # noqa: PLC0415 - many datasets have no videos
    from ovis_model.data.media.frames import probe_video  # noqa: PLC0415

    path, limits = request["path"], MediaLimits(**request["limits"])
    with _opened_below(request["root"], path) as (descriptor, status):
        _check_bytes(path, status.st_size, limits.max_video_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(sha256=digest, num_bytes=status.st_size)
        # By its descriptor: what was hashed is what is probed, whatever the name means by now.
        handle = Path(f"/proc/self/fd/{descriptor}")
        try:
            info = probe_video(handle, limits=limits)
        except DataError as error:
            code = error.code if isinstance(error, MediaError) else "unreadable_media"
            raise MediaError(code, str(error).replace(str(handle), path)) from error
        if _version_of(os.fstat(descriptor)) != _version_of(status):
            raise MediaError("unreadable_media", f"{path} changed while it was read; try again")
    found.update(
        format=info.container,
        width=info.width,
        height=info.height,
        num_frames=info.num_frames,
        seconds=info.seconds,
        frames_per_second=info.fps,
    )
    if info.is_variable_rate:
        found["notes"] = ("variable_rate",)


def _has_wrong_extension(path: str, kind: str) -> bool:
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path takes ten times as long
    return ending in _TELLING and ending not in _EXTENSIONS.get(kind, (ending,))


def unsafe_reason(path: str, root: Path) -> str | None:
    """Say why a path may not be opened, or None if it stays below the resolved `root`.

    Example:
        >>> unsafe_reason("../secrets.png", Path("/data"))
        "'../secrets.png' leaves the data folder"
        >>> unsafe_reason("images/a.png", Path("/data"))
    """
    if words := _unsafe_words(path):
        return f"{path!r} {words}"
    try:
        target = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
        return f"{path!r} cannot be followed: {error}"
    if not target.is_relative_to(root):
        return f"{path!r} is a symbolic link out of the data folder"
    return None


def _unsafe_words(path: str) -> str | None:
    # DIVERGES(paths-inside-data): the reference opens whatever a sample names.
    if "\0" in path:
        return "holds a NUL character"
    if _SCHEME.match(path):
        return "is an address, not a file"
    if path.startswith(("/", "~")):
        return "is not relative to the data folder"
    if ".." in path and ".." in path.split("/"):
        return "leaves the data folder"
    return None


def read_below(root: str, path: str, *, max_bytes: int) -> bytes:
    """Read a regular file below a folder, once.

    Args:
        root: The folder.
        path: Relative to it, from an untrusted source.
        max_bytes: Refused above this.

    Raises:
        MediaError: unsafe_path, missing_media, not_a_file, empty_file, too_many_bytes or
            unreadable_media.
    """
    with _opened_below(root, path) as (descriptor, status):
        _check_bytes(path, status.st_size, max_bytes)
        pieces, size = [], 0
        while piece := os.read(descriptor, status.st_size + 1):
            pieces.append(piece)
            size += len(piece)
            _check_bytes(path, size, max_bytes)  # it may grow
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_bytes(path: str, num_bytes: int, most: int) -> None:
    if num_bytes == 0:
        raise MediaError("empty_file", f"{path} is empty; copy the file again")
    if num_bytes > most:
        raise MediaError(
            "too_many_bytes",
            f"{path} has {num_bytes:,} bytes, above the limit of {most:,}; compress it, or raise "
            "the limit",
        )


@contextmanager
def _opened_below(root: str, path: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file below a folder for reading.

    It is first found without being opened, which would block at a pipe and move a tape, and
    then asked where it is: a symbolic link that is turned around in between goes nowhere.
    """
    if words := _unsafe_words(path):
        raise MediaError("unsafe_path", f"{path!r} {words}")
    try:
        found = os.open(f"{root}/{path}", os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _not_found(root, path, error) from error
    try:
        handle = f"/proc/self/fd/{found}"
        target = os.readlink(handle) + os.sep  # noqa: PTH115 - as above
        if not target.startswith(_real_folder(root)):
            raise MediaError("unsafe_path", f"{path!r} is a symbolic link out of the data folder")
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("not_a_file", f"{path} is not a regular file; put a plain file there")
        descriptor = os.open(handle, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        yield descriptor, status
    finally:
        os.close(descriptor)


@lru_cache(maxsize=16)
def _real_folder(root: str) -> str:
    return os.path.realpath(root).rstrip(os.sep) + os.sep


def _not_found(root: str, path: str, error: Exception) -> MediaError:
    """Say why a path cannot be opened."""
    if reason := unsafe_reason(path, Path(root).resolve()):  # a broken link may point outside
        return MediaError("unsafe_path", reason)
    if not isinstance(error, OSError):
        return MediaError("unsafe_path", f"{path!r} cannot be followed: {error}")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return MediaError("unsafe_path", f"{path!r} cannot be followed: {error.strerror}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MediaError("missing_media", f"{path} is missing; add the file")
    return MediaError("unreadable_media", f"{path} cannot be opened: {error.strerror}")


def _version_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns
