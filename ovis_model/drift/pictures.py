"""How the pictures of a sample look: seven numbers, and a tiny version of the first."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample
from ovis_model.processing.frame_sampling import sample_frame_indices

#: Pictures of a sample that are looked at, evenly spread over all.
MAX_PICTURES = 4
#: Pictures are reduced below this before their pixels are counted: what is compared are averages.
MAX_SIDE = 256
#: Of the tiny version, in pixels.
TINY_SIDE = 8

Numbers = dict[str, float]


@dataclass(frozen=True)
class Looks:
    """How a sample's pictures, or frames of its video, look.

    Attributes:
        numbers: Mean width, height, aspect, brightness, contrast, saturation and sharpness; empty
            without pictures.
        tiny: `TINY_SIDE` x `TINY_SIDE` greys of the first one in hexadecimal digits, or "".
    """

    numbers: Numbers = field(default_factory=dict)
    tiny: str = ""


def look_at(sample: Sample, media: MediaFiles) -> Looks:
    """Measure a sample's pictures.

    Raises:
        DataError: If a file is missing or cannot be decoded.
    """
    found: list[Numbers] = []
    tiny = ""
    for picture in _pictures(sample, media):
        found.append(_measure(picture))
        tiny = tiny or _shrink(picture)
    if not found:
        return Looks()
    means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    return Looks(means, tiny)


def _shrink(picture: Image.Image) -> str:
    grey = picture.convert("L").resize((TINY_SIDE, TINY_SIDE), Image.Resampling.BOX)
    return grey.tobytes().hex()


def _pictures(sample: Sample, media: MediaFiles) -> Iterator[Image.Image]:
    if isinstance(sample.video, str):
        sampling = FrameSampling(min_frames=1, max_frames=MAX_PICTURES)
        path = media.path_of(sample.video)
        yield from read_frames(path, sampling, start=sample.video_start, end=sample.video_end)
        return
    names = sample.media
    if names:
        for index in sample_frame_indices(len(names), min_frames=1, max_frames=MAX_PICTURES):
            yield load_rgb(media.read(names[index]), name=names[index])


def _measure(picture: Image.Image) -> Numbers:
    width, height = picture.size
    small = picture.reduce(max(1, -(-max(picture.size) // MAX_SIDE)))
    grey = np.asarray(small.convert("L"), dtype=np.float32)  # [height, width]
    saturation: Any = small.convert("HSV").getchannel("S")
    return {
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "saturation": float(np.asarray(saturation, dtype=np.float32).mean()),
        "sharpness": _mean_step(grey),
    }


def _mean_step(grey: np.ndarray) -> float:
    """Return the mean difference of neighbours, 0 for a single pixel."""
    steps = [np.abs(np.diff(grey, axis=axis)).ravel() for axis in (0, 1)]
    together = np.concatenate(steps)
    return float(together.mean()) if together.size else 0.0
