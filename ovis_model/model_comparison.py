"""Two models, file by file: is one the other, and if not, by how much do their weights differ?"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ovis_model.reports import Report

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ".safetensors"


class FileComparison(Report):
    """One file of a model folder, in both models."""

    expected: str | None
    """sha256; None where only the other model has such a file."""
    found: str | None
    identical: bool
    max_abs_difference: float | None = None
    """Largest difference of two numbers of weights that can be compared."""


def compare_files(
    expected: Mapping[str, str], found: Mapping[str, str]
) -> dict[str, FileComparison]:
    """Compare what two manifests list, by name.

    Example:
        >>> compare_files({"a": "1", "b": "2"}, {"a": "1"})["b"].identical
        False
    """
    return {
        name: FileComparison(
            expected=expected.get(name),
            found=found.get(name),
            identical=expected.get(name) == found.get(name),
        )
        for name in sorted(expected.keys() | found.keys())
    }


def measure_differences(
    files: Mapping[str, FileComparison], expected: Path, found: Path
) -> dict[str, FileComparison]:
    """Say of every weight file that differs by how much, from the folders of both models."""
    return {
        name: one.model_copy(
            update={"max_abs_difference": largest_difference(expected / name, found / name)}
        )
        if name.endswith(WEIGHTS) and one.expected and one.found and not one.identical
        else one
        for name, one in files.items()
    }


def largest_difference(expected: Path, found: Path) -> float | None:
    """Return the largest absolute difference of two numbers in two weight files.

    None if there is none to be named: the files hold other tensors, or numbers that are not
    finite, or one of them is damaged.
    """
    # Imported here: torch takes seconds, and models that are identical are told by digests.
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        return _largest_difference(expected, found)
    except SafetensorError:
        return None


def _largest_difference(expected: Path, found: Path) -> float | None:
    largest = 0.0
    for one, other in _pairs(expected, found):
        if one is None or other is None or one.shape != other.shape:
            return None
        if one.numel():
            difference = float((one.double() - other.double()).abs().max())
            if not math.isfinite(difference):
                return None
            largest = max(largest, difference)
    return largest


def _pairs(expected: Path, found: Path) -> Iterator[tuple["Tensor | None", "Tensor | None"]]:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(expected, "pt") as one, safe_open(found, "pt") as other:
        names = set(one.keys()), set(other.keys())
        for name in sorted(names[0] | names[1]):
            yield (
                one.get_tensor(name) if name in names[0] else None,
                other.get_tensor(name) if name in names[1] else None,
            )
