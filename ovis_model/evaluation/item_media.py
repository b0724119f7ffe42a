"""What an item shows, decoded."""

from pathlib import Path

from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.inference.pictures import Media


def load_media(benchmark: Benchmark, item: BenchmarkItem, sampling: FrameSampling) -> Media:
    """Decode the media of an item.

    Args:
        benchmark: Knows the folder.
        item: Names the files.
        sampling: How many frames stand for a video file; a list of frames is taken whole.

    Raises:
        DataError: Naming the item, if a file is missing or broken.
    """
    try:
        if isinstance(item.video, str):
            path = benchmark.source_of(item.video)
            assert isinstance(path, Path)
            return Media(frames=tuple(read_frames(path, sampling)))
        pictures = tuple(_load_picture(benchmark, name) for name in item.media)
    except DataError as error:
        raise DataError(f"benchmark {benchmark.name!r}, item {item.id!r}: {error}") from error
    return Media(images=pictures) if item.video is None else Media(frames=pictures)


def _load_picture(benchmark: Benchmark, name: str) -> Image.Image:
    source = benchmark.source_of(name)
    return load_rgb(source, name=name if isinstance(source, bytes) else None)
