"""One sample as training sees it: its media with their sizes, its tokens, its label mask.

    xray = XRay(media_root, processor)
    xray.look(sample)        media, tokens, label mask
    xray.measure(sample)     tokens alone

Headers tell the sizes; no pixel is decoded, except to count the frames of a video.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.config import FrameSampling
from ovis_model.data.checks.diff import PARTS
from ovis_model.data.checks.label_mask import Piece, mask_by_turn, mask_of
from ovis_model.data.checks.statistics import features_of, kind_of
from ovis_model.data.media.frames import VideoInfo, frames_between, probe_video
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Fit, Sample, read_samples
from ovis_model.errors import DataError, MediaError
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, SampleSize
from ovis_model.processing.visual_tokens import count_visual_tokens

Size = tuple[int, int]


@dataclass(frozen=True)
class Medium:
    """One file of a sample.

    Attributes:
        path: As the sample names it.
        size: Width and height in pixels as it is shown, or None if it cannot be read.
        num_bytes: Size of the file.
        seconds: Duration of a video file.
        num_frames: Frames of a video file.
        problem: Why it cannot be read, or None.
    """

    path: str
    size: Size | None = None
    num_bytes: int | None = None
    seconds: float | None = None
    num_frames: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Look:
    """All there is to see of a sample.

    Attributes:
        sample: The sample.
        media: Its files, in its order.
        mask: What is learned of it.
        num_tokens, num_supervised: Positions in the sequence, and those that are learned; None
            without a processor.
        note: Why tokens were not counted, or None.
    """

    sample: Sample
    media: tuple[Medium, ...]
    mask: tuple[Piece, ...]
    num_tokens: int | None
    num_supervised: int | None
    note: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        turns = self.sample.conversations
        return {
            "id": self.sample.id,
            "kind": kind_of(self.sample),
            "features": features_of(self.sample),
            "source": self.sample.source,
            "fit": None if self.sample.fit is None else self.sample.fit.model_dump(),
            "media": [vars(medium) for medium in self.media],
            "conversations": [{"from": turn.role, "value": turn.value} for turn in turns],
            "mask": [vars(piece) for piece in self.mask],
            "num_tokens": self.num_tokens,
            "num_supervised_tokens": self.num_supervised,
            "note": self.note,
        }


def find_sample(folder: Path, sample_id: str) -> tuple[Sample, str] | None:
    """Find a sample in what validation or extraction wrote.

    Returns:
        The sample and its part, "train" or "holdout"; None if there is none of this id.
    """
    for part in PARTS:
        path = folder / f"{part}.jsonl"
        # Reading stops at the sample: of a million lines, half are read on average.
        for sample in read_samples(path) if path.is_file() else ():
            if sample.id == sample_id:
                return sample, part
    return None


class XRay:
    """Looks at the samples of one folder.

    Args:
        media_root: Folder the samples' paths start from; its pictures may be packed in shards.
        processor: The model's, with the settings of training; None counts no tokens.
    """

    def __init__(
        self,
        media_root: Path,
        processor: Ovis2_5Processor | None,
        *,
        is_extracted: bool = False,
    ) -> None:
        """Look at samples of a folder.

        Args:
            media_root: Where their paths start.
            processor: Counts tokens, or None.
            is_extracted: Whether lists of frames are the chosen ones already.
        """
        self.is_extracted = is_extracted
        self.media = MediaFiles(media_root)
        self.processor = processor
        #: Pixels of every image and frame file that was looked at, by its path.
        self.areas: dict[str, int] = {}
        self._sizes: dict[str, Size] = {}
        self._videos: dict[str, VideoInfo] = {}

    def look(self, sample: Sample) -> Look:
        """Look at a sample; what cannot be read or counted is said, not raised."""
        media = tuple(self._medium(sample, path) for path in sample.media)
        note = "there is no processor to count with"
        if self.processor is not None:
            try:
                mask = self._mask(sample, self.processor)
            except DataError as error:
                note = str(error)
            else:
                return Look(sample, media, tuple(mask), *_count(mask), note=None)
        return Look(sample, media, tuple(mask_by_turn(sample)), None, None, note)

    def measure(self, sample: Sample) -> tuple[int, int]:
        """Count a sample's tokens, and those of them that are learned.

        Raises:
            DataError: If a medium cannot be read, or text and media disagree.
            ValueError: If there is no processor.
        """
        if self.processor is None:
            raise ValueError("tokens are counted by a processor; give one")
        if sample.fit is not None and sample.fit.max_tokens is not None:
            return _count(self._mask(sample, self.processor))
        size = self._size(sample, self.processor)
        return size.num_tokens, size.num_supervised_tokens

    def measure_areas(self, sample: Sample) -> None:
        """Note the areas of a sample's pictures.

        Raises:
            DataError: If one cannot be read.
        """
        for path in sample.image + sample.frames:
            self._picture_size(path)

    def _mask(self, sample: Sample, processor: Ovis2_5Processor) -> list[Piece]:
        grids = self._size(sample, processor).grids
        counts = [count_visual_tokens(grid) for grid in grids]
        return mask_of(sample, processor.tokenizer, visual_tokens=counts)

    def _size(self, sample: Sample, processor: Ovis2_5Processor) -> SampleSize:
        fit = sample.fit or Fit()
        return processor.measure_sample(
            sample,
            image_sizes=[self._picture_size(path) for path in sample.image],
            frame_sizes=self._frame_sizes(sample, processor.frame_sampling, fit),
            max_pixels=fit.max_pixels,
        )

    def _frame_sizes(self, sample: Sample, sampling: FrameSampling, fit: Fit) -> list[Size] | None:
        """Return the size of each frame the model is shown; extraction may yet choose them."""
        if sample.video is None:
            return None
        most = min(sampling.max_frames, fit.max_frames or sampling.max_frames)
        least = min(sampling.min_frames, most)
        if not isinstance(sample.video, str):
            if self.is_extracted:  # its frames are the chosen ones
                return [self._picture_size(path) for path in sample.frames]
            indices = sample_frame_indices(len(sample.frames), min_frames=least, max_frames=most)
            return [self._picture_size(sample.frames[index]) for index in indices]
        info = self._video(sample.video)
        num_frames = frames_between(info, sample.video_start, sample.video_end)
        if num_frames < 1:
            raise DataError(f"{sample.video} has no frames in the part that is shown")
        indices = sample_frame_indices(num_frames, min_frames=least, max_frames=most)
        return [(info.width, info.height)] * len(indices)

    def _picture_size(self, path: str) -> Size:
        if path not in self._sizes:
            width, height = self.media.read_size(path)
            self._sizes[path] = (width, height)
            self.areas[path] = width * height
        return self._sizes[path]

    def _video(self, path: str) -> VideoInfo:
        if path not in self._videos:
            self._videos[path] = probe_video(self.media.path_of(path))
        return self._videos[path]

    def _medium(self, sample: Sample, path: str) -> Medium:
        try:
            if path == sample.video:
                info = self._video(path)
                num_bytes = self.media.path_of(path).stat().st_size
                size = (info.width, info.height)
                return Medium(path, size, num_bytes, info.seconds, info.num_frames)
            return Medium(path, self._picture_size(path), len(self.media.read(path)))
        except MediaError as error:
            return Medium(path, problem=f"{error.code}: {error}")
        except DataError as error:
            return Medium(path, problem=str(error))


def _count(mask: list[Piece]) -> tuple[int, int]:
    def total(pieces: Iterator[Piece]) -> int:
        return sum(piece.num_tokens or 0 for piece in pieces)

    return (
        total(piece for piece in mask if piece.kind != "cut"),
        total(piece for piece in mask if piece.kind == "supervised"),
    )
