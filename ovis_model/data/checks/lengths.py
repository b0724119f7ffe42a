"""How long every sample will be for the model, exactly, and what makes the too long ones fit.

The numbers are those of training: the same processor, the same pixel limits, the same frames.
Imports torch, which the processor stands on; the rest of reading and checking data does not.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ovis_model.config import FrameSampling, OverLength, PixelLimits
from ovis_model.data.checks.text_facts import thoughts
from ovis_model.data.schema import Fit, Sample
from ovis_model.errors import DataError
from ovis_model.processing.conversation import format_conversation
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, SampleSize
from ovis_model.processing.tokenization import tokenize_all
from ovis_model.processing.visual_tokens import count_visual_tokens, expand_placeholders
from ovis_model.tokens import IGNORE_ID, INDICATOR_IDS, VISUAL_ATOM_ID

Size = tuple[int, int]
#: Area of one visual token, in pixels: the step in which pixel limits are tried.
_TOKEN_PIXELS = 32 * 32


@dataclass(frozen=True)
class LengthRules:
    """What decides how long a sample is, and how long it may be.

    Attributes:
        base_model: Folder of the checkpoint whose tokenizer counts.
        pixel_limits: Those of training.
        frame_sampling: That of extraction.
        multimodal_max_length: Tokens of a sample with an image or a video.
        text_max_length: Tokens of a sample without.
        thinking_budget: Tokens a thought will have in evaluation, or None for no limit.
        policy: What becomes of a sample that is too long.
    """

    base_model: Path
    pixel_limits: PixelLimits
    frame_sampling: FrameSampling
    multimodal_max_length: int
    text_max_length: int
    thinking_budget: int | None = None
    policy: OverLength = "error"


@dataclass(frozen=True, slots=True)
class Length:
    """What one sample comes to.

    Attributes:
        num_tokens: Positions in the sequence, with `fit` applied.
        num_supervised: Those of them that are learned.
        fit: Limits that make it fit, or None where none are needed.
        over: In words, by how much it is too long although the policy was tried, or None.
        is_dropped: Whether the policy says to leave it out.
        long_thought: In words, by how much a thought exceeds the budget, or None.
    """

    num_tokens: int
    num_supervised: int
    fit: Fit | None = None
    over: str | None = None
    is_dropped: bool = False
    long_thought: str | None = None


@dataclass(frozen=True)
class Shapes:
    """Sizes of a sample's media as they are shown, in pixels; None for what it does not have."""

    images: tuple[Size, ...] = ()
    frames: tuple[Size, ...] | None = None

    def first_frames(self, count: int) -> "Shapes":
        """Return the same with fewer frames."""
        assert self.frames is not None
        return Shapes(self.images, self.frames[:count])


@dataclass(frozen=True)
class LengthMeter:
    """Measures samples with the processor of the base model."""

    rules: LengthRules

    @cached_property
    def processor(self) -> Ovis2_5Processor:
        """The base model's processor with the settings of training.

        Raises:
            CheckpointError: If the folder has no tokenizer.
        """
        return Ovis2_5Processor.from_pretrained(self.rules.base_model).with_settings(
            pixel_limits=self.rules.pixel_limits, frame_sampling=self.rules.frame_sampling
        )

    def measure(self, sample: Sample, shapes: Shapes) -> Length | None:
        """Tell how long a sample is, and how it fits if it is too long.

        Returns:
            None if text and media do not belong together, which other rules say better.
        """
        try:
            size = self._size(sample, shapes)
        except DataError:
            return None
        limit = self._limit(size)
        thought = self._long_thought(sample)
        if size.num_tokens <= limit:
            return Length(size.num_tokens, size.num_supervised_tokens, long_thought=thought)
        visual = sum(count_visual_tokens(grid) for grid in size.grids)
        key = "multimodal_max_length" if size.grids else "text_max_length"
        over = f"{size.num_tokens:,} tokens, {visual:,} of them visual; train.{key} is {limit:,}"
        policy = self.rules.policy
        if policy == "drop":
            return Length(size.num_tokens, size.num_supervised_tokens, is_dropped=True)
        fit = self._find_fit(sample, shapes, limit)
        if fit is None:
            tried = f", and {policy} does not make it fit" if policy != "error" else ""
            return Length(size.num_tokens, size.num_supervised_tokens, over=over + tried)
        fitted = self._fitted_size(sample, shapes, fit)
        return Length(*fitted, fit=fit, long_thought=thought)

    def _size(self, sample: Sample, shapes: Shapes, max_pixels: int | None = None) -> SampleSize:
        return self.processor.measure_sample(
            sample, image_sizes=shapes.images, frame_sizes=shapes.frames, max_pixels=max_pixels
        )

    def _limit(self, size: SampleSize) -> int:
        rules = self.rules
        return rules.multimodal_max_length if size.grids else rules.text_max_length

    def _find_fit(self, sample: Sample, shapes: Shapes, limit: int) -> Fit | None:
        match self.rules.policy:
            case "shrink_pixels":
                return self._shrink_pixels(sample, shapes, limit)
            case "fewer_frames":
                return self._fewer_frames(sample, shapes, limit)
            case "truncate_text":
                return self._truncate_text(sample, shapes, limit)
            case _:
                return None

    def _fitted_size(self, sample: Sample, shapes: Shapes, fit: Fit) -> tuple[int, int]:
        if fit.max_frames is not None:
            shapes = shapes.first_frames(fit.max_frames)
        if fit.max_tokens is None:
            size = self._size(sample, shapes, fit.max_pixels)
            return size.num_tokens, size.num_supervised_tokens
        _, labels = self._expanded(sample, shapes)
        return fit.max_tokens, int((labels[: fit.max_tokens] != IGNORE_ID).sum())

    def _shrink_pixels(self, sample: Sample, shapes: Shapes, limit: int) -> Fit | None:
        """Find the highest pixel limit at which the sample fits; the model's minimum holds."""
        if not shapes.images and shapes.frames is None:
            return None
        low, high = self._pixel_bounds(shapes)

        def fits(max_pixels: int) -> bool:
            return self._size(sample, shapes, max_pixels).num_tokens <= limit

        if not fits(low):
            return None
        steps = (high - low) // _TOKEN_PIXELS
        first, last = 0, steps  # low + first * step fits
        while first < last:
            middle = (first + last + 1) // 2
            first, last = (
                (middle, last) if fits(low + middle * _TOKEN_PIXELS) else (first, middle - 1)
            )
        return Fit(max_pixels=low + first * _TOKEN_PIXELS)

    def _pixel_bounds(self, shapes: Shapes) -> tuple[int, int]:
        limits = self.rules.pixel_limits
        if shapes.frames is not None:
            return limits.bounds("video", len(shapes.frames))
        count = len(shapes.images)
        return limits.bounds("single_image" if count == 1 else "multiple_image", count)

    def _fewer_frames(self, sample: Sample, shapes: Shapes, limit: int) -> Fit | None:
        frames = shapes.frames or ()
        for count in range(len(frames) - 1, 0, -1):
            if self._size(sample, shapes.first_frames(count)).num_tokens <= limit:
                return Fit(max_frames=count)
        return None

    def _truncate_text(self, sample: Sample, shapes: Shapes, limit: int) -> Fit | None:
        """Cut the end off, if all media stand before the cut and something is left to learn."""
        ids, labels = self._expanded(sample, shapes)
        visual = np.isin(ids[limit:], (VISUAL_ATOM_ID, *INDICATOR_IDS))
        learns = bool((labels[:limit] != IGNORE_ID).any())
        return Fit(max_tokens=limit) if learns and not visual.any() else None

    def _expanded(self, sample: Sample, shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
        ids, labels = format_conversation(sample.conversations, self.processor.tokenizer)
        expanded, learned = expand_placeholders(ids, labels, self._size(sample, shapes).grids)
        assert learned is not None
        return expanded, learned

    def _long_thought(self, sample: Sample) -> str | None:
        budget = self.rules.thinking_budget
        # A token is at least one byte, so that most thoughts need no counting.
        suspects = [text for text in thoughts(sample) if budget and len(text.encode()) > budget]
        if not suspects:
            return None
        longest = max(map(len, tokenize_all(suspects, self.processor.tokenizer)))
        assert budget is not None
        return f"{longest:,} tokens, the budget is {budget:,}" if longest > budget else None
