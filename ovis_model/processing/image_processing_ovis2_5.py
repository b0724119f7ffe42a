"""Pixels to patches, bit for bit as the reference does it.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `smart_resize` and
`VisualTokenizer.preprocess`; exact with Pillow 10 to 12 (13 resizes differently).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ovis_model.processing.visual_tokens import HIDDEN_STRIDE, Grid

PATCH_SIZE = 16
#: Every side is a multiple of this many pixels, one visual token's worth.
FACTOR = PATCH_SIZE * HIDDEN_STRIDE
MAX_ASPECT_RATIO = 200
RESCALE = 0.00392156862745098
MEAN = STD = np.float32(0.5)


def smart_resize(
    height: int, width: int, *, min_pixels: int, max_pixels: int, factor: int = FACTOR
) -> tuple[int, int]:
    """Choose the size an image is resized to.

    Both sides become multiples of `factor` (rounded half to even), the area falls between the
    limits as far as that allows, and the shape stays close to the original.

    Args:
        height: Rows in pixels.
        width: Columns in pixels.
        min_pixels: Smallest area wanted, in pixels.
        max_pixels: Largest area wanted, in pixels.
        factor: Multiple of both sides, in pixels.

    Returns:
        New height and width in pixels.

    Raises:
        ValueError: If a side is below one pixel.

    Example:
        >>> smart_resize(480, 640, min_pixels=448 * 448, max_pixels=1792 * 1792)
        (480, 640)
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width} x {height} px has no pixels")
    rows, columns = float(height), float(width)
    if height < factor or width < factor:
        if height < width:
            rows, columns = factor, round(width / (height / factor))
        else:
            rows, columns = round(height / (width / factor)), factor
    elif max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        if height > width:
            rows, columns = MAX_ASPECT_RATIO * width, width
        else:
            rows, columns = height, MAX_ASPECT_RATIO * height
    new_rows, new_columns = round(rows / factor) * factor, round(columns / factor) * factor
    if new_rows * new_columns > max_pixels:
        beta = math.sqrt(rows * columns / max_pixels)
        new_rows = math.floor(rows / beta / factor) * factor
        new_columns = math.floor(columns / beta / factor) * factor
        return _without_empty_side(new_rows, new_columns, max_pixels, factor)
    if new_rows * new_columns < min_pixels:
        beta = math.sqrt(min_pixels / (rows * columns))
        new_rows = math.ceil(rows * beta / factor) * factor
        new_columns = math.ceil(columns * beta / factor) * factor
    return new_rows, new_columns


def _without_empty_side(rows: int, columns: int, max_pixels: int, factor: int) -> tuple[int, int]:
    # DIVERGES(resize-zero-side): the reference returns a side of 0 px for very thin images and
    # then crashes in the resize; here that side is one cell and the other gives way.
    if rows and columns:
        return rows, columns
    longest = max(factor, max_pixels // factor // factor * factor)
    if rows == columns:
        return factor, factor
    return (factor, min(columns, longest)) if rows == 0 else (min(rows, longest), factor)


def to_patches(frames: np.ndarray) -> np.ndarray:
    """Cut frames into patches.

    Args:
        frames: uint8 [t, height, width, 3], sides divisible by 32.

    Returns:
        uint8 [t * h * w, 768] with (h, w) in patches, in merge order (t, h / 2, w / 2, 2, 2);
        a patch lists channel, row, column.
    """
    t, height, width, channels = frames.shape
    blocks = frames.reshape(
        t,
        height // FACTOR,
        HIDDEN_STRIDE,
        PATCH_SIZE,
        width // FACTOR,
        HIDDEN_STRIDE,
        PATCH_SIZE,
        channels,
    )
    # (t, h2, i, y, w2, j, x, c) -> (t, h2, w2, i, j, c, y, x)
    ordered = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6)
    return ordered.reshape(-1, channels * PATCH_SIZE**2)


def normalize(patches: np.ndarray) -> np.ndarray:
    """Scale uint8 values to [-1, 1] in float32, rounding exactly where the reference rounds."""
    table = (np.arange(256, dtype=np.float64) * RESCALE).astype(np.float32)
    table = (table - MEAN) / STD
    result: np.ndarray = table[patches]  # a table of 256 values equals computing each one
    return result


class Ovis2_5ImageProcessor:
    """Resize, normalise and cut one medium."""

    def preprocess(
        self, frames: Sequence[Image.Image], *, min_pixels: int, max_pixels: int
    ) -> tuple[Tensor, Grid]:
        """Prepare one image, or all frames of one video.

        Args:
            frames: One image, or the frames of a video in order; the first frame's size decides
                for all.
            min_pixels: Smallest area per frame, in pixels.
            max_pixels: Largest area per frame, in pixels.

        Returns:
            Patches float32 [t * h * w, 768] in merge order, and the grid (t, h, w).

        Raises:
            ValueError: If there is no frame.
        """
        if not frames:
            raise ValueError("there is no frame to preprocess")
        columns, rows = frames[0].size
        height, width = smart_resize(rows, columns, min_pixels=min_pixels, max_pixels=max_pixels)
        resized = np.stack([_resize(frame, width, height) for frame in frames])
        patches = torch.from_numpy(normalize(to_patches(resized)))
        return patches, (len(frames), height // PATCH_SIZE, width // PATCH_SIZE)


def _resize(frame: Image.Image, width: int, height: int) -> np.ndarray:
    rgb = frame if frame.mode == "RGB" else frame.convert("RGB")
    return np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR))
