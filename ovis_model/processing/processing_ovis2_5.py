"""The processor: text, images and frames to model input.  It needs no model.

One object, saved with the model, holds every setting that must agree between training,
evaluation and serving: pixel limits, frame sampling, tokenizer and chat template.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.errors import DataError, PlaceholderError
from ovis_model.modeling.tokenizer_files import load_tokenizer
from ovis_model.processing.conversation import TurnLike, check_messages, format_conversation
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.processing.image_processing_ovis2_5 import (
    Ovis2_5ImageProcessor,
    Size,
    check_frame_sizes,
)
from ovis_model.processing.settings import ProcessorSettings
from ovis_model.processing.tokenization import tokenize_with_placeholders
from ovis_model.processing.visual_tokens import Grid, count_visual_tokens, expand_placeholders
from ovis_model.tokens import (
    IGNORE_ID,
    IMAGE_PLACEHOLDER_ID,
    VIDEO_PLACEHOLDER_ID,
    TokenIds,
    Tokenizer,
)

Message = Mapping[str, Any]


@dataclass(frozen=True)
class EncodedSample:
    """One sequence, its visual positions expanded."""

    input_ids: Tensor
    """int64 [seq_len]; visual positions are negative."""
    labels: Tensor | None
    """int64 [seq_len], -100 where nothing is learned; None for a prompt."""
    pixel_values: Tensor | None
    """uint8 [num_patches, 768], not normalised: the model does that; None without media."""
    grid_thws: Tensor | None
    """int64 [num_media, 3], or None without media."""


@dataclass(frozen=True)
class SampleSize:
    """What a sample would be once encoded, told without decoding a pixel."""

    num_tokens: int
    """Positions in the sequence, text and visual ones together."""
    num_supervised_tokens: int
    """Those of them that are learned."""
    grids: tuple[Grid, ...]
    """(t, h, w) of each medium."""


class SampleLike(Protocol):
    """A training sample; `ovis_model.data.schema.Sample` is one."""

    @property
    def id(self) -> str:
        """Name for messages."""
        ...

    @property
    def conversations(self) -> Sequence[TurnLike]:
        """The turns."""
        ...


class Ovis2_5Processor:
    """Encode prompts and training samples, and remember how."""

    def __init__(
        self,
        image_processor: Ovis2_5ImageProcessor,
        tokenizer: Tokenizer,
        *,
        chat_template: str,
        pixel_limits: PixelLimits | None = None,
        frame_sampling: FrameSampling | None = None,
    ) -> None:
        """Put the parts together; `from_pretrained` finds them in a checkpoint folder."""
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.pixel_limits = pixel_limits or PixelLimits()
        self.frame_sampling = frame_sampling or FrameSampling()
        self.token_ids = TokenIds.of(tokenizer)

    @classmethod
    def from_pretrained(cls, path: Path | str) -> Self:
        """Load the processor of a checkpoint folder, offline and without running its code.

        Raises:
            CheckpointError: If the tokenizer or the chat template is missing or unreadable.
            ConfigError: If a saved setting cannot be used.
        """
        folder = Path(path)
        tokenizer = load_tokenizer(folder)
        settings = ProcessorSettings.read(folder)
        return cls(
            Ovis2_5ImageProcessor(),
            tokenizer,
            chat_template=settings.chat_template,
            pixel_limits=settings.pixel_limits,
            frame_sampling=settings.frame_sampling,
        )

    def save_pretrained(self, path: Path | str) -> None:
        """Write tokenizer, chat template and settings into a checkpoint folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer: Any = self.tokenizer
        tokenizer.save_pretrained(str(folder))
        ProcessorSettings(self.chat_template, self.pixel_limits, self.frame_sampling).write(folder)

    def with_settings(
        self,
        *,
        pixel_limits: PixelLimits | None = None,
        frame_sampling: FrameSampling | None = None,
    ) -> "Ovis2_5Processor":
        """Return a processor that differs in these settings only."""
        return Ovis2_5Processor(
            self.image_processor,
            self.tokenizer,
            chat_template=self.chat_template,
            pixel_limits=pixel_limits or self.pixel_limits,
            frame_sampling=frame_sampling or self.frame_sampling,
        )

    def sample_frames(self, num_frames: int) -> list[int]:
        """Choose which frames of a video the model sees.

        Args:
            num_frames: Frames in the video.

        Returns:
            Frame indices in ascending order; a short video repeats some.

        Raises:
            ValueError: If there is no frame.
        """
        sampling = self.frame_sampling
        return sample_frame_indices(
            num_frames, min_frames=sampling.min_frames, max_frames=sampling.max_frames
        )

    def encode_sample(
        self,
        sample: SampleLike,
        *,
        images: Sequence[Image.Image] = (),
        frames: Sequence[Image.Image] | None = None,
        max_pixels: int | None = None,
    ) -> EncodedSample:
        """Encode a training sample with its labels.

        Args:
            sample: The conversation.
            images: Its images, in placeholder order.
            frames: The frames of its video, or None.
            max_pixels: Largest area of each image or frame, in pixels, where that is below the
                processor's own.

        Raises:
            PlaceholderError: If placeholders and media disagree.
            DataError: If the conversation or a medium cannot be used; both name the sample.
        """
        with naming_sample(sample.id):
            ids, labels = format_conversation(sample.conversations, self.tokenizer)
            limits = self._limits(images, frames, at_most=max_pixels)
            media = self._preprocess(images, frames, limits)
        _check_counts(sample.id, ids, len(media), is_video=frames is not None)
        return _expand(ids, labels, media)

    def measure_sample(
        self,
        sample: SampleLike,
        *,
        image_sizes: Sequence[Size] = (),
        frame_sizes: Sequence[Size] | None = None,
        max_pixels: int | None = None,
    ) -> SampleSize:
        """Tell what `encode_sample` would return, from the sizes of the media alone.

        Args:
            sample: The conversation.
            image_sizes: (width, height) in pixels of each image as it is shown, that is with
                its EXIF orientation applied; `ovis_model.data.media.images.read_size` reads it.
            frame_sizes: Likewise of each frame of the video, or None.
            max_pixels: As `encode_sample` takes it.

        Raises:
            PlaceholderError: If placeholders and media disagree.
            DataError: If the conversation or a medium cannot be used; both name the sample.
        """
        with naming_sample(sample.id):
            ids, labels = format_conversation(sample.conversations, self.tokenizer)
            limits = self._limits(image_sizes, frame_sizes, at_most=max_pixels)
            grids = self._grids(image_sizes, frame_sizes, limits)
        _check_counts(sample.id, ids, len(grids), is_video=frame_sizes is not None)
        num_visual = sum(count_visual_tokens(grid) for grid in grids)
        # A placeholder in an answer is no more learned than the visual tokens it becomes.
        unlearned = (IGNORE_ID, IMAGE_PLACEHOLDER_ID, VIDEO_PLACEHOLDER_ID)
        return SampleSize(
            num_tokens=len(ids) - len(grids) + num_visual,
            num_supervised_tokens=len(labels) - sum(labels.count(label) for label in unlearned),
            grids=tuple(grids),
        )

    def count_tokens(
        self,
        sample: SampleLike,
        *,
        image_sizes: Sequence[Size] = (),
        frame_sizes: Sequence[Size] | None = None,
    ) -> int:
        """Count the positions a sample takes, exactly; `measure_sample` explains the arguments."""
        return self.measure_sample(
            sample, image_sizes=image_sizes, frame_sizes=frame_sizes
        ).num_tokens

    def encode_prompt(
        self,
        messages: Sequence[Message],
        *,
        images: Sequence[Image.Image] = (),
        frames: Sequence[Image.Image] | None = None,
        enable_thinking: bool,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> EncodedSample:
        """Encode messages up to where the model's answer begins.

        Args:
            messages: Chat messages, {"role": ..., "content": text or list of items}.
            images: Images, in placeholder order.
            frames: The frames of a video, or None.
            enable_thinking: False closes thinking before it starts.
            min_pixels: Overrides the smallest area, in pixels.
            max_pixels: Overrides the largest area, in pixels.

        Raises:
            PlaceholderError: If placeholders and media disagree.
            DataError: If a medium cannot be used, or images come with a video.
            ValueError: If the prompt is empty, a role or an item's type is unknown, or the pixel
                limits are not 0 < min_pixels <= max_pixels.
        """
        check_messages(messages)
        text = self.render_prompt(messages, enable_thinking=enable_thinking)
        ids = tokenize_with_placeholders(text, self.tokenizer)
        limits = self._limits(images, frames)
        if min_pixels is not None:
            limits["min_pixels"] = min_pixels
        if max_pixels is not None:
            limits["max_pixels"] = max_pixels
        media = self._preprocess(images, frames, limits)
        _check_counts(None, ids, len(media), is_video=frames is not None)
        return _expand(ids, None, media)

    def render_prompt(self, messages: Sequence[Message], *, enable_thinking: bool) -> str:
        """Render messages with the checkpoint's chat template, placeholders still in the text."""
        tokenizer: Any = self.tokenizer
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self.chat_template,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
            tokenize=False,
        )
        return text

    def _preprocess(
        self,
        images: Sequence[Image.Image],
        frames: Sequence[Image.Image] | None,
        limits: Mapping[str, int],
    ) -> list[tuple[Tensor, Grid]]:
        if frames is None:
            _check_sizes("image", [image.size for image in images])
            return [self.image_processor.preprocess([image], **limits) for image in images]
        if any(isinstance(frame, Sequence) for frame in frames):
            raise DataError(
                f"there are {len(frames)} lists of frames; a sample carries one video: give the "
                "frames of one as a flat list, and split the sample if it has more"
            )
        sizes = [frame.size for frame in frames]
        _check_sizes("frame", sizes)
        check_frame_sizes(sizes)
        return [self.image_processor.preprocess(frames, **limits)]

    def _grids(
        self,
        image_sizes: Sequence[Size],
        frame_sizes: Sequence[Size] | None,
        limits: Mapping[str, int],
    ) -> list[Grid]:
        if frame_sizes is None:
            _check_sizes("image", image_sizes)
            return [self.image_processor.grid(*size, **limits) for size in image_sizes]
        _check_sizes("frame", frame_sizes)
        check_frame_sizes(frame_sizes)
        num_frames = len(frame_sizes)
        return [self.image_processor.grid(*frame_sizes[0], num_frames=num_frames, **limits)]

    def _limits(
        self,
        images: Sequence[object],
        frames: Sequence[object] | None,
        *,
        at_most: int | None = None,
    ) -> dict[str, int]:
        if frames is None:
            kind, count = ("single_image" if len(images) == 1 else "multiple_image"), len(images)
        elif images:
            raise DataError(
                f"there are {len(images)} image(s) and a video; a sample carries images or one "
                "video, never both: split it into two samples"
            )
        elif not frames:
            raise DataError("the video has no frames; give at least one, or None for no video")
        else:
            kind, count = "video", len(frames)
        low, high = self.pixel_limits.bounds(kind, max(1, count))
        high = high if at_most is None else min(high, at_most)
        return {"min_pixels": min(low, high), "max_pixels": high}


@contextlib.contextmanager
def naming_sample(sample_id: str) -> Iterator[None]:
    """Put the sample's name in front of what is wrong with its data."""
    try:
        yield
    except DataError as error:
        raise DataError(f"sample {sample_id!r}: {error}") from error


def _check_sizes(kind: str, sizes: Sequence[Size]) -> None:
    for number, (width, height) in enumerate(sizes, start=1):
        if width < 1 or height < 1:
            raise DataError(
                f"{kind} {number} is {width} x {height} px and has no pixels; replace or remove it"
            )


def _check_counts(
    sample_id: str | None, ids: list[int], num_media: int, *, is_video: bool
) -> None:
    counts = {
        "image": (ids.count(IMAGE_PLACEHOLDER_ID), 0 if is_video else num_media),
        "video": (ids.count(VIDEO_PLACEHOLDER_ID), num_media if is_video else 0),
    }
    for kind, (in_text, in_media) in counts.items():
        if in_text != in_media:
            raise PlaceholderError(sample_id, kind=kind, in_text=in_text, in_media=in_media)


def _expand(
    ids: list[int], labels: list[int] | None, media: list[tuple[Tensor, Grid]]
) -> EncodedSample:
    grids = [grid for _, grid in media]
    expanded, learned = expand_placeholders(ids, labels, grids)
    return EncodedSample(
        input_ids=torch.from_numpy(expanded),
        labels=None if learned is None else torch.from_numpy(learned),
        pixel_values=join_media([patches for patches, _ in media]),
        grid_thws=torch.tensor(grids) if media else None,
    )


def join_media(tensors: list[Tensor]) -> Tensor | None:
    """Put patches or grids behind each other; a single tensor, megabytes of it, is not copied."""
    if len(tensors) == 1:
        return tensors[0]
    return torch.cat(tensors) if tensors else None


def pad_batch(
    samples: Sequence[EncodedSample], *, pad_id: int, side: str
) -> dict[str, Tensor | None]:
    """Put sequences of different length into one batch.

    Args:
        samples: The sequences.
        pad_id: Id that fills up.
        side: 'right' for training, 'left' for generation.

    Returns:
        input_ids int64 and attention_mask bool [batch, seq_len], labels likewise or None,
        pixel_values uint8 [num_patches, 768] and grid_thws [num_media, 3] of all samples or None.

    Raises:
        ValueError: If `side` is neither.
    """
    if side not in {"left", "right"}:
        raise ValueError(f"side must be 'left' or 'right', not {side!r}")
    # DIVERGES(extra-pad-column): where no row is padded the reference adds a column of padding.
    length = max(len(sample.input_ids) for sample in samples)
    has_labels = any(sample.labels is not None for sample in samples)
    input_ids = torch.full((len(samples), length), pad_id)
    labels = torch.full((len(samples), length), IGNORE_ID) if has_labels else None
    attention_mask = torch.zeros((len(samples), length), dtype=torch.bool)
    for row, sample in enumerate(samples):
        size = len(sample.input_ids)
        place = slice(0, size) if side == "right" else slice(length - size, length)
        input_ids[row, place] = sample.input_ids
        attention_mask[row, place] = True
        if labels is not None and sample.labels is not None:
            labels[row, place] = sample.labels
    patches = [s.pixel_values for s in samples if s.pixel_values is not None]
    grids = [s.grid_thws for s in samples if s.grid_thws is not None]
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "pixel_values": join_media(patches),
        "grid_thws": join_media(grids),
    }
