"""How many positions media take in the sequence, and putting them there.

Source: AIDC-AI/Ovis @ 4de4946, `Ovis.merge_multimodal` and `construct_visual_placeholders`.
"""

from collections.abc import Sequence

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
) -> tuple[list[int], list[int] | None]:
    """Replace each placeholder by an indicator, visual positions and an indicator.

    Args:
        input_ids: Ids with one -200 (image) or -201 (video) per medium.
        labels: Labels of the same length, or None.
        grids: One (t, h, w) per medium, in order.

    Returns:
        Expanded ids and labels; nothing visual is learned.

    Raises:
        ValueError: If placeholders and media differ in number.

    Example:
        >>> expand_placeholders([1, -200, 2], [1, 1, 2], [(1, 2, 2)])
        ([1, -301, -300, -302, 2], [1, -100, -100, -100, 2])
    """
    in_text = sum(token in (IMAGE_PLACEHOLDER_ID, VIDEO_PLACEHOLDER_ID) for token in input_ids)
    if in_text != len(grids):
        raise ValueError(f"the text has {in_text} placeholder(s) for {len(grids)} media")
    remaining = iter(grids)
    expanded: list[int] = []
    learned: list[int] = []
    for position, token in enumerate(input_ids):
        if token == IMAGE_PLACEHOLDER_ID:
            block = _block(IMAGE_BEGIN_ID, IMAGE_END_ID, next(remaining))
        elif token == VIDEO_PLACEHOLDER_ID:
            block = _block(VIDEO_BEGIN_ID, VIDEO_END_ID, next(remaining))
        else:
            expanded.append(token)
            learned.append(IGNORE_ID if labels is None else labels[position])
            continue
        expanded += block
        learned += [IGNORE_ID] * len(block)
    return expanded, None if labels is None else learned


def _block(begin: int, end: int, grid: Grid) -> list[int]:
    return [begin, *[VISUAL_ATOM_ID] * (count_visual_tokens(grid) - NUM_INDICATORS), end]
