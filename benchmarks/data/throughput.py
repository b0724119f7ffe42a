"""Pictures and frames a second of extraction, against decoding the same files and no more.

Each way in a process of its own.  Extraction has one decoding process; besides decoding it
hashes files, checks their containers, and writes pictures, records and samples.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.data import video
from benchmarks.data.annotations import save_jpeg
from benchmarks.data.cache import cached
from benchmarks.data.scale import in_own_process
from benchmarks.measure import run_timed
from benchmarks.model.preprocessing import generated_image
from ovis_model.config import ExtractConfig, ValidateConfig
from ovis_model.data.extraction import extract
from ovis_model.data.validation import Results, validate
from ovis_model.processing.frame_sampling import sample_frame_indices

NUM_FRAMES = 8


@dataclass(frozen=True)
class Rate:
    """What one way of decoding took.

    Attributes:
        what: "images" or "frames".
        way: How they were decoded.
        items: Pictures, or frames of videos that were asked for.
        cpu_seconds: Processor time, of the processes that decoded as well.
    """

    what: str
    way: str
    items: int
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Items per second of processor time."""
        return self.items / self.cpu_seconds


@dataclass(frozen=True)
class Sizes:
    """How much there is to decode."""

    images: int = 2000
    image_size: tuple[int, int] = (640, 480)
    clips: int = 4
    clip_seconds: float = 20.0
    clip_size: tuple[int, int] = (1280, 720)

    @property
    def num_frames(self) -> int:
        """Frames of all clips that are asked for."""
        return self.clips * NUM_FRAMES


SMALL = Sizes(images=10, image_size=(100, 70), clips=2, clip_seconds=1.0, clip_size=(64, 48))


def measure_rate(what: str, way: str, sizes: Sizes) -> Rate:
    """Measure one of `WAYS`, in a process of its own."""
    items, seconds = in_own_process(WAYS[what, way], sizes)
    return Rate(what, way, items, seconds)


def decode_images(sizes: Sizes) -> tuple[int, float]:
    """Decode every picture with Pillow; return their number and the seconds."""
    files = sorted(_images(sizes).glob("*.jpg"))
    return run_timed(partial(_load_all, files))


def _load_all(files: list[Path]) -> int:
    for file in files:
        with Image.open(file) as image:
            image.convert("RGB")
    return len(files)


def decode_clips(sizes: Sizes) -> tuple[int, float]:
    """Decode every clip with PyAV; return the number of frames kept and the seconds."""
    clips = _clips(sizes)
    count = round(sizes.clip_seconds * video.RATE)
    indices = sample_frame_indices(count, min_frames=NUM_FRAMES, max_frames=NUM_FRAMES)

    def decode() -> int:
        return sum(len(video.with_pyav_decoding_all(clip, indices)) for clip in clips)

    return run_timed(decode)


def extract_images(sizes: Sizes) -> tuple[int, float]:
    """Extract every picture; return their number and the seconds."""
    folder = _images(sizes)
    return _extract(folder, "image", [path.name for path in sorted(folder.glob("*.jpg"))])


def extract_clips(sizes: Sizes) -> tuple[int, float]:
    """Extract every clip; return the number of frames and the seconds."""
    clips = _clips(sizes)
    return _extract(clips[0].parent, "video", [clip.name for clip in clips])


def _extract(raw_data: Path, kind: str, names: list[str]) -> tuple[int, float]:
    """Validate, which is not timed, and extract.

    Raises:
        RuntimeError: If not every file came through.
    """
    with tempfile.TemporaryDirectory(prefix="ovis-bench-") as work:
        folder = Path(work)
        raw = folder / "raw"
        raw.mkdir()
        for name in names:
            (raw / name).hardlink_to(raw_data / name)
        lines = (_sample(kind, name) for name in names)
        (raw / "annotations.jsonl").write_text("".join(lines), encoding="utf-8")
        _validate(raw, folder)
        report, seconds = run_timed(
            partial(
                extract,
                ExtractConfig(workers=1, min_frames=NUM_FRAMES, max_frames=NUM_FRAMES),
                validated=folder / "validated",
                raw_data=raw,
                output=folder / "extracted",
                store=folder / "store",
                ledger=folder / "extract.jsonl",
            )
        )
    if report.num_decoded != len(names) or report.num_quarantined:
        raise RuntimeError(
            f"{report.num_decoded} of {len(names)} files were decoded and "
            f"{report.num_quarantined} samples set aside"
        )
    return report.num_images + report.num_frames, seconds


def _sample(kind: str, name: str) -> str:
    turns = [
        {"from": "human", "value": f"<{kind}>\nWhat is in {name}?"},
        {"from": "gpt", "value": f"A test card, {name}."},
    ]
    return json.dumps({"id": name, kind: name, "conversations": turns}) + "\n"


def _validate(raw: Path, folder: Path) -> None:
    validate(
        ValidateConfig(
            raw_data=str(raw),
            annotations="annotations.jsonl",
            holdout_fraction=0.0,
            media_check="header",
        ),
        raw_data=raw,
        results=Results(
            output=folder / "validated",
            report=folder / "validate.json",
            ledger=folder / "validate.jsonl",
            data_docs=folder / "data_docs",
        ),
    )


def _images(sizes: Sizes) -> Path:
    width, height = sizes.image_size
    return cached(f"images/{sizes.images}-{width}x{height}", partial(_write_images, sizes))


def _write_images(sizes: Sizes, folder: Path) -> None:
    folder.mkdir()
    for number in range(sizes.images):
        save_jpeg(generated_image(number, *sizes.image_size), folder / f"{number:05}.jpg")


def _clips(sizes: Sizes) -> list[Path]:
    return [
        video.generated_clip(seed, seconds=sizes.clip_seconds, size=sizes.clip_size)
        for seed in range(sizes.clips)
    ]


#: What is decoded and how; of each kind, decoding alone comes first.
WAYS: Mapping[tuple[str, str], Callable[[Sizes], tuple[int, float]]] = {
    ("images", "Pillow, decoding alone"): decode_images,
    ("images", "extract"): extract_images,
    ("frames", "PyAV, decoding alone"): decode_clips,
    ("frames", "extract"): extract_clips,
}
