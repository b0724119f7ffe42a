"""How the pictures of a sample look, in seven numbers."""

from collections.abc import Iterator
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

Numbers = dict[str, float]


def picture_numbers(sample: Sample, media: MediaFiles) -> Numbers:
    """Measure a sample's pictures, or frames of its video; the mean over them.

    Returns:
        Values of width, height, aspect, brightness, contrast, saturation and sharpness; empty
        without pictures.

    Raises:
        DataError: If a file is missing or cannot be decoded.
    """
    found = [_measure(picture) for picture in _pictures(sample, media)]
    if not found:
        return {}
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


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
