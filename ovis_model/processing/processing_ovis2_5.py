"""The processor: text, images and frames to model input.  It needs no model.

One object, saved with the model, holds every setting that must agree between training,
evaluation and serving: pixel limits, frame sampling, tokenizer and chat template.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.errors import CheckpointError, PlaceholderError
from ovis_model.processing.conversation import (
    TurnLike,
    format_conversation,
    tokenize_with_placeholders,
)
from ovis_model.processing.frame_sampling import SAMPLER_NAME
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor
from ovis_model.processing.visual_tokens import Grid, expand_placeholders
from ovis_model.reports import write_text
from ovis_model.tokens import (
    IGNORE_ID,
    IMAGE_PLACEHOLDER_ID,
    VIDEO_PLACEHOLDER_ID,
    TokenIds,
    Tokenizer,
)

#: Ours, beside the official files: what they do not record.
SETTINGS_FILE = "ovis_processor.json"
CHAT_TEMPLATE_FILE = "chat_template.json"
Message = Mapping[str, Any]


@dataclass(frozen=True)
class EncodedSample:
    """One sequence, its visual positions expanded."""

    input_ids: Tensor
    """int64 [seq_len]; visual positions are negative."""
    labels: Tensor | None
    """int64 [seq_len], -100 where nothing is learned; None for a prompt."""
    pixel_values: Tensor | None
    """float32 [num_patches, 768], or None without media."""
    grid_thws: Tensor | None
    """int64 [num_media, 3], or None without media."""


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
            CheckpointError: If the tokenizer or the chat template is missing.
        """
        folder = Path(path)
        for name in ("tokenizer_config.json", CHAT_TEMPLATE_FILE):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} has no {name}; copy it from the base checkpoint")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
        template = json.loads((folder / CHAT_TEMPLATE_FILE).read_text(encoding="utf-8"))
        settings_file = folder / SETTINGS_FILE
        settings: dict[str, Any] = {}
        if settings_file.is_file():  # an official checkpoint has none: the defaults are its own
            settings = json.loads(settings_file.read_text(encoding="utf-8"))
        sampling = dict(settings.get("frame_sampling", {}))
        name = sampling.pop("name", SAMPLER_NAME)
        if name != SAMPLER_NAME:
            raise CheckpointError(
                f"{settings_file} asks for the frame sampler {name!r}; this release has only "
                f"{SAMPLER_NAME!r}"
            )
        return cls(
            Ovis2_5ImageProcessor(),
            tokenizer,
            chat_template=template["chat_template"],
            pixel_limits=PixelLimits(**settings.get("pixel_limits", {})),
            frame_sampling=FrameSampling(**sampling),
        )

    def save_pretrained(self, path: Path | str) -> None:
        """Write tokenizer, chat template and settings into a checkpoint folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer: Any = self.tokenizer
        tokenizer.save_pretrained(str(folder))
        template = {"chat_template": self.chat_template}
        write_text(folder / CHAT_TEMPLATE_FILE, json.dumps(template, indent=2))
        settings = {
            "pixel_limits": self.pixel_limits.model_dump(),
            "frame_sampling": {"name": SAMPLER_NAME, **self.frame_sampling.model_dump()},
        }
        write_text(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")

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

    def encode_sample(
        self,
        sample: SampleLike,
        *,
        images: Sequence[Image.Image] = (),
        frames: Sequence[Image.Image] | None = None,
    ) -> EncodedSample:
        """Encode a training sample with its labels.

        Args:
            sample: The conversation.
            images: Its images, in placeholder order.
            frames: The frames of its video, or None.

        Raises:
            PlaceholderError: If placeholders and media disagree.
            DataError: If the conversation itself cannot be used.
        """
        ids, labels = format_conversation(sample.conversations, self.tokenizer)
        media = self._preprocess(images, frames, None, None)
        return self._expand(sample.id, ids, labels, media, is_video=frames is not None)

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
        """
        text = self.render_prompt(messages, enable_thinking=enable_thinking)
        ids = tokenize_with_placeholders(text, self.tokenizer)
        media = self._preprocess(images, frames, min_pixels, max_pixels)
        return self._expand("prompt", ids, None, media, is_video=frames is not None)

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
        min_pixels: int | None,
        max_pixels: int | None,
    ) -> list[tuple[Tensor, Grid]]:
        if frames is not None and images:
            raise ValueError("give images or the frames of one video, not both")
        if frames is not None:
            low, high = self.pixel_limits.bounds("video", len(frames))
        else:
            kind = "single_image" if len(images) == 1 else "multiple_image"
            low, high = self.pixel_limits.bounds(kind, max(1, len(images)))
        limits = {
            "min_pixels": low if min_pixels is None else min_pixels,
            "max_pixels": high if max_pixels is None else max_pixels,
        }
        groups = [list(frames)] if frames is not None else [[image] for image in images]
        return [self.image_processor.preprocess(group, **limits) for group in groups]

    def _expand(
        self,
        name: str,
        ids: list[int],
        labels: list[int] | None,
        media: list[tuple[Tensor, Grid]],
        *,
        is_video: bool,
    ) -> EncodedSample:
        grids = [grid for _, grid in media]
        counts = {
            "image": (ids.count(IMAGE_PLACEHOLDER_ID), 0 if is_video else len(grids)),
            "video": (ids.count(VIDEO_PLACEHOLDER_ID), len(grids) if is_video else 0),
        }
        for kind, (in_text, in_media) in counts.items():
            if in_text != in_media:
                raise PlaceholderError(name, kind=kind, in_text=in_text, in_media=in_media)
        ids, labels = expand_placeholders(ids, labels, grids)
        return EncodedSample(
            input_ids=torch.tensor(ids),
            labels=None if labels is None else torch.tensor(labels),
            pixel_values=torch.cat([patches for patches, _ in media]) if media else None,
            grid_thws=torch.tensor(grids) if media else None,
        )


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
        pixel_values [num_patches, 768] and grid_thws [num_media, 3] of all samples or None.

    Raises:
        ValueError: If `side` is neither.
    """
    if side not in {"left", "right"}:
        raise ValueError(f"side must be 'left' or 'right', not {side!r}")
    length = max(len(sample.input_ids) for sample in samples)
    has_labels = samples[0].labels is not None
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
        "pixel_values": torch.cat(patches) if patches else None,
        "grid_thws": torch.cat(grids) if grids else None,
    }
