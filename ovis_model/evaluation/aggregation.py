"""From the rows of a benchmark to its score, and how sure that score is.

A score is the mean of parts, and every part is a share: one sum over another.

    rows          what an answer is worth on average
    all:KIND      the share of groups of this kind in which every answer is right: MMBench's
                  rotations, HallusionBench's figures and questions
    each:SLICE    `rows` in each value of the slice, averaged: RefCOCO's eight splits

Sums add up over clusters, so that a bootstrap which draws whole clusters recomputes the whole
score for every resample with one product of matrices.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ovis_model.errors import DataError
from ovis_model.evaluation.predictions import PredictionRow
from ovis_model.evaluation.statistics import (
    bootstrap_weights,
    percentile_interval,
    wilson_interval,
)

#: Gives the worth of a row, 0 to 1.
Worth = Callable[[PredictionRow], float]


def worth(row: PredictionRow) -> float:
    """Return what the row's answer is worth."""
    return row.score


def best_worth(row: PredictionRow) -> float:
    """Return what the answer might be worth if a judge resolved what the rule could not."""
    return 1.0 if row.status == "unresolved" else row.score


@dataclass(frozen=True)
class Shares:
    """Sums of a score's parts over clusters.

    Attributes:
        clusters: Their names.
        numerators: float64 [num_clusters, num_parts].
        denominators: float64 [num_clusters, num_parts].
        weights: float64 [num_parts], their sum is 1.
    """

    clusters: tuple[str, ...]
    numerators: np.ndarray
    denominators: np.ndarray
    weights: np.ndarray

    @property
    def score(self) -> float:
        """The score, 0 to 1."""
        return float(self.scores(np.ones((1, len(self.clusters))))[0])

    def scores(self, drawn: np.ndarray) -> np.ndarray:
        """Compute the score of many resamples.

        Args:
            drawn: How often each cluster counts, [resamples, num_clusters].

        Returns:
            float64 [resamples].  A part that a resample has nothing of does not count there.
        """
        below = drawn @ self.denominators
        shares = np.divide(
            drawn @ self.numerators, below, out=np.zeros_like(below), where=below > 0
        )
        weights = self.weights * (below > 0)
        return np.asarray((shares * weights).sum(axis=1) / weights.sum(axis=1))

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the clustered bootstrap.

        If every answer is right, or every one wrong, no resample differs; then it is Wilson's
        interval with the clusters as items.
        """
        score, num_clusters = self.score, len(self.clusters)
        if score in (0.0, 1.0):
            return wilson_interval(round(score * num_clusters), num_clusters)
        resampled = [self.scores(drawn) for drawn in bootstrap_weights(num_clusters)]
        return percentile_interval(np.concatenate(resampled))


def share_rows(
    rows: Sequence[PredictionRow], parts: Sequence[str] = ("rows",), *, of: Worth = worth
) -> Shares:
    """Sum up the parts of a score by cluster.

    Args:
        rows: At least one.
        parts: See the table of the module.
        of: What a row is worth.

    Raises:
        DataError: If a part is none of the table, a row does not say its group or slice, or a
            group reaches into several clusters.
    """
    clusters = tuple(sorted({row.cluster for row in rows}))
    place = {cluster: index for index, cluster in enumerate(clusters)}
    numerators, denominators, weights = [], [], []
    for part in parts:
        columns = list(_columns(part, rows, of))
        for column in columns:
            above, below = np.zeros(len(clusters)), np.zeros(len(clusters))
            for cluster, value in column:
                above[place[cluster]] += value
                below[place[cluster]] += 1
            numerators.append(above)
            denominators.append(below)
            weights.append(1 / (len(parts) * len(columns)))
    return Shares(
        clusters, np.stack(numerators, axis=1), np.stack(denominators, axis=1), np.array(weights)
    )


def is_binary(rows: Sequence[PredictionRow], parts: Sequence[str]) -> bool:
    """Tell whether a score is the share of right answers among independent rows."""
    independent = len({row.cluster for row in rows}) == len(rows)
    return tuple(parts) == ("rows",) and independent and all(row.score in (0, 1) for row in rows)


def score_interval(
    rows: Sequence[PredictionRow], parts: Sequence[str] = ("rows",)
) -> tuple[float, float, float]:
    """Return score, lower and upper end of its 95 % interval, as fractions.

    Wilson's interval for right or wrong answers to independent questions, else the clustered
    bootstrap.
    """
    shares = share_rows(rows, parts)
    if is_binary(rows, parts):
        return shares.score, *wilson_interval(sum(row.right for row in rows), len(rows))
    return shares.score, *shares.interval()


def _columns(
    part: str, rows: Sequence[PredictionRow], of: Worth
) -> Iterator[list[tuple[str, float]]]:
    """Give for each share of a part the cluster and worth of all that counts in it."""
    kind, _, name = part.partition(":")
    if part == "rows":
        yield [(row.cluster, of(row)) for row in rows]
    elif kind == "all" and name:
        yield _group_column(name, rows, of)
    elif kind == "each" and name:
        values: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for row in rows:
            values[_named(row.slices, name, row)].append((row.cluster, of(row)))
        yield from (values[value] for value in sorted(values))
    else:
        raise DataError(
            f"a score has no part {part!r}; write rows, all: and a kind of group, or each: and "
            "a slice"
        )


def _group_column(kind: str, rows: Sequence[PredictionRow], of: Worth) -> list[tuple[str, float]]:
    groups: dict[tuple[str, int], list[PredictionRow]] = defaultdict(list)
    for row in rows:
        groups[_named(row.groups, kind, row), row.seed].append(row)
    column = []
    for (name, _), members in sorted(groups.items()):
        clusters = {row.cluster for row in members}
        if len(clusters) > 1:
            raise DataError(
                f"the {kind} {name!r} reaches into {len(clusters)} clusters; rows that are "
                "scored together have to share a cluster"
            )
        column.append((clusters.pop(), float(all(of(row) == 1 for row in members))))
    return column


def _named(names: Mapping[str, str], kind: str, row: PredictionRow) -> str:
    if kind not in names:
        raise DataError(
            f"benchmark {row.benchmark!r}, index {row.index}: the score needs {kind!r}, which "
            "the row does not name"
        )
    return names[kind]
