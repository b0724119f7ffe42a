"""Conversations as the model reads them: ids, labels and pixels, one example per sample."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ovis_model.config import FrameSampling
from ovis_model.data.loss_groups import is_thinking, learned_tokens
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Fit, Sample
from ovis_model.data.truncation import truncate
from ovis_model.errors import DataError, list_examples
from ovis_model.processing.processing_ovis2_5 import (
    EncodedSample,
    Ovis2_5Processor,
    naming_sample,
)
from ovis_model.processing.visual_tokens import Grid
from ovis_model.tokens import IGNORE_ID


@dataclass(frozen=True)
class Example:
    """One encoded sample, and what is told of it beside its tokens.

    Attributes:
        sample_id: The name to blame when it breaks something.
        encoded: Ids, labels and pixels.
        source: Where it came from.
        thinking: Which of the learned tokens are thinking, as `loss_groups.is_thinking` tells,
            bool [num_learned]; None for none of them.
    """

    sample_id: str
    encoded: EncodedSample
    source: str | None = None
    thinking: Tensor | None = None


@dataclass(frozen=True)
class Extent:
    """How much of a sequence a sample takes.

    Attributes:
        num_tokens: Positions, text and visual together.
        num_supervised: Positions whose token is learned.
        is_multimodal: Whether the sample shows an image or a video.
        grids: (t, h, w) in patches of each image or video, from which its cost follows.
    """

    num_tokens: int
    num_supervised: int
    is_multimodal: bool
    grids: tuple[Grid, ...] = ()


class ConversationDataset(Dataset[Example]):
    """Reads media and encodes on access, or once and for all.

    Args:
        samples: In file order; what order they are trained in is the sampler's business.
        media_root: Folder the samples' paths are relative to; pictures may be packed in shards.
        processor: Of the model to be trained, with its pixel limits set.
        cache: Keep every example in memory after its first use: for data that fits.

    Raises:
        DataError: If the pictures are packed and their index cannot be believed.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        media_root: Path,
        processor: Ovis2_5Processor,
        cache: bool = False,
    ) -> None:
        self.samples = samples
        self.media = MediaFiles(media_root)
        self.processor = processor
        self._cached: dict[int, Example] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        """Encode one sample.

        Raises:
            DataError: Naming the sample, if a file cannot be read or text and media disagree.
        """
        if self._cached is None:
            return self._encode(self.samples[index])
        if index not in self._cached:
            self._cached[index] = self._encode(self.samples[index])
        return self._cached[index]

    def _encode(self, sample: Sample) -> Example:
        fit = sample.fit or Fit()
        with naming_sample(sample.id):
            images = [self._load(name) for name in sample.image]
            frames = self._read_video(sample)
        encoded = self.processor.encode_sample(
            sample, images=images, frames=frames, max_pixels=fit.max_pixels
        )
        if fit.max_tokens is not None:
            encoded = truncate(encoded, fit.max_tokens)
        thinking = is_thinking(learned_tokens(encoded.labels), self.processor.token_ids)
        return Example(sample.id, encoded, sample.source, thinking)

    def _load(self, name: str) -> Image.Image:
        return load_rgb(self.media.read(name), name=name)

    def _read_video(self, sample: Sample) -> list[Image.Image] | None:
        if sample.video is None:
            return None
        if isinstance(sample.video, str):
            return self._decode_video(sample, self.media.path_of(sample.video))
        return [self._load(name) for name in sample.frames]

    def _decode_video(self, sample: Sample, path: Path) -> list[Image.Image]:
        sampling = self.processor.frame_sampling
        if sample.fit is not None and sample.fit.max_frames is not None:
            most = min(sampling.max_frames, sample.fit.max_frames)
            sampling = FrameSampling(min_frames=min(sampling.min_frames, most), max_frames=most)
        return read_frames(path, sampling, start=sample.video_start, end=sample.video_end)

    def extents(self) -> list[Extent]:
        """Measure every sample, without decoding its pictures: their headers tell the size.

        A sample with a video file is encoded, as is one that is cut, and every sample with
        `cache`, which is what fills it.  Draws a progress bar on stderr if it takes longer than
        a glance.

        Raises:
            DataError: Naming the sample, if a file has no readable header or text and media
                disagree; a picture that is damaged further in is found when it is trained on.
        """
        bar = tqdm(range(len(self)), desc="measure", unit="sample", delay=2, mininterval=2)
        return [self._extent(index) for index in bar]

    def _extent(self, index: int) -> Extent:
        sample = self.samples[index]
        if self._cached is not None or isinstance(sample.video, str):
            return _extent_of(self[index].encoded)
        fit = sample.fit or Fit()
        with naming_sample(sample.id):
            image_sizes = [self.media.read_size(name) for name in sample.image]
            frame_sizes = [self.media.read_size(name) for name in sample.frames]
        size = self.processor.measure_sample(
            sample,
            image_sizes=image_sizes,
            frame_sizes=frame_sizes or None,
            max_pixels=fit.max_pixels,
        )
        if fit.max_tokens is not None and size.num_tokens > fit.max_tokens:
            return _extent_of(self[index].encoded)
        return Extent(
            num_tokens=size.num_tokens,
            num_supervised=size.num_supervised_tokens,
            is_multimodal=bool(size.grids),
            grids=size.grids,
        )


def _extent_of(encoded: EncodedSample) -> Extent:
    assert encoded.labels is not None
    grids = () if encoded.grid_thws is None else encoded.grid_thws.tolist()
    return Extent(
        num_tokens=len(encoded.input_ids),
        num_supervised=int((encoded.labels != IGNORE_ID).sum()),
        is_multimodal=encoded.pixel_values is not None,
        grids=tuple((t, h, w) for t, h, w in grids),
    )


def find_misfits(
    samples: Iterable[Sample],
    extents: Sequence[Extent],
    *,
    multimodal_max_length: int,
    text_max_length: int,
) -> tuple[list[str], list[str]]:
    """Find samples that could not be trained on as they are.

    Returns:
        Those that are too long, with their length and their limit, and those of which nothing is
        learned.
    """
    too_long, unsupervised = [], []
    for sample, extent in zip(samples, extents, strict=True):
        limit = multimodal_max_length if extent.is_multimodal else text_max_length
        # DIVERGES(over-long-samples): the reference cuts them and says nothing.
        if extent.num_tokens > limit:
            too_long.append(f"{sample.id} ({extent.num_tokens} tokens, limit {limit})")
        if extent.num_supervised == 0:
            unsupervised.append(sample.id)
    return too_long, unsupervised


def check_extents(
    samples: Iterable[Sample],
    extents: Sequence[Extent],
    *,
    multimodal_max_length: int,
    text_max_length: int,
) -> None:
    """Refuse samples that could not be trained on as they are.

    Cutting a sample would drop the end of its answer in silence, so it is the author who
    decides between shortening it, fewer pixels and a higher limit.

    Raises:
        DataError: Naming samples that are too long, and samples of which nothing is learned.
    """
    too_long, unsupervised = find_misfits(
        samples,
        extents,
        multimodal_max_length=multimodal_max_length,
        text_max_length=text_max_length,
    )
    findings = []
    if too_long:
        findings.append(
            f"{len(too_long)} sample(s) are longer than multimodal_max_length or "
            f"text_max_length: {list_examples(too_long)}. Shorten them, lower the pixel limits, "
            "or raise the limit"
        )
    if unsupervised:
        findings.append(
            f"{len(unsupervised)} sample(s) have no answer to learn from: "
            f"{list_examples(unsupervised)}. Give them a 'gpt' turn with text, or remove them"
        )
    if findings:
        raise DataError("; ".join(findings))
