"""Two models on the same questions: is one better, and by how much?

    PairedAnswers    right or wrong, independent questions: McNemar's exact test, Tango's interval
    PairedShares     anything else: paired clustered bootstrap, and exchange of the two models

A small `p_above(shift)` says that the candidate is better by more than `shift`, a small
`p_below(shift)` that it is not even that.  Differences are fractions, candidate minus champion.

Both tests also ask a second, exact question where the first is only good for many changes: an
interval excludes 0 only if the exact test finds a difference, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy import optimize, special

from ovis_model.evaluation.aggregation import Shares, is_binary, share_rows
from ovis_model.evaluation.predictions import PredictionRow
from ovis_model.evaluation.statistics import (
    BOOTSTRAP_SEED,
    ONE_SIDED,
    RESAMPLES,
    bootstrap_weights,
    exchange_signs,
    mcnemar_exact,
    paired_score_p,
    percentile_interval,
)

#: With fewer clusters that changed, a bootstrap alone is not trusted.
MIN_CHANGED = 10
#: Resamples within each draw of a model against itself.
_SELF_RESAMPLES = 2000


@dataclass(frozen=True)
class PairedAnswers:
    """Counts of independent questions.

    Attributes:
        gains: Only the candidate was right.
        losses: Only the champion was right.
        num_items: All questions.
    """

    test: ClassVar[str] = "McNemar, exact"

    gains: int
    losses: int
    num_items: int

    @property
    def difference(self) -> float:
        """Candidate minus champion."""
        return (self.gains - self.losses) / self.num_items

    @property
    def standard_error(self) -> float:
        """Of the difference; half an item is added to each count, so that it is never 0."""
        total = self.num_items + 2
        changed = (self.gains + self.losses + 1) / total
        difference = (self.gains - self.losses) / total
        return float(np.sqrt((changed - difference**2) / total))

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference."""
        return mcnemar_exact(self.gains, self.losses)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference."""
        low = _where_p_crosses(self.gains, self.losses, self.num_items)
        high = -_where_p_crosses(self.losses, self.gains, self.num_items)
        if self.p_value < 2 * ONE_SIDED:
            return low, high
        return min(low, 0.0), max(high, 0.0)

    def p_above(self, shift: float) -> float:
        """One-sided p-value of a difference up to `shift`."""
        return float(_p_above(self.gains, self.losses, self.num_items, shift))

    def p_below(self, shift: float) -> float:
        """One-sided p-value of a difference from `shift` on."""
        return float(_p_above(self.losses, self.gains, self.num_items, -shift))

    def wins_against_itself(self, draws: int, seed: int) -> np.ndarray:
        """Exchange the models in changed questions at random: does the candidate seem better?

        Returns:
            bool [draws].
        """
        changed = self.gains + self.losses
        gains = np.random.default_rng(seed).binomial(changed, 0.5, size=draws)
        p = _p_above(gains, changed - gains, self.num_items, 0.0)
        return np.asarray(p <= ONE_SIDED)


@dataclass(frozen=True)
class PairedShares:
    """Sums of both models over the same clusters."""

    test: ClassVar[str] = "paired clustered bootstrap"

    candidate: Shares
    champion: Shares

    @property
    def difference(self) -> float:
        """Candidate minus champion."""
        return self.candidate.score - self.champion.score

    @property
    def standard_error(self) -> float:
        """Of the difference; that of one changed cluster if none changed."""
        spread = float(self._resampled.std())
        return spread if self._changed else 1 / len(self.candidate.clusters)

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference, by exchange of the models within clusters."""
        return min(1.0, 2 * min(self._p_exchange(1), self._p_exchange(-1)))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference.

        If every cluster changed alike, or none did, no resample differs; then it is Tango's with
        the clusters as items.
        """
        if np.ptp(self._resampled) == 0:
            count, alike = len(self.candidate.clusters), round(self.difference, 9)
            moved = round(abs(alike) * count)
            return PairedAnswers(
                moved if alike > 0 else 0, moved if alike < 0 else 0, count
            ).interval
        low, high = percentile_interval(self._resampled)
        if self.p_value < 2 * ONE_SIDED:
            return low, high
        return min(low, 0.0), max(high, 0.0)

    def p_above(self, shift: float) -> float:
        """One-sided p-value of a difference up to `shift`."""
        return self._p(shift, sign=1)

    def p_below(self, shift: float) -> float:
        """One-sided p-value of a difference from `shift` on."""
        return self._p(-shift, sign=-1)

    def wins_against_itself(self, draws: int, seed: int) -> np.ndarray:
        """Exchange the models in clusters at random: does the candidate seem better?

        Returns:
            bool [draws].
        """
        num_clusters = len(self.candidate.clusters)
        signs = np.concatenate(list(exchange_signs(num_clusters, resamples=draws, seed=seed)))
        null = np.sort(self._exchanged)
        seen = self._exchange(signs)
        p_exchange = (1 + len(null) - np.searchsorted(null, seen - 1e-12)) / (len(null) + 1)
        at_most_zero = np.zeros(draws)
        for drawn in bootstrap_weights(num_clusters, resamples=_SELF_RESAMPLES):
            at_most_zero += (self._exchange(signs, drawn) <= 0).sum(axis=0)
        p_bootstrap = (1 + at_most_zero) / (_SELF_RESAMPLES + 1)
        return np.asarray(np.maximum(p_exchange, p_bootstrap) <= ONE_SIDED)

    @cached_property
    def _gap(self) -> np.ndarray:
        """What the candidate has more, [num_clusters, num_parts]."""
        return np.asarray(self.candidate.numerators - self.champion.numerators)

    @cached_property
    def _changed(self) -> int:
        return int((self._gap != 0).any(axis=1).sum())

    @cached_property
    def _resampled(self) -> np.ndarray:
        """Differences of the bootstrap, [resamples]."""
        return np.concatenate(
            [
                self.candidate.scores(drawn) - self.champion.scores(drawn)
                for drawn in bootstrap_weights(len(self.candidate.clusters))
            ]
        )

    @cached_property
    def _exchanged(self) -> np.ndarray:
        """Differences after exchanging the models at random, [resamples]."""
        signs = exchange_signs(len(self.candidate.clusters), seed=BOOTSTRAP_SEED + 1)
        return np.concatenate([self._exchange(some) for some in signs])

    def _exchange(self, signs: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
        """Compute differences after exchanging the models.

        Args:
            signs: Clusters of each exchange, [draws, num_clusters].
            drawn: How often each cluster counts, [resamples, num_clusters]; None is once.

        Returns:
            float64 [draws], or [resamples, draws].
        """
        found: np.ndarray = np.zeros(())
        for part, weight in enumerate(self.candidate.weights):
            gaps, below = signs * self._gap[:, part], self.candidate.denominators[:, part]
            if drawn is None:
                found = found + weight * gaps.sum(axis=1) / below.sum()
            else:
                found = found + weight * (drawn @ gaps.T) / np.maximum(drawn @ below, 1)[:, None]
        return np.asarray(found)

    def _p(self, shift: float, *, sign: int) -> float:
        resampled = sign * self._resampled
        p = (1 + int((resampled <= shift).sum())) / (len(resampled) + 1)
        if shift == 0:
            return max(p, self._p_exchange(sign))
        if shift < 0 and self._changed < MIN_CHANGED:
            # A loss of `shift` means that at least that share of the clusters lost.
            lost = int(((sign * self._gap) < 0).any(axis=1).sum())
            return max(p, float(special.bdtr(lost, len(self._gap), -shift)))
        return p

    def _p_exchange(self, sign: int) -> float:
        """One-sided p-value of no difference, exact up to the number of exchanges."""
        as_large = sign * self._exchanged >= sign * self.difference - 1e-12
        return (1 + int(as_large.sum())) / (RESAMPLES + 1)


Paired = PairedAnswers | PairedShares


def pair(
    candidate: Sequence[PredictionRow],
    champion: Sequence[PredictionRow],
    parts: Sequence[str] = ("rows",),
) -> Paired:
    """Choose the test that fits.

    Args:
        candidate: Rows in some order.
        champion: Rows of the same questions and seeds, in the same order.
        parts: What the score is the mean of.
    """
    if is_binary(candidate, parts) and is_binary(champion, parts):
        pairs = [(one.right, other.right) for one, other in zip(candidate, champion, strict=True)]
        return PairedAnswers(pairs.count((True, False)), pairs.count((False, True)), len(pairs))
    return PairedShares(share_rows(candidate, parts), share_rows(champion, parts))


def _p_above(
    gains: np.ndarray | int, losses: np.ndarray | int, num_items: int, shift: float
) -> np.ndarray:
    p = paired_score_p(gains, losses, num_items, shift)
    if shift != 0:
        return p
    # McNemar's exact test, one-sided: of the changed questions half should be gains.
    exact = special.bdtrc(np.asarray(gains) - 1, np.asarray(gains) + np.asarray(losses), 0.5)
    return np.asarray(np.maximum(p, exact))


def _where_p_crosses(gains: int, losses: int, num_items: int) -> float:
    """Find the shift up to which Tango's test refuses the difference: the interval's lower end."""

    def excess(shift: float) -> float:
        return float(paired_score_p(gains, losses, num_items, shift)) - ONE_SIDED

    nearly = 1 - 1e-9
    if excess(-nearly) > 0:
        return -1.0
    return float(optimize.brentq(excess, -nearly, nearly, xtol=1e-10))
