"""S1: samples to rows that are full and cost eight processes the same.

    best fit by tokens  the longest sample first, always into the fullest row with room
    ours                windows of mixed samples, the costliest first, into the cheapest row

The goal is a fill of 0.98 and an imbalance of 1.05 at most, and two seconds for a million samples;
the agreement column says what either reached.
"""

from bisect import bisect_left, insort
from functools import partial
from typing import Any

import numpy as np

from benchmarks.suite import Agreement, Trial
from benchmarks.training import mix
from benchmarks.workload import digest
from ovis_model.data.packing import IntArray, PackedRows, num_tokens, pack, sample_costs

NUM_RANKS = 8
MIN_FILL, MAX_IMBALANCE = 0.98, 1.05


def build(seed: int, *, count: int, capacity: int) -> Trial:
    """Draw so many samples and offer both ways to pack them."""
    extents = mix.extents(count, seed)
    tokens, costs = num_tokens(extents), sample_costs(extents, mix.config())
    return Trial(
        variants={
            "best fit by tokens": partial(best_fit, tokens, capacity),
            "ours": partial(pack, tokens, costs, capacity=capacity, num_ranks=NUM_RANKS),
        },
        compare=lambda _, found: judge(found, tokens, costs, capacity),
        sha256=digest(tokens.tobytes(), costs.tobytes(), capacity),
    )


def best_fit(tokens: IntArray, capacity: int) -> IntArray:
    """Pack by tokens alone, as packers without a cost model do.

    Returns:
        The row of each sample, [num_samples].
    """
    row_of = np.zeros(len(tokens), dtype=np.int64)
    rooms: list[tuple[int, int]] = []  # of open rows, with their numbers, rising
    num_rows = 0
    lengths: list[int] = tokens.tolist()
    for sample in np.argsort(-tokens, kind="stable").tolist():
        length = lengths[sample]
        at = bisect_left(rooms, (length, -1))
        if at == len(rooms):
            room, row = capacity, num_rows
            num_rows += 1
        else:
            room, row = rooms.pop(at)
        row_of[sample] = row
        insort(rooms, (room - length, row))
    return row_of


def judge(found: Any, tokens: IntArray, costs: IntArray, capacity: int) -> Agreement:
    """Check that every sample is in one row that holds it, and of ours that the goals are met."""
    ours = isinstance(found, PackedRows)
    row_of = rows_of(found) if isinstance(found, PackedRows) else found
    if row_of.min() < 0:
        return Agreement(False, "a sample is in no row, or in two")
    sums = np.bincount(row_of, weights=tokens)
    if sums.max() > capacity:
        return Agreement(False, f"a row has {sums.max():.0f} tokens")
    fill = tokens.sum() / (len(sums) * capacity)
    imbalance = (
        found.imbalance() if ours else _imbalance(np.bincount(row_of, weights=costs).astype(float))
    )
    met = not ours or (fill >= MIN_FILL and imbalance <= MAX_IMBALANCE)
    return Agreement(met, f"fill {fill:.4f}, imbalance {imbalance:.3f}")


def rows_of(rows: PackedRows) -> IntArray:
    """Return the row of each sample; -1 for every sample if one is in none or in two."""
    row_of = np.full(len(rows.samples), -1, dtype=np.int64)
    row_of[rows.samples] = np.repeat(np.arange(len(rows)), np.diff(rows.bounds))
    return row_of


def _imbalance(costs: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Of rows in random order, as many processes at a time as there are."""
    shuffled = np.random.default_rng(0).permutation(costs)
    together = shuffled[: len(costs) // NUM_RANKS * NUM_RANKS].reshape(-1, NUM_RANKS)
    return float(together.max(axis=1).sum() / together.mean(axis=1).sum())
