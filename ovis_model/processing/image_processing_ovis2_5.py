"""Pixels to patches, byte for byte what the reference normalises.

Bytes travel and the model scales them (`normalize_patches`): a quarter of the size of floats,
and the same numbers, bit for bit.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `smart_resize` and
`VisualTokenizer.preprocess`; exact with Pillow 10 to 12 (13 resizes differently).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ovis_model.errors import DataError
from ovis_model.processing.aspect_ratio import MAX_ASPECT_RATIO
from ovis_model.processing.visual_tokens import HIDDEN_STRIDE, Grid

PATCH_SIZE = 16
#: Every side is a multiple of this many pixels, one visual token's worth.
FACTOR = PATCH_SIZE * HIDDEN_STRIDE
CHANNELS = 3
#: One row of one channel of a patch, moved as one item: 16 bytes.
_PATCH_ROW = np.dtype((np.void, PATCH_SIZE))

#: Width and height in pixels, as Pillow gives them.
Size = tuple[int, int]


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


def to_patches(frames: Sequence[Image.Image]) -> np.ndarray:
    """Cut frames into patches.

    Args:
        frames: t RGB images of one size, sides divisible by 32.

    Returns:
        uint8 [t * h * w, 768] with (h, w) in patches, in merge order (t, h / 2, w / 2, 2, 2);
        a patch lists channel, row, column.
    """
    columns, rows = frames[0].width // FACTOR, frames[0].height // FACTOR
    shape = (len(frames), rows, columns, HIDDEN_STRIDE, HIDDEN_STRIDE, CHANNELS, PATCH_SIZE)
    patches = np.empty(shape, _PATCH_ROW)
    for number, frame in enumerate(frames):
        # DIVERGES(flat-images): bands are asked of the image by name, not guessed from the shape
        # of an array; the reference takes an image of 1 or 3 rows for channels.
        for channel, band in enumerate(frame.split()):
            # (h2, i, y, w2, j) -> (h2, w2, i, j, y)
            raster = np.frombuffer(band.tobytes(), _PATCH_ROW)
            raster = raster.reshape(rows, HIDDEN_STRIDE, PATCH_SIZE, columns, HIDDEN_STRIDE)
            patches[number, ..., channel, :] = raster.transpose(0, 3, 1, 4, 2)
    return patches.view(np.uint8).reshape(-1, CHANNELS * PATCH_SIZE**2)


class Ovis2_5ImageProcessor:
    """Resize one medium and cut it into patches."""

    def grid(
        self, width: int, height: int, *, num_frames: int = 1, min_pixels: int, max_pixels: int
    ) -> Grid:
        """Tell the grid of an image, or of a video's frames, from its size alone.

        Args:
            width: Columns in pixels, as the image is shown.
            height: Rows in pixels.
            num_frames: Frames of a video.
            min_pixels: Smallest area per frame, in pixels.
            max_pixels: Largest area per frame, in pixels.

        Returns:
            (t, h, w): frames, then rows and columns of patches.

        Raises:
            ValueError: If a side is below one pixel, or the limits are not
                0 < min_pixels <= max_pixels.
        """
        if not 0 < min_pixels <= max_pixels:
            raise ValueError(
                f"min_pixels ({min_pixels} px) and max_pixels ({max_pixels} px) must be above 0 "
                "and in this order; change one of them"
            )
        rows, columns = smart_resize(height, width, min_pixels=min_pixels, max_pixels=max_pixels)
        return num_frames, rows // PATCH_SIZE, columns // PATCH_SIZE

    def preprocess(
        self, frames: Sequence[Image.Image], *, min_pixels: int, max_pixels: int
    ) -> tuple[Tensor, Grid]:
        """Prepare one image, or all frames of one video.

        Args:
            frames: One image, or the frames of a video in order.  All of them are resized to the
                target of the first; `Ovis2_5Processor` takes frames of one size only.
            min_pixels: Smallest area per frame, in pixels.
            max_pixels: Largest area per frame, in pixels.

        Returns:
            Patches uint8 [t * h * w, 768] in merge order, and the grid (t, h, w).

        Raises:
            ValueError: If there is no frame, a frame has no pixels, or the limits are not
                0 < min_pixels <= max_pixels.
        """
        if not frames:
            raise ValueError("there is no frame to preprocess; give one image or a video's frames")
        grid = self.grid(
            *frames[0].size, num_frames=len(frames), min_pixels=min_pixels, max_pixels=max_pixels
        )
        size = (grid[2] * PATCH_SIZE, grid[1] * PATCH_SIZE)
        return torch.from_numpy(to_patches([_resize(frame, size) for frame in frames])), grid


def check_frame_sizes(sizes: Sequence[Size]) -> None:
    """Refuse a video whose frames differ in size.

    Args:
        sizes: (width, height) of each frame, in pixels.

    Raises:
        DataError: Naming the first frame that differs from frame 1, and both sizes.
    """
    for number, size in enumerate(sizes, start=1):
        if size != sizes[0]:
            # DIVERGES(mixed-frame-sizes): the reference stretches every frame to the shape of
            # the first one without a word.
            raise DataError(
                f"frame {number} of the video is {size[0]} x {size[1]} px and frame 1 is "
                f"{sizes[0][0]} x {sizes[0][1]} px; crop or scale the frames to one size"
            )


def _resize(frame: Image.Image, size: Size) -> Image.Image:
    rgb = frame if frame.mode == "RGB" else frame.convert("RGB")
    return rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BILINEAR)
