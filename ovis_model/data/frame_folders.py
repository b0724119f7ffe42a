"""A folder of pictures stands for a video: its files, in the order a person would name them."""

import re
from pathlib import Path

from ovis_model.errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def list_pictures(folder: Path) -> list[Path]:
    """List the images of a folder by name, 2 before 10.

    Raises:
        DataError: If it holds none.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found, key=lambda path: _natural_order(path.name))


def _natural_order(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)  # text, number, text, ...
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
