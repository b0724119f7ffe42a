"""D2: what media files are, by their headers against decoding them, and from memory.

All three go the way of validation: `inspect_all` with two decoding processes, whose start and
processor time are counted.  Ten thousand JPEGs of about 0.12 megapixels and 29 kB are used ten
times each; a row is one use.
"""

import os
from collections.abc import Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data.annotations import save_jpeg
from benchmarks.data.cache import cache_folder, cached
from benchmarks.model.preprocessing import generated_image
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.config import MediaLimits
from ovis_model.data.checks.media_fact import Kind, MediaFact
from ovis_model.data.checks.media_index import Inspection, inspect_all
from ovis_model.data.decoding.pool import open_decoders

WORKERS = 2
PICTURE_SIZE = (400, 300)
#: Pictures are pieces of one that is larger by so many pixels a side.
_MARGIN = 700

Facts = Sequence[MediaFact]


def build_headers(seed: int, *, rows: int, files: int) -> Trial:
    """Make the trial of looking at headers against decoding."""
    folder = pictures(seed, files)
    media = _media(rows, files)
    return Trial(
        variants={
            "full decode": partial(look, folder, media, "decode"),
            "ours": partial(look, folder, media, "header"),
        },
        compare=same_headers,
        sha256=_digest(folder, rows, files),
    )


def build_rerun(seed: int, *, rows: int, files: int) -> Trial:
    """Make the trial of a run after one, nothing having changed."""
    folder = pictures(seed, files)
    media = _media(rows, files)
    memory = cached(
        f"pictures-{files}-{seed}.{rows}.jsonl", partial(_look_into, folder, media, "header")
    )
    return Trial(
        variants={
            "first header pass": partial(look_at_first, folder, media),
            "ours": partial(look, folder, media, "header", memory),
        },
        compare=same_facts,
        sha256=_digest(folder, rows, files),
    )


def pictures(seed: int, count: int) -> Path:
    """Return a folder of so many different JPEGs."""
    return cached(f"pictures-{count}-{seed}", partial(_write_pictures, seed, count))


def look(
    folder: Path, media: Sequence[tuple[Kind, str]], mode: str, memory: Path | None = None
) -> Facts:
    """Return a fact for each row."""
    limits = MediaLimits()
    with open_decoders(limits, workers=WORKERS) as decoders:
        return inspect_all(media, Inspection(folder, mode, limits, memory), decoders)


def look_at_first(folder: Path, media: Sequence[tuple[Kind, str]]) -> Facts:
    """Return a fact for each row, and remember what was found, as a first run does."""
    memory = cache_folder() / f"first-look.{os.getpid()}.jsonl"
    try:
        return look(folder, media, "header", memory)
    finally:
        memory.unlink()


def same_headers(expected: Facts, found: Facts) -> Agreement:
    """Ask for the same facts, apart from those that only pixels tell."""
    return same_facts(
        [replace(fact, pixels=None, look=None, notes=()) for fact in expected],
        [replace(fact, pixels=None, look=None, notes=()) for fact in found],
    )


def same_facts(expected: Facts, found: Facts) -> Agreement:
    """Ask for the same facts of files that can all be used."""
    if len(expected) != len(found):
        return Agreement(False, f"{len(found)} of {len(expected)} rows")
    if bad := sum(fact.problem is not None for fact in found):
        return Agreement(False, f"{bad} of {len(found)} files refused")
    different = sum(astuple(a) != astuple(b) for a, b in zip(expected, found, strict=True))
    if different:
        return Agreement(False, f"{different} of {len(expected)} rows differ")
    return Agreement(True, "same facts")


def _look_into(folder: Path, media: Sequence[tuple[Kind, str]], mode: str, memory: Path) -> None:
    look(folder, media, mode, memory)


def _media(rows: int, files: int) -> list[tuple[Kind, str]]:
    return [("image", f"{row % files}.jpg") for row in range(rows)]


def _digest(folder: Path, rows: int, files: int) -> str:
    sizes = [(folder / f"{number}.jpg").stat().st_size for number in range(files)]
    return digest(rows, sizes)


def _write_pictures(seed: int, count: int, folder: Path) -> None:
    folder.mkdir()
    width, height = PICTURE_SIZE
    whole = np.asarray(generated_image(seed, width + _MARGIN, height + _MARGIN))
    corners = np.random.default_rng(seed).integers(0, _MARGIN, (count, 2)).tolist()
    for number, (left, top) in enumerate(corners):
        piece = whole[top : top + height, left : left + width]
        save_jpeg(Image.fromarray(piece), folder / f"{number}.jpg", quality=90)
