"""Pictures and videos as callers hand them over; all of them become upright RGB images.

picture    path | http(s) address | data: URL | base64 | bytes | PIL image | uint8 array
video      video file | its http(s) address | folder of frames | sequence of pictures
"""

import base64
import binascii
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.frame_folders import list_pictures
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb, to_rgb
from ovis_model.errors import DataError
from ovis_model.processing.frame_sampling import sample_frame_indices

ImageInput = str | Path | bytes | Image.Image | np.ndarray
VideoInput = str | Path | Sequence[ImageInput]

URL_PREFIXES = ("http://", "https://")
DATA_PREFIX = "data:"
URL_TIMEOUT_SECONDS = 30
#: Larger downloads are refused.
MAX_IMAGE_BYTES = 64 << 20
MAX_VIDEO_BYTES = 512 << 20

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv"}

#: How PNG, JPEG, WEBP, GIF and BMP files begin in base64; no path is that long without a dot.
_BASE64_IMAGE = re.compile(r"(?:iVBORw0KGgo|/9j/|UklGR|R0lGOD|Qk)[A-Za-z0-9+/\s]{56,}={0,2}\s*")
#: How much of a source an error message shows.
_MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class Media:
    """What a prompt shows, decoded: images, or the frames of its video."""

    images: tuple[Image.Image, ...] = ()
    frames: tuple[Image.Image, ...] | None = None

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """Images or frames, whichever there are."""
        return self.images if self.frames is None else self.frames


def open_media(
    images: Sequence[ImageInput],
    video: VideoInput | None,
    sampling: FrameSampling,
    num_frames: int | None = None,
) -> Media:
    """Decode what a prompt shows.

    Args:
        images: Any number of images.
        video: One video, or None.
        sampling: How many frames stand for a video, if `num_frames` is None.
        num_frames: How many frames the caller wants.

    Raises:
        ValueError: If there are images and a video.
        DataError: If one of them cannot be read.
    """
    if images and video is not None:
        raise ValueError(
            f"a request shows images or one video, not both; it has {len(images)} image(s) and a "
            "video: ask about them one after the other, or give the images as the video's frames"
        )
    if video is not None:
        return Media(frames=tuple(open_frames(video, sampling, num_frames)))
    if isinstance(images, str | bytes | Path):
        shown = str(images)[:_MAX_NAME_LENGTH]
        raise ValueError(f"images must be a list, even of one; got {shown!r}")  # noqa: TRY004
    return Media(images=tuple(open_picture(image) for image in images))


def open_picture(source: ImageInput) -> Image.Image:
    """Return an upright RGB image.

    Args:
        source: An image, its path, http(s) address, data: URL, base64 text or file content, or a
            uint8 array [height, width, 3].

    Raises:
        DataError: If it cannot be fetched or decoded, naming the source.
        ValueError: If it is none of these.
    """
    if isinstance(source, Image.Image):
        return to_rgb(_loaded(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, bytes):
        return load_rgb(source, name=f"image of {len(source)} bytes")
    if isinstance(source, str) and not names_a_file(source):
        return _from_text(source)
    if isinstance(source, str | Path):
        return load_rgb(Path(source))
    raise ValueError(
        "an image is a path, an address, a data: URL, base64 text, bytes, a PIL image or a uint8 "
        f"array, not {type(source).__name__}"
    )


def names_a_file(source: str) -> bool:
    """Whether a text is a path, rather than an address or a picture itself."""
    return not (source.startswith((*URL_PREFIXES, DATA_PREFIX)) or _BASE64_IMAGE.fullmatch(source))


def _from_text(source: str) -> Image.Image:
    if source.startswith(URL_PREFIXES):
        return load_rgb(_download(source, MAX_IMAGE_BYTES), name=source)
    if source.startswith(DATA_PREFIX):
        return _from_data_url(source)
    return _from_base64(source, "image in base64")


def open_frames(
    source: VideoInput, sampling: FrameSampling, num_frames: int | None = None
) -> list[Image.Image]:
    """Return the frames that stand for a video.

    Frames are taken of a file, and of a folder in the order of their names, evenly; a sequence
    of frames is taken whole, unless `num_frames` says how many of them.

    Args:
        source: A video file, its http(s) address, a folder of frames, or the frames themselves.
        sampling: How many frames to take, if `num_frames` is None.
        num_frames: How many frames to take.

    Raises:
        ValueError: If `num_frames` is below 1, or there are several videos.
        DataError: If the video cannot be read, or there is no frame.
    """
    if num_frames is not None:
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        sampling = FrameSampling(min_frames=num_frames, max_frames=num_frames)
    if not isinstance(source, str | Path):
        frames = list(source)
        _refuse_several_videos(frames)
        if frames and num_frames is not None:
            frames = _sample(frames, sampling)
    elif isinstance(source, str) and source.startswith(URL_PREFIXES):
        with _as_file(_download(source, MAX_VIDEO_BYTES), source) as path:
            return read_frames(path, sampling)
    elif Path(source).is_dir():
        frames = _sample(list(list_pictures(Path(source))), sampling)
    else:
        return read_frames(Path(source), sampling)
    if not frames:
        raise DataError("the video has no frames; give a video file or at least one frame")
    return [open_picture(frame) for frame in frames]


def _sample(frames: list[ImageInput] | list[Path], sampling: FrameSampling) -> list[ImageInput]:
    indices = sample_frame_indices(
        len(frames), min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    return [frames[index] for index in indices]


def _refuse_several_videos(frames: Sequence[ImageInput]) -> None:
    videos = [
        str(frame)
        for frame in frames
        if isinstance(frame, str | Path)
        and Path(str(frame)[-20:]).suffix.lower() in VIDEO_SUFFIXES
    ]
    if videos:
        raise ValueError(
            f"a list is taken as the frames of one video, and {videos[0]!r} is a video file; ask "
            "about one video at a time and give its path alone"
        )


def _loaded(image: Image.Image) -> Image.Image:
    """Decode an image that PIL has only opened so far."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        name = getattr(image, "filename", "") or "the PIL image"
        raise DataError(f"{name} cannot be decoded as an image: {error}") from error
    return image


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"an image array is uint8 [height, width, 3] in RGB, not {pixels.dtype} "
            f"{list(pixels.shape)}; scale its values to 0..255 and put the channels last"
        )
    return Image.fromarray(pixels)


def _from_data_url(source: str) -> Image.Image:
    header, comma, payload = source.partition(",")
    name = header[:_MAX_NAME_LENGTH]
    if not comma:
        raise DataError(f"{name}: a data: URL has a comma before its content")
    if header.endswith(";base64"):
        return _from_base64(payload, name)
    return load_rgb(urllib.parse.unquote_to_bytes(payload), name=name)


def _from_base64(text: str, name: str) -> Image.Image:
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise DataError(f"{name}: the image is not base64 ({error})") from error
    return load_rgb(content, name=name)


@contextmanager
def _as_file(content: bytes, name: str) -> Iterator[Path]:
    """Lend a video to those who read files; errors then name where it came from."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            yield Path(file.name)
        except DataError as error:
            raise DataError(str(error).replace(file.name, name)) from error


def _download(address: str, max_bytes: int) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=URL_TIMEOUT_SECONDS) as reply:
            content: bytes = reply.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: an address that is none
        raise DataError(f"{address} cannot be fetched: {error}") from error
    if len(content) > max_bytes:
        raise DataError(f"{address} is larger than {max_bytes >> 20} MiB")
    return content
