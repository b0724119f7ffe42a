"""How sure a score is, and how sure a difference between two models is.

Everything is a fraction 0 to 1, and every interval is two-sided at 95 %.  Names in this file:

    gains, losses   items that only the candidate, only the champion got right
    clusters        what was drawn independently: an item, or the items that share a picture
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

#: Two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959963984540054
#: Error probability of a one-sided test that agrees with a two-sided 95 % interval.
ONE_SIDED = 0.025
#: Share of cases in which a test should find what it looks for.
POWER = 0.8
#: Resamples of every bootstrap, and of every test by exchange.
RESAMPLES = 10_000
#: Every bootstrap draws the same resamples: equal rows give equal intervals, byte for byte.
BOOTSTRAP_SEED = 20250815
#: Draws of a bootstrap that are in memory at once.
_BLOCK_DRAWS = 4_000_000


def wilson_interval(num_correct: int, num_items: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, as fractions 0 to 1.

    Unlike the textbook interval it stays inside [0, 1] and has a width at 0 and at 100 %.

    Raises:
        ValueError: If there are no items, or more correct ones than items.

    Example:
        >>> low, high = wilson_interval(20, 20)
        >>> round(low, 4), high
        (0.8389, 1.0)
    """
    if num_items < 1 or not 0 <= num_correct <= num_items:
        raise ValueError(f"{num_correct} correct of {num_items} items is not a proportion")
    share = num_correct / num_items
    spread = z**2 / num_items
    centre = share + spread / 2
    margin = z * math.sqrt(share * (1 - share) / num_items + spread / (4 * num_items))
    low, high = (centre - margin) / (1 + spread), (centre + margin) / (1 + spread)
    # At the ends the formula is exact, its floating point is not.
    return (0.0 if num_correct == 0 else low), (1.0 if num_correct == num_items else high)


def mcnemar_exact(gains: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    Example:
        >>> round(mcnemar_exact(12, 5), 6)
        0.143463
    """
    # At one half the binomial distribution is symmetric: both tails are as likely.
    return min(1.0, 2 * float(special.bdtr(min(gains, losses), gains + losses, 0.5)))


def paired_score_p(
    gains: np.ndarray | int, losses: np.ndarray | int, num_items: int, shift: float
) -> np.ndarray:
    """Test whether a difference of two paired proportions is above `shift`.

    Args:
        gains: One count or many.
        losses: As many.
        num_items: Items in all.
        shift: The difference under the null hypothesis, between -1 and 1.

    Returns:
        One-sided p-values; small ones say that the difference is larger than `shift`.

    Source: Tango, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17 (1998), the score statistic.
    """
    b, c, n = np.asarray(gains, float), np.asarray(losses, float), num_items
    linear = (2 * n - b + c) * shift - b - c
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * shift * (1 - shift), 0))
    lost_share = (root - linear) / (4 * n)  # most likely share of losses under the null
    variance = n * (2 * lost_share + shift * (1 - shift))
    surplus = b - c - n * shift
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without variance, nothing changed and nothing was expected to: no evidence.
        z = np.where(variance > 0, surplus / np.sqrt(np.maximum(variance, 0)), 0.0)
    return np.asarray(special.ndtr(-z))


def clustered_standard_error(scores: Sequence[float], clusters: Sequence[str]) -> float:
    """Return the standard error of a mean whose items are not independent within clusters.

    Args:
        scores: One per item.
        clusters: The cluster of each.

    Raises:
        ValueError: If there is nothing, or not one cluster per score.

    Source: Equation 4 of Miller, "Adding error bars to evals", arXiv 2411.00640.

    Example:
        >>> round(clustered_standard_error([1, 1, 0, 1], ["a", "a", "b", "c"]), 4)
        0.2652
    """
    if not scores or len(scores) != len(clusters):
        raise ValueError(f"{len(scores)} scores in {len(clusters)} clusters have no error")
    deviations = np.asarray(scores, dtype=float)
    deviations = deviations - deviations.mean()
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    squares = float((deviations**2).sum())
    within = float((np.bincount(index, weights=deviations) ** 2).sum()) - squares
    count = len(deviations)
    alone = squares / max(1, count - 1) / count
    # Items of a cluster that err in opposite ways can make the sum as small as 0.
    return math.sqrt(max(0.0, alone + within / count**2))


@dataclass(frozen=True)
class TTest:
    """Student's t-test on paired scores, as lmms-eval prints it; it does not know clusters."""

    mean: float
    standard_error: float
    low: float
    high: float
    t: float
    p: float


def paired_t_test(candidate: Sequence[float], champion: Sequence[float]) -> TTest | None:
    """Test whether two models' scores differ on average; None if no difference varies.

    Raises:
        ValueError: If there are fewer than two pairs.
    """
    difference = np.asarray(candidate, dtype=float) - np.asarray(champion, dtype=float)
    if len(difference) < 2:
        raise ValueError(f"a t-test needs two pairs, got {len(difference)}")
    if np.ptp(difference) == 0:
        return None
    mean, freedom = float(difference.mean()), len(difference) - 1
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    reach = float(special.stdtrit(freedom, 1 - ONE_SIDED)) * error
    return TTest(
        mean=mean,
        standard_error=error,
        low=mean - reach,
        high=mean + reach,
        t=mean / error,
        p=2 * float(special.stdtr(freedom, -abs(mean / error))),
    )


def power_at(difference: float, standard_error: float) -> float:
    """Return how often a true difference of this size would be found.

    Example:
        >>> round(power_at(0.028, 0.01), 2)
        0.8
    """
    if standard_error == 0:
        return float(difference > 0)
    return float(special.ndtr(difference / standard_error - Z_95))


def minimal_detectable_difference(standard_error: float, *, power: float = POWER) -> float:
    """Return the smallest true difference that is found so often.

    Example:
        >>> round(minimal_detectable_difference(0.01), 3)
        0.028
    """
    return float((Z_95 + special.ndtri(power)) * standard_error)


def bootstrap_weights(
    num_clusters: int, *, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Iterator[np.ndarray]:
    """Draw clusters with replacement, again and again.

    Yields:
        float64 [some_resamples, num_clusters]: how often each cluster was drawn.
    """
    random = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // num_clusters)
    for first in range(0, resamples, size):
        rows = min(size, resamples - first)
        drawn = random.integers(0, num_clusters, size=(rows, num_clusters))
        drawn += np.arange(rows)[:, None] * num_clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * num_clusters)
        yield counts.reshape(rows, num_clusters).astype(float)


def exchange_signs(
    num_clusters: int, *, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Iterator[np.ndarray]:
    """Exchange the two models in clusters at random: 1 keeps, -1 exchanges.

    Yields:
        float64 [some_resamples, num_clusters].
    """
    random = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // num_clusters)
    for first in range(0, resamples, size):
        rows = min(size, resamples - first)
        yield random.integers(0, 2, size=(rows, num_clusters)) * 2.0 - 1.0


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of a bootstrap distribution [resamples]."""
    low, high = np.quantile(resampled, [ONE_SIDED, 1 - ONE_SIDED])
    return float(low), float(high)
