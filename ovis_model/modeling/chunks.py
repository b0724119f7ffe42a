"""Cutting rows into chunks of equal size."""

from itertools import pairwise


def equal_chunks(num_rows: int, largest: int) -> list[slice]:
    """Cut rows into as few chunks as the largest size allows, all of nearly the same size.

    A short last chunk would read all of a weight matrix for a few rows.

    Args:
        num_rows: Rows in all; none give one empty chunk.
        largest: Rows of the largest chunk allowed.

    Example:
        >>> equal_chunks(10, 4)
        [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """
    count = max(1, -(-num_rows // largest))
    bounds = [num_rows * number // count for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]
