"""Intervals and tests give the numbers of scipy and of lmms-eval."""

from math import erfc

import numpy as np
import pytest

from ovis_model.evaluation.statistics import (
    bootstrap_weights,
    clustered_standard_error,
    exchange_signs,
    mcnemar_exact,
    minimal_detectable_difference,
    paired_score_p,
    paired_t_test,
    percentile_interval,
    power_at,
    wilson_interval,
)


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


@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    [(12, 5, 0.14346313), (0, 6, 0.03125), (7, 7, 1.0), (0, 0, 1.0), (1, 0, 1.0)],
)
def test_mcnemar(gains, losses, p):
    assert mcnemar_exact(gains, losses) == pytest.approx(p, abs=1e-6)
    assert mcnemar_exact(losses, gains) == pytest.approx(p, abs=1e-6)


def test_a_paired_t_test_as_lmms_eval_prints_it():
    found = paired_t_test([1, 1, 0, 1, 1, 0, 1, 1, 1, 0], [1, 0, 0, 1, 0, 0, 1, 1, 1, 1])
    numbers = (found.mean, found.standard_error, found.low, found.high, found.t, found.p)
    expected = (0.1, 0.179505, -0.30607, 0.50607, 0.557086, 0.591051)
    assert numbers == pytest.approx(expected, abs=1e-6)


def test_a_t_test_of_equal_differences_says_nothing():
    assert paired_t_test([1, 1, 0], [1, 1, 0]) is None
    with pytest.raises(ValueError, match="a t-test needs two pairs, got 1"):
        paired_t_test([1], [0])


def test_the_clustered_error_is_equation_4():
    found = clustered_standard_error([1, 1, 0, 1, 0, 0, 1, 1], list("aaabbccd"))
    assert found == pytest.approx(0.0926272, abs=1e-6)


def test_clusters_of_one_give_the_plain_standard_error():
    scores = [1, 0, 0, 1, 1]
    assert clustered_standard_error(scores, list("abcde")) == pytest.approx(
        np.std(scores, ddof=1) / np.sqrt(5)
    )


@pytest.mark.parametrize(("scores", "clusters"), [([], []), ([1.0], ["a", "b"])])
def test_scores_without_a_cluster_each_are_refused(scores, clusters):
    with pytest.raises(ValueError, match="clusters have no error"):
        clustered_standard_error(scores, clusters)


def test_tangos_p_is_the_score_test_at_zero():
    # Without a shift the statistic is McNemar's: (b - c) / sqrt(b + c).
    assert paired_score_p(16, 4, 100, 0.0) == pytest.approx(0.0036452, abs=1e-6)
    assert paired_score_p(0, 0, 100, 0.0) == 0.5


@pytest.mark.parametrize(("gains", "losses"), [(16, 4), (4, 16), (0, 3), (0, 0)])
def test_tangos_share_of_losses_is_the_most_likely_one(gains, losses):
    # Searched on a grid instead of solved for, with the same statistic.
    num_items, shift = 100, -0.05
    shares = np.linspace(max(0, -shift) + 1e-9, (1 - shift) / 2 - 1e-9, 400_001)
    same = num_items - gains - losses
    likelihood = (
        gains * np.log(shares + shift + 1e-300)
        + losses * np.log(shares)
        + same * np.log1p(-2 * shares - shift)
    )
    share = shares[likelihood.argmax()]
    z = (gains - losses - num_items * shift) / np.sqrt(
        num_items * (2 * share + shift * (1 - shift))
    )
    from_statistics = paired_score_p(gains, losses, num_items, shift)
    assert from_statistics == pytest.approx(0.5 * erfc(z / np.sqrt(2)), abs=1e-4)


@pytest.mark.parametrize(
    ("num_items", "half_width", "detectable"), [(1000, 0.020, 0.028), (200, 0.044, 0.063)]
)
def test_power_with_a_tenth_of_the_items_discordant(num_items, half_width, detectable):
    error = np.sqrt(0.1 / num_items)
    assert 1.96 * error == pytest.approx(half_width, abs=5e-4)
    assert minimal_detectable_difference(error) == pytest.approx(detectable, abs=5e-4)
    assert power_at(minimal_detectable_difference(error), error) == pytest.approx(0.8)
    assert power_at(0.01, error) < 0.2


def test_power_without_any_error_is_certainty_or_none():
    assert (power_at(0.01, 0.0), power_at(0.0, 0.0)) == (1.0, 0.0)


def test_every_resample_draws_as_many_clusters_as_there_are():
    blocks = list(bootstrap_weights(3000, resamples=2000))
    assert len(blocks) > 1
    weights = np.concatenate(blocks)
    assert weights.shape == (2000, 3000)
    assert set(weights.sum(axis=1)) == {3000.0}
    assert weights.mean() == 1.0


def test_resamples_are_the_same_every_time():
    first, again = (next(iter(bootstrap_weights(5, resamples=9))) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next(iter(bootstrap_weights(5, resamples=9, seed=1))))


def test_an_exchange_keeps_or_turns():
    signs = np.concatenate(list(exchange_signs(2000, resamples=3000)))
    assert signs.shape == (3000, 2000)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.01


def test_the_bootstrap_of_a_mean_agrees_with_its_standard_error():
    values = np.random.default_rng(0).random(200)
    weights = np.concatenate(list(bootstrap_weights(200)))
    low, high = percentile_interval(weights @ values / 200)
    error = clustered_standard_error(list(values), [str(n) for n in range(200)])
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.03)
