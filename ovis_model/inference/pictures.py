"""Pictures as callers hand them over: PIL images, paths, addresses; all of them become RGB."""

import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.frames import read_frames
from ovis_model.data.images import load_image, to_rgb
from ovis_model.errors import DataError

ImageInput = str | Path | Image.Image
VideoInput = str | Path | Sequence[ImageInput]

URL_PREFIXES = ("http://", "https://")
URL_TIMEOUT_SECONDS = 30
#: Larger downloads are refused.
MAX_DOWNLOAD_BYTES = 64 << 20


def open_picture(source: ImageInput) -> Image.Image:
    """Return an upright RGB image.

    Args:
        source: An image, the path of one, or its http(s) address.

    Raises:
        DataError: If it cannot be fetched or decoded.
    """
    if isinstance(source, Image.Image):
        return to_rgb(source)
    if isinstance(source, str) and source.startswith(URL_PREFIXES):
        return _download(source)
    return to_rgb(load_image(Path(source)))


def open_frames(source: VideoInput, sampling: FrameSampling) -> list[Image.Image]:
    """Return the frames that stand for a video.

    Args:
        source: A video file, of which frames are sampled, or the frames themselves.
        sampling: How many frames to take of a file.

    Raises:
        DataError: If the file cannot be read or there is no frame.
    """
    if isinstance(source, str | Path):
        return read_frames(Path(source), sampling)
    frames = [open_picture(frame) for frame in source]
    if not frames:
        raise DataError("the video has no frames; give a video file or at least one frame")
    return frames


def _download(address: str) -> Image.Image:
    try:
        with urllib.request.urlopen(address, timeout=URL_TIMEOUT_SECONDS) as reply:
            content: bytes = reply.read(MAX_DOWNLOAD_BYTES + 1)
    except OSError as error:
        raise DataError(f"{address} cannot be fetched: {error}") from error
    if len(content) > MAX_DOWNLOAD_BYTES:
        raise DataError(f"{address} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB")
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return to_rgb(load_image(Path(file.name)))
