"""Pictures that look the same, among millions: candidates by hash, then a look at their greys.

Near-identical pictures have nearly the same difference hash, so that one of a few pieces of it is
the same; only pictures that share a piece are compared.  Drawings on an empty ground share
hashes without being alike, which the greys tell.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: Bits that two difference hashes of one picture may differ in, after scaling or recompression.
MAX_DISTANCE = 3
#: Grey levels, of 255, that two tiny versions of one picture may differ by: in one place, and on
#: average.
MAX_DIFFERENCE, MAX_MEAN_DIFFERENCE = 24, 5
#: The hash is cut into one piece more than bits may differ: of equal pictures one piece is equal.
_PIECES = MAX_DISTANCE + 1
_PIECE_BITS = 64 // _PIECES
_HASH_DIGITS = 16
#: Hashes that are compared with each other at once, to bound memory.
_BLOCK = 2048


def near_duplicates(looks: Sequence[str]) -> np.ndarray:
    """Find pictures that look the same.

    Args:
        looks: What `ovis_model.data.media.images.look` said of each.

    Returns:
        int64 [num_pairs, 2]: for every pair found, the indices of the two pictures.  Of pictures
        with equal hashes each is paired with the first that it looks like.
    """
    if not looks:
        return np.empty((0, 2), dtype=np.int64)
    hashes = np.array([int(look[:_HASH_DIGITS], 16) for look in looks], dtype=np.uint64)
    greys = np.array(
        [np.frombuffer(bytes.fromhex(look[_HASH_DIGITS:]), dtype=np.uint8) for look in looks]
    ).astype(np.int16)  # [num_pictures, 64]
    firsts, pairs = _join_equal_hashes(hashes, greys)
    mask = np.uint64(2**_PIECE_BITS - 1)
    for piece in range(_PIECES):
        keys = ((hashes[firsts] >> np.uint64(piece * _PIECE_BITS)) & mask).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        bounds = np.flatnonzero(np.diff(keys[order], prepend=-1, append=-1))
        for begin, end in pairwise(bounds):
            if end - begin > 1:
                pairs += _close_pairs(hashes, greys, firsts[order[begin:end]])
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *pairs]), axis=0)


def _join_equal_hashes(
    hashes: np.ndarray, greys: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return one picture of each look, and the pairs of the others with theirs."""
    order = np.argsort(hashes, kind="stable")
    bounds = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order[0]] ^ np.uint64(1)))
    firsts: list[int] = []
    pairs: list[tuple[int, int]] = []
    for begin, end in pairwise([*bounds.tolist(), len(order)]):
        group: list[int] = []
        for index in order[begin:end].tolist():
            same = np.flatnonzero(_same_tones(greys[group], greys[index]))
            if same.size:
                pairs.append((group[int(same[0])], index))
            else:
                group.append(index)
        firsts += group
    return np.array(firsts), [np.array(pairs, dtype=np.int64).reshape(-1, 2)]


def _same_tones(some: np.ndarray, other: np.ndarray) -> np.ndarray:
    difference = np.abs(some - other)
    alike = (difference.max(axis=-1) <= MAX_DIFFERENCE) & (
        difference.mean(axis=-1) <= MAX_MEAN_DIFFERENCE
    )
    return np.asarray(alike)


def _close_pairs(hashes: np.ndarray, greys: np.ndarray, bucket: np.ndarray) -> list[np.ndarray]:
    found = []
    for begin in range(0, len(bucket), _BLOCK):
        block = bucket[begin : begin + _BLOCK]
        for at in range(begin, len(bucket), _BLOCK):
            other = bucket[at : at + _BLOCK]
            distance = np.bitwise_count(hashes[block][:, None] ^ hashes[other][None, :])
            left, right = np.nonzero(distance <= MAX_DISTANCE)
            pair = np.stack([block[left], other[right]], axis=1)
            pair = np.sort(pair[pair[:, 0] != pair[:, 1]], axis=1)
            if len(pair):
                found.append(pair[_same_tones(greys[pair[:, 0]], greys[pair[:, 1]])])
    return found
