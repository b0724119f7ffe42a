"""Which samples share a row, and in which order the rows are trained on.

A row is one sequence of whole samples, so nothing is padded.  Attention in the vision tower grows
with the square of a picture: rows of equally many tokens can differ threefold in work, and the
processes that train together wait for the slowest.  So rows are filled by tokens and balanced by
floating point operations.

    num_samples   of an epoch
    num_rows      a multiple of the number of processes
    num_windows   parts that are packed independently, all in the same few array operations

Costs are whole numbers: every process computes the same rows, whatever its processor rounds like.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
import numpy.typing as npt

from ovis_model.data.dataset import Extent
from ovis_model.errors import DataError
from ovis_model.flops import FlopCounter
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.processing.visual_tokens import HIDDEN_STRIDE

IntArray = npt.NDArray[np.int64]

#: Rows that one window fills.  More find a place for more samples and take as much longer.
ROWS_PER_WINDOW = 32
#: Share of its cost by which a row may change places with others, for other groups every epoch.
ORDER_JITTER = 0.01
_NO_ROOM = np.iinfo(np.int64).max


@dataclass(frozen=True)
class CostModel:
    """Floating point operations of one forward pass, by what a sample is made of.

    The backward pass costs twice as much throughout, which changes no comparison.

    Attributes:
        per_token: The language model's matrices, for each position.
        per_visual_token: The vision tower's matrices, head and visual embedding table.
        per_squared_patches: Attention of the tower; a picture or frame of p patches has p * p.
        per_squared_tokens: Causal attention of the language model within a sample.
        per_supervised_token: The output embedding, applied where something is learned.
    """

    per_token: int
    per_visual_token: int
    per_squared_patches: int
    per_squared_tokens: int
    per_supervised_token: int

    @classmethod
    def of(cls, config: Ovis2_5Config) -> Self:
        """Take the counter's figures; a windowed block's attention is left out.

        Example:
            >>> CostModel.of(Ovis2_5Config(llm_config={"hidden_size": 2048})).per_squared_patches
            124416
        """
        counter = FlopCounter(config)
        full = config.vit.full_attention_blocks
        num_full = counter.num_blocks if full is None else len(full)
        patch = counter.patch_embedding + counter.num_blocks * counter.block
        return cls(
            per_token=counter.token,
            per_visual_token=HIDDEN_STRIDE**2 * patch + counter.head + counter.vte,
            per_squared_patches=4 * config.vit.hidden_size * num_full,
            per_squared_tokens=counter.causal,
            per_supervised_token=counter.lm_head,
        )


def sample_costs(extents: Sequence[Extent], config: Ovis2_5Config) -> IntArray:
    """Estimate the operations of each sample's forward pass; the one place that does.

    Args:
        extents: Of the samples.
        config: The model's.

    Returns:
        Operations, [num_samples].
    """
    model = CostModel.of(config)
    tokens = num_tokens(extents)
    supervised = _counts(extent.num_supervised for extent in extents)
    num_media = _counts(len(extent.grids) for extent in extents)
    grids = chain.from_iterable(chain.from_iterable(extent.grids for extent in extents))
    frames, height, width = _counts(grids).reshape(-1, 3).T
    patches = height * width
    owner = np.repeat(np.arange(len(extents)), num_media)
    media = frames * (
        patches // HIDDEN_STRIDE**2 * model.per_visual_token
        + patches**2 * model.per_squared_patches
    )
    costs = (
        tokens * model.per_token
        + tokens**2 * model.per_squared_tokens
        + supervised * model.per_supervised_token
    )
    np.add.at(costs, owner, media)
    return costs


def num_tokens(extents: Sequence[Extent]) -> IntArray:
    """Return the tokens of each sample, [num_samples]."""
    return _counts(extent.num_tokens for extent in extents)


def _counts(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Every sample in exactly one row; the same for every epoch, in another order.

    Attributes:
        samples: Numbers of the samples, row after row, [num_samples].
        bounds: Where each row begins in `samples`, and the end of the last, [num_rows + 1].
        tokens: Of each row, [num_rows].
        costs: Operations of each row, [num_rows].
        capacity: Tokens a row may have.
        num_ranks: Processes that train together.
        seed: Of the order.
    """

    samples: IntArray
    bounds: IntArray
    tokens: IntArray
    costs: IntArray
    capacity: int
    num_ranks: int
    seed: int

    def __len__(self) -> int:
        return len(self.tokens)

    def row(self, number: int) -> list[int]:
        """Return the numbers of the samples in a row."""
        found: list[int] = self.samples[self.bounds[number] : self.bounds[number + 1]].tolist()
        return found

    def order(self, epoch: int) -> IntArray:
        """Return the numbers of all rows in the order of an epoch, a function of seed and epoch.

        Each stretch of `num_ranks` rows is what the processes work on at the same time; their
        costs are close to each other.
        """
        rng = np.random.default_rng((self.seed, epoch))
        jittered = self.costs * rng.uniform(1, 1 + ORDER_JITTER, len(self))
        groups = jittered.argsort(kind="stable").reshape(-1, self.num_ranks)
        rng.shuffle(groups)
        return rng.permuted(groups, axis=1).reshape(-1)

    @property
    def fill(self) -> float:
        """Share of the rows' room that is taken."""
        return float(self.tokens.sum() / (len(self) * self.capacity))

    def imbalance(self, epoch: int = 0) -> float:
        """Return how much longer an epoch takes because processes wait for the slowest."""
        together = self.costs[self.order(epoch)].reshape(-1, self.num_ranks).astype(float)
        return float(together.max(axis=1).sum() / together.mean(axis=1).sum())


def pack(
    tokens: IntArray, costs: IntArray, *, capacity: int, num_ranks: int = 1, seed: int = 0
) -> PackedRows:
    """Pack an epoch's samples into rows.

    The samples are dealt out to windows so that each gets its share of every kind, and every
    window puts the costliest sample first, always into its cheapest row with room.  A window
    has fewer rows than its samples would need; those left over are dealt out once more.

    Args:
        tokens: Of each sample, int64 [num_samples].
        costs: Operations of each sample, int64 [num_samples], above 0.
        capacity: Tokens a row may have.
        num_ranks: Processes that train together: the number of rows is a multiple of it.
        seed: Other seeds give other rows.

    Raises:
        ValueError: If there is no sample, or one has no token or more than a row may have.
        DataError: If there are too few samples to give every process the same number of rows.
    """
    if not len(tokens) or tokens.min() < 1 or tokens.max() > capacity:
        raise ValueError(f"there must be samples, each of 1 to capacity={capacity} tokens")
    row_of = _fill_rows(tokens, costs, capacity, np.random.default_rng(seed))
    samples = np.lexsort((row_of,))  # stable: in a row, samples keep their order
    starts = np.flatnonzero(np.diff(row_of[samples], prepend=-1))
    samples, starts = _divide_evenly(samples, starts, costs, num_ranks)
    return PackedRows(
        samples=samples,
        bounds=np.append(starts, len(samples)),
        tokens=np.add.reduceat(tokens[samples], starts),
        costs=np.add.reduceat(costs[samples], starts),
        capacity=capacity,
        num_ranks=num_ranks,
        seed=seed,
    )


def _fill_rows(
    tokens: IntArray, costs: IntArray, capacity: int, rng: np.random.Generator
) -> IntArray:
    """Return the row of each sample, [num_samples]; row numbers may have gaps."""
    row_of = np.full(len(tokens), -1, dtype=np.int64)
    first_row = 0
    left = np.argsort(-costs, kind="stable")
    while len(left):
        dealt = _deal(left, round(tokens[left].sum() / (capacity * ROWS_PER_WINDOW)), rng)
        rows = _fill_windows(dealt, tokens, costs, capacity)
        placed = rows >= 0
        row_of[dealt[placed]] = first_row + rows[placed]
        first_row += int(rows.max()) + 1
        left = left[row_of[left] < 0]
    return row_of


def _deal(samples: IntArray, num_windows: int, rng: np.random.Generator) -> IntArray:
    """Deal sorted samples out like cards, [cards, num_windows]; -1 where there is none left."""
    num_windows = max(1, num_windows)
    cards = -(-len(samples) // num_windows)
    padded = np.full(cards * num_windows, -1, dtype=np.int64)
    padded[: len(samples)] = samples
    return rng.permuted(padded.reshape(cards, num_windows), axis=1)


def _fill_windows(dealt: IntArray, tokens: IntArray, costs: IntArray, capacity: int) -> IntArray:
    """Fill the rows of all windows, one card of each at a time.

    Returns:
        The row of each card, numbered through all windows, or -1, [cards, num_windows].
    """
    is_sample = dealt >= 0
    card_tokens = np.where(is_sample, tokens[dealt], 0)
    card_costs = np.where(is_sample, costs[dealt], 0)
    # Rounded down: rows are stuffed, and what finds no room waits for the next round.
    num_rows = np.maximum(1, card_tokens.sum(axis=0) // capacity)  # [num_windows]
    most = int(num_rows.max())
    room = np.where(np.arange(most) < num_rows[:, None], capacity, -1)  # [num_windows, most]
    load = np.zeros_like(room)
    windows = np.arange(len(num_rows))
    rows = np.full(dealt.shape, -1, dtype=np.int64)
    for card, size in enumerate(card_tokens):
        chosen = np.where(room >= size[:, None], load, _NO_ROOM).argmin(axis=1)
        fits = (room[windows, chosen] >= size) & is_sample[card]
        at = windows[fits], chosen[fits]
        room[at] -= size[fits]
        load[at] += card_costs[card, fits]
        rows[card, fits] = at[0] * most + at[1]
    return rows


def _divide_evenly(
    samples: IntArray, starts: IntArray, costs: IntArray, num_ranks: int
) -> tuple[IntArray, IntArray]:
    """Cut the cheapest rows into pieces until the number of rows is a multiple of `num_ranks`.

    Cheapest, for the pieces are trained on together: what costs time is their costliest.
    """
    missing = -len(starts) % num_ranks
    if not missing:
        return samples, starts
    by_cost = np.add.reduceat(costs[samples], starts).argsort(kind="stable")
    rows = np.split(samples, starts[1:])
    num_cut = len(starts) % num_ranks
    while sum(len(rows[row]) for row in by_cost[:num_cut]) < num_cut + missing:
        num_cut += num_ranks
        if num_cut > len(starts):
            raise DataError(
                f"{len(samples)} samples make {len(starts)} packed row(s), too few of which hold "
                f"more than one sample to give each of {num_ranks} processes the same number; "
                "raise train.pack_length, start fewer processes, or say train.packing: false"
            )
    pieces = _cut([rows[row] for row in by_cost[:num_cut]], num_cut + missing, costs)
    rows = [*(rows[row] for row in np.sort(by_cost[num_cut:])), *pieces]
    lengths = [len(row) for row in rows]
    return np.concatenate(rows), np.cumsum([0, *lengths[:-1]])


def _cut(rows: Sequence[IntArray], num_pieces: int, costs: IntArray) -> list[IntArray]:
    """Cut the costliest row that has two samples in two, until there are so many pieces."""
    whole = [row for row in rows if len(row) == 1]
    # A row's first sample decides between equal costs: arrays cannot be compared.
    heap = [(-int(costs[row].sum()), int(row[0]), row) for row in rows if len(row) > 1]
    heapq.heapify(heap)
    while len(whole) + len(heap) < num_pieces:
        *_, row = heapq.heappop(heap)
        for piece in _halves(row, costs):
            if len(piece) == 1:
                whole.append(piece)
            else:
                heapq.heappush(heap, (-int(costs[piece].sum()), int(piece[0]), piece))
    return [*whole, *(row for *_, row in heap)]


def _halves(row: IntArray, costs: IntArray) -> tuple[IntArray, IntArray]:
    """Divide a row's samples between two rows of about the same cost."""
    halves: tuple[list[int], list[int]] = ([], [])
    loads = [0, 0]
    for sample in row[np.argsort(-costs[row], kind="stable")]:
        lighter = loads.index(min(loads))
        halves[lighter].append(int(sample))
        loads[lighter] += int(costs[sample])
    return np.sort(halves[0]), np.sort(halves[1])
