"""Comparisons that several cases share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.suite import Agreement


def bitwise(expected: Tensor, found: Tensor) -> Agreement:
    """Ask for the same type, shape and bits."""
    if expected.dtype != found.dtype or expected.shape != found.shape:
        return Agreement(False, f"{found.dtype} {tuple(found.shape)}")
    different = int((expected != found).sum())
    return Agreement(not different, f"{different} differ" if different else "bitwise")


def same_ids(expected: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> Agreement:
    """Ask for the same sequences of ids."""
    if len(expected) != len(found):
        return Agreement(False, f"{len(found)} of {len(expected)} sequences")
    different = sum(list(a) != list(b) for a, b in zip(expected, found, strict=True))
    if different:
        return Agreement(False, f"{different} of {len(expected)} sequences differ")
    return Agreement(True, "same ids")


def close_to_exact(
    exact: Sequence[Tensor], found: Sequence[Tensor], *, tolerance: float
) -> Agreement:
    """Ask for results close to those computed in float64.

    The error of a tensor is the norm of its difference over the norm of the exact one.
    """
    errors = [relative_error(a, b) for a, b in zip(exact, found, strict=True)]
    worst = max(errors)
    return Agreement(worst <= tolerance, f"error {worst:.1e} of {tolerance:.0e}")


def relative_error(exact: Tensor, found: Tensor) -> float:
    """Return the norm of the difference over the norm of the exact tensor; NaN counts as 1e9."""
    difference = torch.linalg.vector_norm(found.double() - exact)
    error = float(difference / torch.linalg.vector_norm(exact))
    return error if error == error else 1e9  # noqa: PLR0124 - NaN alone differs from itself
