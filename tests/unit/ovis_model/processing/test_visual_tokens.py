import pytest

from ovis_model.processing.visual_tokens import count_visual_tokens, expand_placeholders


@pytest.mark.parametrize(
    ("grid", "tokens"),
    [
        pytest.param((1, 2, 2), 3, id="smallest grid: 1 token and 2 indicators"),
        pytest.param((1, 28, 28), 198, id="448 px square"),
        pytest.param((1, 112, 112), 3138, id="1792 px square"),
        pytest.param((8, 28, 28), 1570, id="video of 8 frames"),
    ],
)
def test_counts_merged_patches_and_two_indicators(grid, tokens):
    assert count_visual_tokens(grid) == tokens


def test_a_grid_that_does_not_merge_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 4\) does not divide"):
        count_visual_tokens((1, 3, 4))


def test_a_video_is_one_block_between_its_own_indicators():
    ids, labels = expand_placeholders([7, -201, 8], [7, 7, 8], [(2, 2, 2)])
    assert ids.tolist() == [7, -303, -300, -300, -304, 8]
    assert labels.tolist() == [7, -100, -100, -100, -100, 8]


@pytest.mark.parametrize("grids", [[], [(1, 2, 2), (1, 2, 2)]], ids=["too few", "too many"])
def test_placeholders_and_media_must_agree(grids):
    with pytest.raises(ValueError, match="1 placeholder"):
        expand_placeholders([1, -200], None, grids)
