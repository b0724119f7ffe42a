"""What an evaluation says: reports/evaluate.json.  Reading it does not import torch.

Everything is computed from stored rows, and nothing of it is a clock reading: `timing` has those.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Self

import numpy as np
from pydantic import Field

from ovis_model.evaluation.aggregation import (
    best_worth,
    is_binary,
    score_interval,
    share_rows,
)
from ovis_model.evaluation.predictions import BenchmarkRecord, PredictionRow
from ovis_model.evaluation.statistics import clustered_standard_error
from ovis_model.evaluation.verdict import SliceComparison
from ovis_model.reports import Report

#: Decimals of percentages and means: enough for any benchmark, and equal on every machine.
DECIMALS = 4
WILSON, BOOTSTRAP = "Wilson", "clustered bootstrap"


class SliceScore(Report):
    """A model's score on the rows of one value of one slice, with its 95 % interval, percent."""

    slice: str
    value: str
    num_rows: int
    score: float
    interval_low: float
    interval_high: float


class ModelScore(Report):
    """How one model did on one benchmark.

    Attributes:
        score: Of the benchmark, percent; unresolved and invalid answers count nothing.
        interval_low: Lower end of the score's 95 % interval, percent.
        interval_high: Its upper end, percent.
        interval_method: How the interval was computed.
        standard_error: Of the mean of the rows, clustered, percent.
        upper: The score if a judge found every unresolved answer right, percent.
        num_correct: Answers with full marks.
        num_rows: Answers: one per item and seed.
        missing: Answers that are not there; the run is incomplete.
        errors: Questions that ended in an error; the run is incomplete.
        unresolved: Answers that the rule could not judge.
        invalid: Answers with nothing to mark: none at all, or no box in it.
        thinking_closed: Answers whose thought the model closed itself.
        forced_close: Answers whose thought the budget closed.
        unclosed_thinking: Answers whose thought never closed.
        no_think_block: Answers without the thought that was asked for.
        truncated: Answers cut off at max_new_tokens.
        mean_thinking_tokens: Mean over all answers.
        thinking_tokens_p50: Half of the answers took at most so many.
        thinking_tokens_p95: 95 % of the answers took at most so many.
        score_when_forced: Mean of the rows whose thought the budget closed, percent.
        score_when_not_forced: Mean of the others, percent.
        seed_scores: The score of every seed, percent, where there are several.
        slices: By slice and value.
    """

    score: float
    interval_low: float
    interval_high: float
    interval_method: str = WILSON
    standard_error: float = 0.0
    upper: float | None = None
    num_correct: int
    num_rows: int | None = None
    missing: int = 0
    errors: int = 0
    unresolved: int = 0
    invalid: int
    thinking_closed: int
    forced_close: int
    unclosed_thinking: int = 0
    no_think_block: int = 0
    truncated: int
    mean_thinking_tokens: float
    thinking_tokens_p50: int = 0
    thinking_tokens_p95: int = 0
    score_when_forced: float | None = None
    score_when_not_forced: float | None = None
    seed_scores: dict[int, float] = Field(default_factory=dict)
    slices: tuple[SliceScore, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[PredictionRow], record: BenchmarkRecord) -> Self:
        """Score the rows of one benchmark.

        Args:
            rows: At least one.
            record: What was asked.
        """
        score, low, high = score_interval(rows, record.parts)
        thinking = [row.tokens.thinking for row in rows]
        forced = [row.score for row in rows if row.flags.forced_close]
        unforced = [row.score for row in rows if not row.flags.forced_close]
        status = [row.status for row in rows]
        return cls(
            score=percent(score),
            interval_low=percent(low),
            interval_high=percent(high),
            interval_method=WILSON if is_binary(rows, record.parts) else BOOTSTRAP,
            standard_error=percent(
                clustered_standard_error(
                    [row.score for row in rows], [row.cluster for row in rows]
                )
            ),
            upper=percent(share_rows(rows, record.parts, of=best_worth).score),
            num_correct=sum(row.right for row in rows),
            num_rows=len(rows),
            missing=max(0, record.num_items * len(record.seeds) - len(rows)),
            errors=status.count("error"),
            unresolved=status.count("unresolved"),
            invalid=status.count("invalid"),
            thinking_closed=sum(_closed_itself(row) for row in rows),
            forced_close=len(forced),
            unclosed_thinking=sum(row.flags.unclosed_thinking for row in rows),
            no_think_block=sum(row.flags.no_think_block for row in rows),
            truncated=sum(row.flags.answer_truncated for row in rows),
            mean_thinking_tokens=round(fmean(thinking), DECIMALS),
            thinking_tokens_p50=percentile(thinking, 50),
            thinking_tokens_p95=percentile(thinking, 95),
            score_when_forced=percent(fmean(forced)) if forced else None,
            score_when_not_forced=percent(fmean(unforced)) if unforced else None,
            seed_scores=_score_seeds(rows, record),
            slices=tuple(_score_slices(rows)),
        )

    @property
    def seed_deviation(self) -> float | None:
        """Standard deviation of the seeds' scores, points; None for a single run."""
        scores = list(self.seed_scores.values())
        return round(stdev(scores), DECIMALS) if len(scores) > 1 else None

    @property
    def incomplete(self) -> bool:
        """Whether the score is not that of the whole benchmark."""
        return bool(self.errors or self.missing)


class Difference(Report):
    """Of two scores on the same rows, in points, with its 95 % interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str


class ThinkingEffect(Report):
    """The same model on the same rows, thinking and not.

    Attributes:
        change: Thinking minus not thinking.
        tokens_on: Generated tokens of an answer with thinking, on average.
        tokens_off: Without.
        slices: The difference by slice; `regressed` says that thinking hurts there.
    """

    change: Difference
    tokens_on: float
    tokens_off: float
    slices: tuple[SliceComparison, ...] = ()


class PublishedNumber(Report):
    """What the model's authors published about a benchmark.

    Attributes:
        score: Their number, percent; None if none is known.
        source: Where it was read.
        obstacles: Why ours cannot stand beside it; empty if it can.
    """

    score: float | None
    source: str = ""
    obstacles: tuple[str, ...] = ()


class Contamination(Report):
    """What the training data shares with a benchmark.

    Attributes:
        num_items: Items that were looked for.
        num_samples: Training samples that were looked through.
        pixels: Items of which a picture is in the training data, pixel by pixel.
        looks: Items of which a picture looks like one of the training data.
        texts: Items whose question and answer are in the training data.
        passages: Items that share a passage of 13 words with the training data.
        found: Indices of all these items.
        all_score: Score of the tuned model on all items, percent.
        clean_score: Its score on the others, percent; None if there are none.
    """

    num_items: int
    num_samples: int
    pixels: int
    looks: int
    texts: int
    passages: int
    found: tuple[str, ...]
    all_score: float
    clean_score: float | None


class BenchmarkReport(Report):
    """Base and tuned model on the same items.

    Attributes:
        fingerprint: sha256 over items, media, metric and protocol; scores compare only if equal.
        metric: Name of the metric.
        num_items: Items marked.
        tuned: The model of this run.
        base: The checkpoint it came from.
        change: Tuned minus base.
        thinking: What thinking changes; None where only one of the two was run.
        published: What is published about it; None where nobody looked.
        contamination: What training data shares with it; None where nobody looked.
    """

    fingerprint: str
    metric: str
    num_items: int
    tuned: ModelScore
    base: ModelScore
    change: Difference | None = None
    thinking: ThinkingEffect | None = None
    published: PublishedNumber | None = None
    contamination: Contamination | None = None


class EvaluationReport(Report):
    """All benchmarks of one evaluation.

    Attributes:
        protocol: How answers were generated; part of every fingerprint.
        conditions: What else must be equal to compare, such as the backend and its precision.
        benchmarks: By name.
    """

    protocol: dict[str, Any]
    conditions: dict[str, str] = Field(default_factory=dict)
    benchmarks: dict[str, BenchmarkReport]

    @property
    def incomplete(self) -> bool:
        """Whether an answer is missing or ended in an error."""
        return any(
            score.incomplete for one in self.benchmarks.values() for score in (one.tuned, one.base)
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of the report under a flat name, for a tracker."""
        return {
            f"{name}.{role}.{key}": float(value)
            for name, report in self.benchmarks.items()
            for role, score in (("tuned", report.tuned), ("base", report.base))
            for key, value in score.model_dump().items()
            if isinstance(value, int | float)
        }

    def to_table(self) -> str:
        """Tell the scores as plain text, one line per benchmark."""
        lines = [f"{'benchmark':24} {'items':>5} {'base':>8} {'tuned':>8}   95 % interval"]
        for name, report in self.benchmarks.items():
            tuned = report.tuned
            lines.append(
                f"{name:24} {report.num_items:5} {report.base.score:6.1f} % {tuned.score:6.1f} %"
                f"   {tuned.interval_low:.1f} - {tuned.interval_high:.1f}"
                f"{'   incomplete' if tuned.incomplete or report.base.incomplete else ''}"
            )
        return "\n".join(lines)


def percent(fraction: float) -> float:
    """Return a fraction in percent, rounded."""
    return round(100 * fraction, DECIMALS)


def percentile(values: Sequence[int], share: float) -> int:
    """Return the smallest value that so many percent of all values do not exceed.

    Example:
        >>> percentile([4, 1, 3, 2], 50)
        2
    """
    return int(np.percentile(values, share, method="inverted_cdf"))


def _closed_itself(row: PredictionRow) -> bool:
    flags = row.flags
    never = flags.forced_close or flags.unclosed_thinking or flags.no_think_block
    return row.enable_thinking and row.status != "error" and not never


def _score_seeds(rows: Sequence[PredictionRow], record: BenchmarkRecord) -> dict[int, float]:
    by_seed: dict[int, list[PredictionRow]] = defaultdict(list)
    for row in rows:
        by_seed[row.seed].append(row)
    if len(by_seed) < 2:
        return {}
    return {
        seed: percent(share_rows(some, record.parts).score)
        for seed, some in sorted(by_seed.items())
    }


def _score_slices(rows: Sequence[PredictionRow]) -> list[SliceScore]:
    """Score every value of every slice that tells some rows from others."""
    by_value: Mapping[tuple[str, str], list[PredictionRow]] = defaultdict(list)
    for row in rows:
        for name, value in row.slices.items():
            by_value[name, value].append(row)
    found = []
    for (name, value), some in sorted(by_value.items()):
        if len(some) < len(rows):
            score, low, high = map(percent, score_interval(some))
            found.append(
                SliceScore(
                    slice=name,
                    value=value,
                    num_rows=len(some),
                    score=score,
                    interval_low=low,
                    interval_high=high,
                )
            )
    return found
