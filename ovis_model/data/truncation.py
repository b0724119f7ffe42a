"""Cut an encoded sample to a limit without ever cutting an image or a video in half.

Only a sample that validation gave a limit of its own (`Fit.max_tokens`) is cut; any other that is
too long is an error in training, because what is cut off is the end of its last answer.

Source: AIDC-AI/Ovis @ 4de4946, `MultimodalDataset.truncate_inputs`.
"""

from dataclasses import replace

from torch import Tensor

from ovis_model.processing.processing_ovis2_5 import EncodedSample
from ovis_model.tokens import IMAGE_BEGIN_ID, IMAGE_END_ID, VIDEO_BEGIN_ID, VIDEO_END_ID


def truncate(encoded: EncodedSample, max_length: int) -> EncodedSample:
    """Keep the beginning of a sample.

    An image or a video of which the limit would leave only a part is dropped with everything
    after it, indicators and patches included; those before it stay.

    A truncated sample may have no label left, and, if it opens with media, no token either:
    the loss of such a sample is undefined, so callers must check before they train on one.

    Args:
        encoded: A sample with its visual positions expanded.
        max_length: Most tokens to keep, text and visual positions together.

    Returns:
        The sample itself if it is short enough, else a new one of at most `max_length` tokens,
        holding only the patches and grids of the media that are still in it.

    Raises:
        ValueError: If `max_length` is below one token.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1 token, got {max_length}")
    if len(encoded.input_ids) <= max_length:
        return encoded
    length, num_media = _cut(encoded.input_ids[:max_length])
    pixel_values, grid_thws = _first_media(encoded, num_media)
    return replace(
        encoded,
        input_ids=encoded.input_ids[:length],
        labels=None if encoded.labels is None else encoded.labels[:length],
        pixel_values=pixel_values,
        grid_thws=grid_thws,
    )


def _cut(input_ids: Tensor) -> tuple[int, int]:
    """Return how many tokens may stay, and how many media are whole among them."""
    begins = ((input_ids == IMAGE_BEGIN_ID) | (input_ids == VIDEO_BEGIN_ID)).nonzero().flatten()
    ends = (input_ids == IMAGE_END_ID) | (input_ids == VIDEO_END_ID)
    num_whole = int(ends.sum())
    if len(begins) == num_whole:
        return len(input_ids), num_whole
    # DIVERGES(truncation-complete-images): the reference goes back to the last text token, and
    # so drops whole images that stand directly before the one that does not fit.
    return int(begins[-1]), num_whole


def _first_media(encoded: EncodedSample, num_media: int) -> tuple[Tensor | None, Tensor | None]:
    """Return patches and grids of the first media, or None twice for no media."""
    if encoded.pixel_values is None or encoded.grid_thws is None or num_media == 0:
        return None, None
    grids = encoded.grid_thws[:num_media]
    num_patches = int(grids.prod(dim=1).sum())
    # A copy: a view would keep the patches that were cut off in memory.
    return encoded.pixel_values[:num_patches].clone(), grids
