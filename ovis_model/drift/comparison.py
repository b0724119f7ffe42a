"""Whether two profiles could be of one distribution: one test per feature, all of them together.

    numbers       Kolmogorov-Smirnov; effect: its distance, the largest difference in the share of
                  samples below any one value
    categories    chi-square; effect: the total variation distance, the share of samples that
                  would have to change their category
    look          the first pictures, 8 x 8 greys: a line is fitted that tells one half of the
                  samples' sides apart, and the other half's places along it are tested as numbers

A feature has drifted if chance would hardly do that and if it matters: its p-value, after Holm's
correction over all features, is at most `alpha`, and its effect, from 0 to 1, at least
`min_effect`.

Samples that share a picture are not independent.  Every sample counts in a distribution, but a
test believes in no more than Kish's effective number of them, (sum m)^2 / sum m^2 over groups of m
samples: what is left if samples of one group were all equal.  Samples that depend on each other
otherwise (pages of one book, frames of one film kept as pictures) are taken for independent.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import chdtrc, kolmogorov

from ovis_model.drift.features import CATEGORIES, LOOK, NUMBERS, PRIVATE, Feature
from ovis_model.drift.looks import score_looks
from ovis_model.drift.profile import Category, Profile
from ovis_model.drift.rules import DriftRules
from ovis_model.multiple_tests import holm
from ovis_model.reports import Report

#: Samples that a feature needs on each side; with fewer it is not tested.
MIN_VALUES = 20
#: Categories are merged until this many samples are expected in each, as chi-square needs.
MIN_EXPECTED = 5
#: Categories that are told apart, the most frequent ones.
MAX_CATEGORIES = 30
MAX_BINS = 24
OTHER = "(other)"
#: Quantiles that a table shows of a number: 5 %, median, 95 %.
SHOWN = (0.05, 0.5, 0.95)

Outcome = Literal["no drift", "drift", "too few samples"]


class FeatureDrift(Report):
    """What became of one feature.

    Attributes:
        name, topic, title, unit: See `ovis_model.drift.features.Feature`.
        num_reference, num_new: Samples that have it.
        effect: From 0, equal, to 1, nothing in common; None if it was not tested.
        p_value: Chance of such a difference without drift.
        adjusted_p: The same, considering that many features were tested.
        drifted: The verdict.
        bins: What each share is of: bounds of bins, one more than shares, or categories.
        shares_reference, shares_new: Shares of the samples in each.
        quantiles_reference, quantiles_new: 5 %, median and 95 % of a number; empty for a category.
    """

    name: str
    topic: str
    title: str
    unit: str
    num_reference: int
    num_new: int
    effect: float | None = None
    p_value: float | None = None
    adjusted_p: float | None = None
    drifted: bool = False
    bins: list[float] | list[str]
    shares_reference: list[float]
    shares_new: list[float]
    quantiles_reference: list[float]
    quantiles_new: list[float]


class DriftReport(Report):
    """What new data is like, compared with a model's training data.

    Attributes:
        outcome: The verdict on all features.
        drifted: Names of the features that drifted; of too few samples, none is said to.
        reference, new: What was compared.
        digest: Of both sides, as they were measured: equal for equal data.
        rules: What counted as drift.
        num_reference, num_new: Samples that were drawn, of `of_reference` and `of_new`.
        effective_reference, effective_new: What they count for in a test.
        unreadable_new: Drawn samples whose pictures could not be read.
        features: Drifted ones first, then by p-value; those not tested last.
    """

    outcome: Outcome
    drifted: list[str]
    reference: str
    new: str
    digest: str
    rules: DriftRules
    num_reference: int
    num_new: int
    of_reference: int
    of_new: int
    effective_reference: float
    effective_new: float
    unreadable_new: int
    features: list[FeatureDrift]

    @property
    def drifted_titles(self) -> str:
        """What drifted, for people."""
        return ", ".join(one.title for one in self.features if one.drifted)


def compare(
    reference: Profile,
    new: Profile,
    rules: DriftRules,
    *,
    reference_name: str = "reference",
    new_name: str = "new",
) -> DriftReport:
    """Test every feature and judge them together."""
    effective = effective_size(_groups(reference)), effective_size(_groups(new))
    found = judge(list(_test_all(reference, new)), rules)
    enough = min(effective) >= rules.min_samples
    if not enough:
        found = [one.model_copy(update={"drifted": False}) for one in found]
    found.sort(key=_order)
    drifted = [one.name for one in found if one.drifted]
    return DriftReport(
        outcome=("drift" if drifted else "no drift") if enough else "too few samples",
        drifted=drifted,
        reference=reference_name,
        new=new_name,
        digest=hashlib.sha256(f"{reference.digest} {new.digest}".encode()).hexdigest(),
        rules=rules,
        num_reference=len(reference.groups),
        num_new=len(new.groups),
        of_reference=reference.num_samples,
        of_new=new.num_samples,
        effective_reference=round(effective[0], 1),
        effective_new=round(effective[1], 1),
        unreadable_new=new.num_unreadable,
        features=found,
    )


def _order(one: FeatureDrift) -> tuple[bool, float, float]:
    p_value = 2.0 if one.adjusted_p is None else one.adjusted_p
    return not one.drifted, p_value, -(one.effect or 0.0)


def judge(features: Sequence[FeatureDrift], rules: DriftRules) -> list[FeatureDrift]:
    """Correct the p-values for their number and give every feature its verdict."""
    tested = [place for place, one in enumerate(features) if one.p_value is not None]
    adjusted = holm([features[place].p_value or 0.0 for place in tested])
    judged = list(features)
    for place, p_value in zip(tested, adjusted, strict=True):
        effect = features[place].effect or 0.0
        drifted = p_value <= rules.alpha and effect >= rules.min_effect
        judged[place] = features[place].model_copy(
            update={"adjusted_p": p_value, "drifted": drifted}
        )
    return judged


def effective_size(groups: np.ndarray) -> float:
    """Return the number of independent samples that groups of equal ones are worth.

    Source: Kish, Survey Sampling, 1965.

    Example:
        >>> effective_size(np.array([0, 0, 1, 1])), effective_size(np.array([0, 1, 2]))
        (2.0, 3.0)
    """
    if not groups.size:
        return 0.0
    counts = np.unique(groups, return_counts=True)[1].astype(float)
    return float(counts.sum() ** 2 / (counts**2).sum())


def _groups(profile: Profile) -> np.ndarray:
    return np.asarray(profile.groups, dtype=np.int64)


def _test_all(reference: Profile, new: Profile) -> Iterator[FeatureDrift]:
    words = new.words
    groups = _groups(reference), _groups(new)
    for feature in CATEGORIES:
        sides = reference.categories[feature.name], new.categories[feature.name]
        yield _test_categories(feature, sides, groups, words)
    for number in NUMBERS:
        columns = reference.numbers[number.name], new.numbers[number.name]
        values = [np.array(column, dtype=np.float64) for column in columns]  # None becomes NaN
        yield _test_numbers(number, values, groups)
    yield _test_numbers(LOOK, score_looks(reference, new), groups)


# ---- numbers --------------------------------------------------------------------------------


def _test_numbers(
    feature: Feature, sides: Sequence[np.ndarray], groups: tuple[np.ndarray, np.ndarray]
) -> FeatureDrift:
    known = [~np.isnan(values) for values in sides]
    first, second = (
        np.sort(values[is_known]) for values, is_known in zip(sides, known, strict=True)
    )
    sizes = [effective_size(of[is_known]) for of, is_known in zip(groups, known, strict=True)]
    effect = p_value = None
    if min(sizes) >= MIN_VALUES:
        effect = kolmogorov_smirnov(first, second)
        # The asymptotic distribution; with ties, or few samples, the true chance is smaller.
        p_value = float(kolmogorov(effect * np.sqrt(sizes[0] * sizes[1] / sum(sizes))))
    edges = _edges(np.concatenate([first, second]))
    return FeatureDrift(
        name=feature.name,
        topic=feature.topic,
        title=feature.title,
        unit=feature.unit,
        num_reference=len(first),
        num_new=len(second),
        effect=None if effect is None else round(effect, 4),
        p_value=p_value,
        bins=[float(edge) for edge in edges],
        shares_reference=_shares(np.histogram(first, edges)[0]) if len(edges) else [],
        shares_new=_shares(np.histogram(second, edges)[0]) if len(edges) else [],
        quantiles_reference=_quantiles(first),
        quantiles_new=_quantiles(second),
    )


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference of two empirical distributions.

    Args:
        first: Sorted values, float64 [num_first].
        second: Likewise, float64 [num_second].
    """
    both = np.concatenate([first, second])
    below = [np.searchsorted(one, both, side="right") / one.size for one in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def _edges(values: np.ndarray) -> np.ndarray:
    if not values.size:
        return values
    low, high = np.quantile(values, [0.005, 0.995])
    if low == high:
        low, high = values.min(), values.max()
    whole = bool((values == np.rint(values)).all()) and high - low < MAX_BINS
    if whole:
        return np.arange(low, high + 2)
    edges = np.linspace(low, high, MAX_BINS + 1)
    # The few beyond are shown in the outermost bins.
    edges[0], edges[-1] = min(values.min(), low), max(values.max(), high)
    return edges


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(q), 3) for q in np.quantile(values, SHOWN)] if values.size else []


def _shares(counts: np.ndarray) -> list[float]:
    return [round(float(share), 4) for share in counts / max(1, counts.sum())]


# ---- categories -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Counts of both sides, float64 [2, num_categories], and what they are of."""

    counts: np.ndarray
    labels: list[str]


def _test_categories(
    feature: Feature,
    sides: tuple[Category, Category],
    groups: tuple[np.ndarray, np.ndarray],
    words: dict[str, str],
) -> FeatureDrift:
    sizes = np.array([effective_size(of) for of in groups])
    table = _merge_rare(_count(sides), sizes)
    shares = table.counts / table.counts.sum(axis=1, keepdims=True)
    effect = p_value = None
    if sizes.min() >= MIN_VALUES:
        effect = float(np.abs(shares[0] - shares[1]).sum() / 2)
        p_value = chi_square(shares * sizes[:, None])
    labels = [words.get(one, one) if feature.name in PRIVATE else one for one in table.labels]
    return FeatureDrift(
        name=feature.name,
        topic=feature.topic,
        title=feature.title,
        unit=feature.unit,
        num_reference=len(sides[0].codes),
        num_new=len(sides[1].codes),
        effect=None if effect is None else round(effect, 4),
        p_value=p_value,
        bins=labels,
        shares_reference=_shares(table.counts[0]),
        shares_new=_shares(table.counts[1]),
        quantiles_reference=[],
        quantiles_new=[],
    )


def _count(sides: tuple[Category, Category]) -> _Table:
    labels = list(dict.fromkeys(label for side in sides for label in side.labels))
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((2, len(labels)))
    for row, side in enumerate(sides):
        own = np.bincount(side.codes, minlength=len(side.labels))
        for label, count in zip(side.labels, own, strict=True):
            counts[row, places[label]] += count
    return _Table(counts, labels)


def _merge_rare(table: _Table, sizes: np.ndarray) -> _Table:
    """Merge what is rare in both together: by their sum, so that neither side is preferred."""
    share = (table.counts / table.counts.sum(axis=1, keepdims=True)).T @ sizes / sizes.sum()
    order = np.argsort(-share, kind="stable")
    expected = share[order] * sizes.min()
    num_kept = min(int((expected >= MIN_EXPECTED).sum()), MAX_CATEGORIES)
    if num_kept == len(order):
        return _Table(table.counts[:, order], [table.labels[i] for i in order])
    rest = expected[num_kept:].sum()
    # A remainder that is itself too rare takes the rarest of the others along.
    num_kept = max(0, num_kept - 1) if rest < MIN_EXPECTED else num_kept
    kept, others = order[:num_kept], order[num_kept:]
    merged = table.counts[:, others].sum(axis=1, keepdims=True)
    return _Table(
        np.hstack([table.counts[:, kept], merged]), [*(table.labels[i] for i in kept), OTHER]
    )


def chi_square(counts: np.ndarray) -> float:
    """Return the chance of two rows of counts to differ so much if both are of one distribution.

    Args:
        counts: float64 [2, num_categories], no column all zero.

    Example:
        >>> round(chi_square(np.array([[30.0, 20.0], [20.0, 30.0]])), 4)
        0.0455
    """
    num_categories = counts.shape[1]
    if num_categories < 2:
        return 1.0
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(chdtrc(num_categories - 1, statistic))
