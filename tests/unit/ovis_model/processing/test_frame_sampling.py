import pytest

from ovis_model.processing.frame_sampling import sample_frame_indices


@pytest.mark.parametrize(
    ("num_frames", "low", "high", "expected"),
    [
        pytest.param(1, 1, 1, [0], id="one frame"),
        pytest.param(3, 2, 4, [0, 1, 2], id="between the limits: all"),
        pytest.param(4, 4, 4, [0, 1, 2, 3], id="exactly as many as wanted"),
        pytest.param(1, 3, 4, [0, 0, 0], id="too short: repeated"),
        pytest.param(12, 4, 4, [1, 4, 7, 10], id="longer: the middle of each quarter"),
    ],
)
def test_takes_the_middle_of_equal_stretches(num_frames, low, high, expected):
    assert sample_frame_indices(num_frames, min_frames=low, max_frames=high) == expected


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="no frames"):
        sample_frame_indices(0, min_frames=1, max_frames=1)


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="min_frames <= max_frames"):
        sample_frame_indices(5, min_frames=3, max_frames=2)
