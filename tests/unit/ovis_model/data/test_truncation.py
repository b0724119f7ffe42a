from dataclasses import replace

import pytest
import torch

from ovis_model.data.truncation import truncate
from ovis_model.processing.processing_ovis2_5 import EncodedSample
from ovis_model.processing.visual_tokens import expand_placeholders

CELL = (1, 2, 2)  # one visual token, three positions with its indicators
PAIR = (1, 2, 4)  # two visual tokens, four positions


def encode(ids, grids=(), *, labels=True):
    """Encode a sample whose patches are numbered, so that a test sees which ones stayed."""
    expanded, learned = expand_placeholders(ids, ids, grids)
    num_patches = sum(t * h * w for t, h, w in grids)
    rows = torch.arange(num_patches, dtype=torch.uint8)[:, None].expand(-1, 768)
    return EncodedSample(
        input_ids=torch.tensor(expanded),
        labels=torch.tensor(learned) if labels else None,
        pixel_values=rows.clone() if grids else None,
        grid_thws=torch.tensor(grids) if grids else None,
    )


@pytest.mark.parametrize("max_length", [3, 4], ids=["exactly as long", "longer"])
def test_a_sample_that_fits_is_returned_as_it_is(max_length):
    sample = encode([1, 2, 3])
    assert truncate(sample, max_length) is sample


def test_text_is_cut_at_the_limit_and_its_labels_with_it():
    cut = truncate(encode([1, 2, 3]), 2)
    assert cut.input_ids.tolist() == [1, 2]
    assert cut.labels.tolist() == [1, 2]
    assert cut.pixel_values is None
    assert cut.grid_thws is None


def test_a_prompt_has_no_labels_before_and_none_afterwards():
    assert truncate(encode([1, 2], labels=False), 1).labels is None


# 1, begin, atom, end, begin, atom, atom, end, 2
@pytest.mark.parametrize(
    ("max_length", "length", "num_media"),
    [
        pytest.param(8, 8, 2, id="after the second image"),
        pytest.param(7, 4, 1, id="before the second image's end indicator"),
        pytest.param(6, 4, 1, id="inside the second image"),
        pytest.param(5, 4, 1, id="after the second image's begin indicator"),
        pytest.param(4, 4, 1, id="after the first image"),
        pytest.param(3, 1, 0, id="inside the first image"),
        pytest.param(1, 1, 0, id="before the first image"),
    ],
)
def test_whole_images_stay_when_the_next_one_does_not_fit(max_length, length, num_media):
    """DIVERGES(truncation-complete-images)."""
    sample = encode([1, -200, -200, 2], [CELL, PAIR])
    cut = truncate(sample, max_length)
    assert torch.equal(cut.input_ids, sample.input_ids[:length])
    assert torch.equal(cut.labels, sample.labels[:length])
    if num_media == 0:
        assert cut.pixel_values is None
        assert cut.grid_thws is None
    else:
        assert cut.grid_thws.tolist() == [list(CELL), list(PAIR)][:num_media]
        assert cut.pixel_values[:, 0].tolist() == list(range([4, 12][num_media - 1]))


def test_a_video_that_does_not_fit_is_dropped_whole():
    cut = truncate(encode([1, 2, -201, 3], [(3, 2, 2)]), 6)
    assert cut.input_ids.tolist() == [1, 2]
    assert cut.pixel_values is None


def test_patches_that_were_cut_off_are_not_kept_in_memory():
    cut = truncate(encode([1, -200, -200], [CELL, PAIR]), 5)
    assert cut.pixel_values.untyped_storage().nbytes() == 4 * 768


def test_the_sample_that_was_given_is_left_alone():
    sample = encode([1, -200, 2], [CELL])
    truncate(sample, 2)
    assert sample.input_ids.tolist() == [1, -301, -300, -302, 2]
    assert len(sample.pixel_values) == 4


def test_a_cut_may_leave_nothing_to_learn_and_even_nothing_to_read():
    """No error: only the caller knows whether to skip such a sample or to stop."""
    question_and_answer = replace(encode([1, 2, 3]), labels=torch.tensor([-100, -100, 3]))
    assert truncate(question_and_answer, 2).labels.tolist() == [-100, -100]
    assert len(truncate(encode([-200, 2], [CELL]), 2).input_ids) == 0


def test_a_limit_below_one_token_is_refused():
    with pytest.raises(ValueError, match="max_length must be at least 1 token, got 0"):
        truncate(encode([1]), 0)
