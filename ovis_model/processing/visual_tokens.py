"""How many positions media take in the sequence, and putting them there.

Source: AIDC-AI/Ovis @ 4de4946, `Ovis.merge_multimodal` and `construct_visual_placeholders`.
"""

from collections.abc import Sequence

import numpy as np

from ovis_model.tokens import (
    IGNORE_ID,
    IMAGE_BEGIN_ID,
    IMAGE_END_ID,
    IMAGE_PLACEHOLDER_ID,
    VIDEO_BEGIN_ID,
    VIDEO_END_ID,
    VIDEO_PLACEHOLDER_ID,
    VISUAL_ATOM_ID,
)

HIDDEN_STRIDE = 2
#: An indicator token opens every medium and another closes it.
NUM_INDICATORS = 2

Grid = tuple[int, int, int]


def count_visual_tokens(grid: Grid) -> int:
    """Count the sequence positions a medium occupies, its two indicators included.

    Args:
        grid: Frames, rows and columns of patches.

    Raises:
        ValueError: If the grid does not divide into 2x2 patches, i.e. it was not made by
            `Ovis2_5ImageProcessor`, which rounds every side to 32 px.

    Example:
        >>> count_visual_tokens((1, 28, 28))  # 448 px x 448 px
        198
    """
    t, h, w = grid
    if h % HIDDEN_STRIDE or w % HIDDEN_STRIDE:
        raise ValueError(f"grid (t, h, w) = {grid} does not divide into 2x2 patches")
    return t * h * w // HIDDEN_STRIDE**2 + NUM_INDICATORS


def expand_placeholders(
    input_ids: Sequence[int], labels: Sequence[int] | None, grids: Sequence[Grid]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Replace each placeholder by an indicator, visual positions and an indicator.

    Args:
        input_ids: Ids with one -200 (image) or -201 (video) per medium.
        labels: Labels of the same length, or None.
        grids: One (t, h, w) per medium, in order.

    Returns:
        Expanded ids and labels, int64 [seq_len]; nothing visual is learned.

    Raises:
        ValueError: If placeholders and media differ in number.

    Example:
        >>> ids, labels = expand_placeholders([1, -200, 2], [1, 1, 2], [(1, 2, 2)])
        >>> ids.tolist(), labels.tolist()
        ([1, -301, -300, -302, 2], [1, -100, -100, -100, 2])
    """
    ids = np.array(input_ids, dtype=np.int64)
    places = np.flatnonzero((ids == IMAGE_PLACEHOLDER_ID) | (ids == VIDEO_PLACEHOLDER_ID))
    if len(places) != len(grids):
        raise ValueError(f"the text has {len(places)} placeholder(s) for {len(grids)} media")
    lengths = np.ones(len(ids), dtype=np.int64)
    lengths[places] = [count_visual_tokens(grid) for grid in grids]
    last = lengths.cumsum()[places] - 1  # where each medium's end indicator goes
    first = last - lengths[places] + 1
    is_image = ids[places] == IMAGE_PLACEHOLDER_ID
    ids[places] = VISUAL_ATOM_ID
    expanded = ids.repeat(lengths)
    expanded[first] = np.where(is_image, IMAGE_BEGIN_ID, VIDEO_BEGIN_ID)
    expanded[last] = np.where(is_image, IMAGE_END_ID, VIDEO_END_ID)
    if labels is None:
        return expanded, None
    learned = np.array(labels, dtype=np.int64)
    learned[places] = IGNORE_ID
    return expanded, learned.repeat(lengths)
