"""Handwritten digits as media: load and split them, draw images, canvases and clips.

Sizes are in pixels.  Array shapes are written [in, brackets].

Source: the UCI "Optical Recognition of Handwritten Digits" test set (Alpaydin and Kaynak,
CC BY 4.0), as scikit-learn carries it: 1797 scans of 8 x 8 px with 17 levels of ink.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moviepy import ImageSequenceClip
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

NUM_CLASSES = 10
MAX_INK = 16
#: A canvas for grounding has this many cells per side.
CANVAS_CELLS = 3
#: Without these, ffmpeg writes its version into the file; threads would also move bytes.
BIT_EXACT = ["-crf", "10", "-fflags", "+bitexact", "-flags:v", "+bitexact"]


@dataclass(frozen=True, eq=False)
class Digit:
    """One scan.

    Attributes:
        index: Its place in scikit-learn's set.
        label: The digit that was written, 0 to 9.
        ink: How dark each pixel is, 0 to 16, uint8 [8, 8].
    """

    index: int
    label: int
    ink: NDArray[np.uint8]


def load_distinct_digits() -> list[Digit]:
    """Load every scan once: of scans that are equal pixel by pixel, only the first stays."""
    scans = load_digits()
    seen: set[bytes] = set()
    digits = []
    for index, (ink, label) in enumerate(zip(scans.images, scans.target, strict=True)):
        scan = ink.astype(np.uint8)
        if scan.tobytes() not in seen:
            seen.add(scan.tobytes())
            digits.append(Digit(index=index, label=int(label), ink=scan))
    return digits


def split_digits(
    digits: Sequence[Digit], *, benchmark_fraction: float, seed: int
) -> tuple[list[Digit], list[Digit]]:
    """Split class by class, so that both parts hold every digit in the same proportion.

    Returns:
        The train part and the benchmark part, each in the order of `digits`.
    """
    rng = random.Random(seed)
    held_out: set[int] = set()
    for label in range(NUM_CLASSES):
        indices = [digit.index for digit in digits if digit.label == label]
        held_out.update(rng.sample(indices, round(len(indices) * benchmark_fraction)))
    train = [digit for digit in digits if digit.index not in held_out]
    return train, [digit for digit in digits if digit.index in held_out]


def draw_digit(digit: Digit, *, side: int) -> Image.Image:
    """Enlarge a scan to [side, side], dark ink on white paper, RGB."""
    paper = 255 - digit.ink.astype(np.float64) * (255 / MAX_INK)  # [8, 8]
    small = Image.fromarray(np.rint(paper).astype(np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def draw_canvas(placed: dict[int, Digit], *, side: int) -> Image.Image:
    """Draw digits into cells of a white canvas, RGB [3 * side, 3 * side].

    Args:
        placed: Digits by cell; cells count row by row from the top left.
        side: Side of one cell.
    """
    canvas = Image.new("RGB", (CANVAS_CELLS * side, CANVAS_CELLS * side), "white")
    for cell, digit in placed.items():
        row, column = divmod(cell, CANVAS_CELLS)
        canvas.paste(draw_digit(digit, side=side), (column * side, row * side))
    return canvas


class MediaFolder:
    """The media of one dataset: each file is written once and known by its relative path."""

    def __init__(self, root: Path, *, side: int, fps: int, frames_per_digit: int) -> None:
        self.root = root
        self.side = side
        self.fps = fps
        self.frames_per_digit = frames_per_digit
        for name in ("images", "videos"):
            (root / name).mkdir(parents=True)

    def add_digit(self, digit: Digit) -> str:
        """Write a digit's image, unless it is there, and return its path below the root."""
        path = f"images/digit_{digit.index:04d}.png"
        if not (self.root / path).exists():
            draw_digit(digit, side=self.side).save(self.root / path)
        return path

    def add_canvas(self, name: str, placed: dict[int, Digit]) -> str:
        """Write a canvas of several digits and return its path below the root."""
        path = f"images/{name}.png"
        draw_canvas(placed, side=self.side).save(self.root / path)
        return path

    def add_clip(self, name: str, digits: Sequence[Digit]) -> str:
        """Write an mp4 that shows the digits in turn and return its path below the root."""
        path = f"videos/{name}.mp4"
        pictures = [np.asarray(draw_digit(digit, side=self.side)) for digit in digits]
        frames = [picture for picture in pictures for _ in range(self.frames_per_digit)]
        ImageSequenceClip(frames, fps=self.fps).write_videofile(
            str(self.root / path),
            codec="libx264",
            audio=False,
            threads=1,
            ffmpeg_params=BIT_EXACT,
            logger=None,
        )
        return path
