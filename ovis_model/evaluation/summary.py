"""From stored runs to the report: no model, no pictures, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from ovis_model.errors import DataError
from ovis_model.evaluation.aggregation import share_rows
from ovis_model.evaluation.comparison import Match, compare_slices
from ovis_model.evaluation.contamination import Overlap
from ovis_model.evaluation.pairing import Paired, pair
from ovis_model.evaluation.predictions import PredictionRow, Run
from ovis_model.evaluation.scores import (
    DECIMALS,
    BenchmarkReport,
    Contamination,
    Difference,
    EvaluationReport,
    ModelScore,
    PublishedNumber,
    ThinkingEffect,
    percent,
)


@dataclass(frozen=True)
class Sources:
    """What a report is made of.

    Attributes:
        tuned: The model of the report.
        base: The checkpoint it came from, asked the same.
        thinking_off: The model of the report without thinking, if that was run.
        champion: Who holds the alias now, if it was asked the same; for the page only.
        published: Published numbers by benchmark.
        overlaps: What training data shares with benchmarks, by benchmark.
    """

    tuned: Run
    base: Run
    thinking_off: Run | None = None
    champion: Run | None = None
    published: Mapping[str, PublishedNumber] = field(default_factory=dict)
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)


def summarise(sources: Sources) -> EvaluationReport:
    """Compute the report.

    Raises:
        DataError: If a benchmark has no row, or the two models no row in common.
    """
    record = sources.tuned.record
    return EvaluationReport(
        protocol=dict(record.protocol),
        conditions=dict(record.conditions),
        benchmarks={name: _summarise_one(name, sources) for name in record.benchmarks},
    )


def _summarise_one(name: str, sources: Sources) -> BenchmarkReport:
    record, rows = sources.tuned.record.benchmarks[name], sources.tuned.rows[name]
    base = sources.base.rows.get(name, ())
    if not rows or not base:
        raise DataError(
            f"benchmark {name!r}: the {'base' if rows else 'tuned'} model answered nothing; run "
            "the evaluation again"
        )
    off = () if sources.thinking_off is None else sources.thinking_off.rows.get(name, ())
    overlap = sources.overlaps.get(name)
    return BenchmarkReport(
        fingerprint=record.fingerprint,
        metric=record.metric,
        num_items=record.num_items,
        tuned=ModelScore.of(rows, record),
        base=ModelScore.of(base, record),
        change=_difference(_match(name, record.parts, rows, base).paired),
        thinking=_thinking_effect(_match(name, record.parts, rows, off)) if off else None,
        published=sources.published.get(name),
        contamination=None if overlap is None else _contamination(overlap, rows, record.parts),
    )


def _match(
    name: str,
    parts: tuple[str, ...],
    rows: Sequence[PredictionRow],
    others: Sequence[PredictionRow],
) -> Match:
    """Pair the rows that both have; a model that was asked once answers for every seed."""
    by_key = {row.key: row for row in others}
    once = {row.index: row for row in others} if len({row.seed for row in others}) == 1 else {}
    pairs = [
        (row, other)
        for row in sorted(rows, key=lambda row: row.key)
        if (other := by_key.get(row.key, once.get(row.index))) is not None
    ]
    if not pairs:
        raise DataError(f"benchmark {name!r}: the two models have no question in common")
    mine, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    return Match(name, parts, mine, theirs, pair(mine, theirs, parts))


def _difference(paired: Paired) -> Difference:
    low, high = paired.interval
    return Difference(
        difference=percent(paired.difference),
        low=percent(low),
        high=percent(high),
        p_value=paired.p_value,
        test=paired.test,
    )


def _thinking_effect(match: Match) -> ThinkingEffect:
    return ThinkingEffect(
        change=_difference(match.paired),
        tokens_on=round(fmean(row.tokens.generated for row in match.candidate), DECIMALS),
        tokens_off=round(fmean(row.tokens.generated for row in match.champion), DECIMALS),
        slices=compare_slices([match])[match.name],
    )


def _contamination(
    overlap: Overlap, rows: Sequence[PredictionRow], parts: tuple[str, ...]
) -> Contamination:
    clean = [row for row in rows if row.index not in overlap.found]
    return Contamination(
        num_items=len({row.index for row in rows}),
        num_samples=overlap.num_samples,
        pixels=len(overlap.pixels),
        looks=len(overlap.looks),
        texts=len(overlap.texts),
        passages=len(overlap.passages),
        found=tuple(sorted(overlap.found)),
        all_score=percent(share_rows(rows, parts).score),
        clean_score=percent(share_rows(clean, parts).score) if clean else None,
    )
