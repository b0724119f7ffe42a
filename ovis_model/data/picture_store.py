"""Pictures that were extracted once, kept by content: no file is decoded a second time.

    <store>/<aa>/<sha256>.<ext>      a picture, named by the sha256 of its bytes
    <store>/index/<aa>/<key>.json    what one source file became
    <store>/tmp/                     what is being written

A key is the digest of the source file's bytes and of the recipe, that is of everything else
that decides what the pictures look like.  An entry is written after its pictures, everything by
rename, so that a killed run loses nothing it finished and several processes may write at once.

DVC deletes a stage's outputs before it runs the stage; the store lies outside of them.  To delete
it costs time, nothing else.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Self

from PIL import Image

from ovis_model.config import FrameSampling, MediaLimits
from ovis_model.data.media.frames import Reader, read_timed_frames
from ovis_model.data.media.images import load_image, plain_extension, to_rgb
from ovis_model.errors import MediaError
from ovis_model.reports import READ_BLOCK_BYTES, sha256_of_file

#: To be raised when pictures of the same file come out differently: what is stored is then old.
RECIPE_VERSION = 1
#: The package whose release decides what a reader's frames look like.
_PACKAGES = {"pyav": "av", "moviepy": "moviepy"}
#: zlib's fastest level: photographs barely shrink further, and the bytes stay the same.
_PNG_LEVEL = 1
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.(png|jpg)")
#: What a killed process left half written is cleared after this long.
_STALE_SECONDS = 24 * 3600
_CHANGED = "it changed after it was validated; run `dvc repro` to validate anew"

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class VideoRecipe:
    """Which frames of a video file become pictures, and who decodes them.

    Attributes:
        reader: "pyav" or "moviepy", see `ovis_model.data.media.frames`.
        min_frames, max_frames: As in `FrameSampling`.
        start, end: Seconds; None is the file's own beginning or end.
    """

    reader: Reader
    min_frames: int
    max_frames: int
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one source file became.

    Attributes:
        pictures: Names in the store, "<aa>/<sha256>.<ext>": one for an image, one per frame for a
            video.
        sizes: Width and height of each in pixels.
        seconds: When each frame is shown, from the video's first frame; None for an image.
    """

    pictures: tuple[str, ...]
    sizes: tuple[Size, ...]
    seconds: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Take it back from JSON values.

        Raises:
            ValueError: If it is not what `to_dict` returned.

        Example:
            >>> made = Extracted(("00/" + "0" * 64 + ".png",), ((8, 4),))
            >>> Extracted.from_dict(json.loads(json.dumps(made.to_dict()))) == made
            True
        """
        try:
            names, seconds = tuple(values["pictures"]), values["seconds"]
            sizes = tuple((int(width), int(height)) for width, height in values["sizes"])
            times = None if seconds is None else tuple(map(float, seconds))
            well_formed = all(map(_NAME.fullmatch, names))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an entry of a picture store ({error})") from error
        counts = {len(names), len(sizes), len(names if times is None else times)}
        if not names or not well_formed or len(counts) > 1:
            raise ValueError("not an entry of a picture store")
        return cls(names, sizes, times)


def entry_key(sha256: str, video: VideoRecipe | None) -> str:
    """Name what a file of these bytes becomes by this recipe.

    A new release of a decoder may round pixels differently, so its version is part of the recipe.

    Args:
        sha256: Of the source file's bytes.
        video: How its frames are chosen; None for an image.
    """
    packages = ["pillow"] if video is None else ["pillow", _PACKAGES[video.reader]]
    decoders = [f"{package} {_release(package)}" for package in packages]
    recipe = [RECIPE_VERSION, decoders, None if video is None else asdict(video)]
    return hashlib.sha256(json.dumps([sha256, recipe]).encode()).hexdigest()


@functools.cache
def _release(package: str) -> str:
    return version(package)  # looks through the installed packages: too slow for every file


class PictureStore:
    """The folder described above; it need not exist.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, name: str) -> Path:
        """Return where a picture lies."""
        return self.root / name

    def add(self, content: bytes, extension: str) -> str:
        """Store a picture and return its name.

        Raises:
            OSError: If the file cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        name = f"{digest[:2]}/{digest}.{extension}"
        # Written even where there is one: what is there may be damaged.
        self._write(self.root / name, content)
        return name

    def put(self, key: str, made: Extracted) -> None:
        """Note what a file became, once its pictures are stored.

        Raises:
            OSError: If the file cannot be written.
        """
        text = json.dumps(made.to_dict(), separators=(",", ":")) + "\n"
        self._write(self._entry(key), text.encode())

    def get(self, key: str) -> Extracted | None:
        """Return what a file became, or None if that is not known or a picture is damaged.

        Reads every picture: nothing else would notice a changed byte.
        """
        try:
            made = Extracted.from_dict(json.loads(self._entry(key).read_bytes()))
            intact = all(map(self._is_intact, set(made.pictures)))
        except (OSError, ValueError):
            return None
        return made if intact else None

    def sweep(self) -> None:
        """Remove what processes that were killed left half written, a day ago or longer."""
        for path in self._tmp.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    @property
    def _tmp(self) -> Path:
        return self.root / "tmp"

    def _entry(self, key: str) -> Path:
        return self.root / "index" / key[:2] / f"{key}.json"

    def _is_intact(self, name: str) -> bool:
        return sha256_of_file(self.root / name) == Path(name).stem

    def _write(self, target: Path, content: bytes) -> None:
        # Two processes, even on two machines, may write the same file: each its own, then renamed.
        own = self._tmp / uuid.uuid4().hex
        for folder in (own.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            own.write_bytes(content)
            own.replace(target)
        finally:
            own.unlink(missing_ok=True)  # where it could not be written or renamed


@dataclass(frozen=True, slots=True)
class Request:
    """One file to extract; travels to other processes as JSON.

    Attributes:
        root: Folder of the raw data.
        path: The file below it.
        sha256: What its bytes were when they were validated.
        key: `entry_key` of it.
        store: Root of the picture store.
        limits: What the file may cost.
        video: Its recipe; None for an image.
    """

    root: Path
    path: str
    sha256: str
    key: str
    store: Path
    limits: MediaLimits
    video: VideoRecipe | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; workers of a cluster stand in other folders."""
        return {
            "root": str(self.root.absolute()),
            "path": self.path,
            "sha256": self.sha256,
            "key": self.key,
            "store": str(self.store.absolute()),
            "limits": self.limits.model_dump(),
            "video": None if self.video is None else asdict(self.video),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Take it back from JSON values."""
        video = values["video"]
        return cls(
            root=Path(values["root"]),
            path=values["path"],
            sha256=values["sha256"],
            key=values["key"],
            store=Path(values["store"]),
            limits=MediaLimits(**values["limits"]),
            video=None if video is None else VideoRecipe(**video),
        )

    @property
    def file(self) -> Path:
        """Where the file lies."""
        return self.root / self.path


#: What `extract_file` answers when the fault is the store's, not the file's.
STORE_ERROR = "store_error"


def extract_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Turn one file into pictures in the store; runs in a process that may be killed.

    Args:
        request: `Request.to_dict`.

    Returns:
        `Extracted.to_dict`, or {"store_error": why} if the store cannot be written: that is no
        reason to blame the file.

    Raises:
        MediaError: If the file is not what was validated, or cannot be decoded.
        DataError: Likewise, where the fault has no code.
    """
    job = Request.from_dict(request)
    store = PictureStore(job.store)
    pictures, seconds = _decode_image(job) if job.video is None else _decode_video(job, job.video)
    try:
        names = tuple(store.add(picture.encode(), picture.extension) for picture in pictures)
        made = Extracted(names, tuple(picture.image.size for picture in pictures), seconds)
        store.put(job.key, made)
    except OSError as error:
        return {STORE_ERROR: str(error)}
    return made.to_dict()


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture and, where it may be kept as it came, its file's bytes."""

    image: Image.Image
    extension: str = "png"
    content: bytes | None = None

    def encode(self) -> bytes:
        return _png(self.image) if self.content is None else self.content


def _decode_image(job: Request) -> tuple[list[_Picture], None]:
    """Decode the very bytes whose digest was compared: the file may change at any moment."""
    with _opened(job.file, job.limits.max_image_bytes) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != job.sha256:
        raise MediaError("unreadable_media", _CHANGED)
    image = load_image(content, name=job.path, max_pixels=job.limits.max_pixels)
    extension = plain_extension(content, image)
    if extension is not None:
        return [_Picture(image, extension, content)], None
    return [_Picture(to_rgb(image))], None


def _decode_video(job: Request, recipe: VideoRecipe) -> tuple[list[_Picture], tuple[float, ...]]:
    """Decode a video by its path, and make sure that it was the same file all the time."""
    with _opened(job.file, job.limits.max_video_bytes) as file:
        before = _identity(os.fstat(file.fileno()))
        if _digest(file) != job.sha256:
            raise MediaError("unreadable_media", _CHANGED)
        frames = read_timed_frames(
            job.file,
            FrameSampling(min_frames=recipe.min_frames, max_frames=recipe.max_frames),
            start=recipe.start,
            end=recipe.end,
            reader=recipe.reader,
            limits=job.limits,
        )
        if {_identity(os.fstat(file.fileno())), _identity(job.file.stat())} != {before}:
            raise MediaError("unreadable_media", _CHANGED)
    return [_Picture(frame.image) for frame in frames], tuple(frame.seconds for frame in frames)


@contextlib.contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a regular file; what stands there now need not be what was validated."""
    try:
        # Without O_NONBLOCK opening a pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        code = "missing_media" if isinstance(error, FileNotFoundError) else "unreadable_media"
        raise MediaError(code, f"it cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise MediaError("not_a_file", f"it is no regular file any more; {_CHANGED}")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > max_bytes:
            raise MediaError(
                "too_many_bytes",
                f"it has {status.st_size:,} bytes, above the limit {max_bytes:,}; compress it, or "
                "raise the limit in validate.limits",
            )
        yield file


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(READ_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
