"""Intervals as scipy's Wilson interval gives them."""

import pytest

from ovis_model.evaluation.statistics import wilson_interval


@pytest.mark.parametrize(
    ("num_correct", "num_items", "interval"),
    [
        (0, 20, (0.0, 0.161125)),
        (20, 20, (0.838875, 1.0)),
        (1, 3, (0.061492, 0.79234)),
        (50, 100, (0.4038315, 0.5961685)),
    ],
)
def test_wilson(num_correct, num_items, interval):
    assert wilson_interval(num_correct, num_items) == pytest.approx(interval, abs=1e-6)


@pytest.mark.parametrize(("num_correct", "num_items"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_proportion_is_refused(num_correct, num_items):
    with pytest.raises(ValueError, match="is not a proportion"):
        wilson_interval(num_correct, num_items)
