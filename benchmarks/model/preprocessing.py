"""P1: an image to patches, against transformers' SigLIP image processor and numpy.

What the reference does, in our words: the processor resizes with PIL, rescales and normalises to
float32 [3, height, width]; numpy then stacks the frames, cuts them into patches in merge order and
torch copies the result.  Ours ships bytes, and the vision tower normalises them.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from benchmarks.model.agreement import bitwise
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor, smart_resize

#: The trainer's limits for a single image, in pixels.
LIMITS = {"min_pixels": 448 * 448, "max_pixels": 1792 * 1344}
PATCH, STRIDE = 16, 2


def build(seed: int, *, width: int, height: int) -> Trial:
    """Make the trial for an image of this many pixels."""
    image = generated_image(seed, width, height)
    return Trial(
        variants={
            "SiglipImageProcessor + numpy": partial(with_stock_parts, stock_processor(), image),
            "ours, normalised at once": partial(ours_normalised, image),
            "ours": partial(ours, image),
        },
        compare=same_patches,
        sha256=digest(width, height, torch.from_numpy(np.array(image))),
    )


def stock_processor() -> SiglipImageProcessorPil:
    """Build transformers' processor with the settings of the released checkpoints."""
    return SiglipImageProcessorPil(
        resample=Image.Resampling.BILINEAR, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def generated_image(seed: int, width: int, height: int) -> Image.Image:
    """Make an RGB image with shapes and a little noise, as a photograph has."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 64 + 2, width // 64 + 2, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.integers(0, 16, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(smooth) // 17 * 16 + noise)


def with_stock_parts(
    processor: SiglipImageProcessorPil,
    image: Image.Image,
    limits: Mapping[str, int] = MappingProxyType(LIMITS),
) -> Tensor:
    """Return float32 [num_patches, 768] as the reference makes them."""
    height, width = smart_resize(image.height, image.width, **limits)
    pixels = processor.preprocess(
        image.convert("RGB"), size={"height": height, "width": width}, return_tensors="np"
    )["pixel_values"][0]
    frames = np.array([pixels])  # [1, 3, height, width]
    cell = (STRIDE, PATCH)
    blocks = frames.reshape(
        1, 3, height // (PATCH * STRIDE), *cell, width // (PATCH * STRIDE), *cell
    )
    ordered = blocks.transpose(0, 2, 5, 3, 6, 1, 4, 7)  # (t, h2, w2, i, j, c, y, x)
    return torch.tensor(ordered.reshape(-1, 3 * PATCH**2))


def ours(image: Image.Image) -> Tensor:
    """Return uint8 [num_patches, 768]."""
    patches, _ = Ovis2_5ImageProcessor().preprocess([image], **LIMITS)
    return patches


def ours_normalised(image: Image.Image) -> Tensor:
    """Return float32 [num_patches, 768], what the tower makes of the bytes."""
    return normalize_patches(ours(image))


def same_patches(expected: Tensor, found: Tensor) -> Agreement:
    """Compare what the vision tower computes with: bytes are normalised as it does."""
    return bitwise(expected, normalize_patches(found))
