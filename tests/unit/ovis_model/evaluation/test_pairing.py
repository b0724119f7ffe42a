"""The test that fits two sets of rows, and what it can and cannot tell."""

import numpy as np
import pytest

from ovis_model.evaluation.pairing import PairedAnswers, PairedShares, pair
from tests.support.predictions import row


def answers(scores, **fields):
    return [row(str(n), float(score), **fields) for n, score in enumerate(scores)]


def shares(candidate, champion, *, size=1):
    """Pair graded rows, `size` of them in each cluster."""
    rows = [
        [row(str(n), float(score), cluster=str(n // size)) for n, score in enumerate(scores)]
        for scores in (candidate, champion)
    ]
    return pair(*rows)


def test_right_and_wrong_is_counted_and_anything_else_is_resampled():
    assert pair(answers([1, 1, 0, 1]), answers([0, 1, 1, 0])) == PairedAnswers(2, 1, 4)
    assert isinstance(pair(answers([0.5, 1]), answers([1, 1])), PairedShares)
    two_seeds = [row("1", seed=0, cluster="1"), row("1", seed=1, cluster="1")]
    assert isinstance(pair(two_seeds, two_seeds), PairedShares)


@pytest.mark.parametrize("gains", range(0, 30, 3))
@pytest.mark.parametrize("losses", range(0, 30, 3))
def test_the_interval_excludes_zero_only_if_mcnemar_does(gains, losses):
    paired = PairedAnswers(gains, losses, 100)
    low, high = paired.interval
    assert low <= paired.difference <= high
    assert (low > 0) <= (paired.p_value < 0.05)
    assert (low > 0) is (paired.p_above(0.0) < 0.025)
    assert (high < 0) is (paired.p_below(0.0) < 0.025)


def test_the_interval_ends_where_the_test_starts_to_refuse():
    paired = PairedAnswers(30, 10, 200)
    low, high = paired.interval
    assert paired.p_above(low) == pytest.approx(0.025, abs=1e-6)
    assert paired.p_below(high) == pytest.approx(0.025, abs=1e-6)


def test_nothing_changed_on_few_items_proves_nothing():
    assert PairedAnswers(0, 0, 20).p_above(-0.01) > 0.3
    assert PairedAnswers(0, 0, 1000).p_above(-0.01) < 0.025
    assert shares([0.5] * 20, [0.5] * 20).p_above(-0.01) > 0.3
    assert shares([0.5] * 1000, [0.5] * 1000).p_above(-0.01) < 0.025


def test_all_gained_is_as_sure_as_can_be():
    paired = PairedAnswers(20, 0, 20)
    assert paired.interval == pytest.approx((0.6777, 1.0), abs=1e-4)
    assert 0 < paired.standard_error < 0.1


def test_a_graded_gain_is_found_and_its_loss_in_the_mirror():
    random = np.random.default_rng(1)
    champion = random.uniform(0, 0.8, 120)
    candidate = champion + random.uniform(-0.1, 0.2, 120)
    better, worse = shares(candidate.clip(0, 1), champion), shares(champion, candidate.clip(0, 1))
    assert better.interval[0] > 0
    assert better.p_above(0.0) < 0.025
    assert better.p_value < 0.05
    assert worse.p_below(0.0) < 0.025
    assert worse.p_above(-0.01) > 0.9
    low, high = worse.interval
    assert (-high, -low) == pytest.approx(better.interval)


def test_clusters_that_move_together_tell_less():
    random = np.random.default_rng(2)
    gains = random.normal(0.05, 0.2, 40).repeat(10)
    candidate, champion = 0.5 + gains.clip(-0.5, 0.5), np.full(400, 0.5)
    alone, together = shares(candidate, champion), shares(candidate, champion, size=10)
    assert together.standard_error > 2.5 * alone.standard_error
    assert together.p_above(0.0) > alone.p_above(0.0)


def test_a_few_large_changes_are_not_proof():
    # A bootstrap alone would be sure: hardly any resample lacks all four.
    paired = shares([1] * 4 + [0.5] * 96, [0] * 4 + [0.5] * 96)
    assert paired.p_above(0.0) == pytest.approx(1 / 16, abs=0.01)
    assert paired.interval[0] == 0.0


def test_where_every_cluster_changed_alike_the_interval_has_a_width():
    assert shares([1] * 30, [0] * 30, size=2).interval == PairedAnswers(15, 0, 15).interval
    assert shares([0.5] * 30, [0.5] * 30).interval == PairedAnswers(0, 0, 30).interval


def test_without_a_change_the_error_is_that_of_one():
    assert shares([0.5] * 50, [0.5] * 50).standard_error == 1 / 50


@pytest.mark.parametrize(
    "paired",
    [
        pytest.param(PairedAnswers(12, 5, 100), id="answers"),
        pytest.param(PairedAnswers(40, 60, 1000), id="many answers"),
        pytest.param(
            shares(*np.random.default_rng(3).random((2, 240)), size=4), id="graded, clustered"
        ),
        pytest.param(shares([1] * 7 + [0.5] * 60, [0] * 7 + [0.5] * 60), id="few changes"),
    ],
)
def test_a_model_rarely_beats_itself(paired):
    assert paired.wins_against_itself(1000, 0).mean() <= 0.05


def test_a_draw_against_itself_is_judged_as_real_rows_are():
    random = np.random.default_rng(4)
    values = random.random((2, 60))
    paired = shares(*values)
    wins = paired.wins_against_itself(40, 5)
    signs = np.random.default_rng(5).integers(0, 2, size=(40, 60)) * 2.0 - 1.0
    places = sorted(range(60), key=str)
    for won, turned in zip(wins[:8], signs, strict=False):
        by_item = np.empty(60)
        by_item[places] = turned
        candidate = np.where(by_item > 0, values[0], values[1])
        champion = np.where(by_item > 0, values[1], values[0])
        p = shares(candidate, champion).p_above(0.0)
        assert won == (p <= 0.025) or abs(p - 0.025) < 0.01
