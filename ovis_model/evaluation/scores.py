"""What an evaluation says: reports/evaluate.json.  Reading it does not import torch."""

from collections.abc import Sequence
from typing import Any, Self

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.statistics import wilson_interval
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.reports import Report

#: Decimals of percentages and means: enough for any benchmark, and equal on every machine.
DECIMALS = 4


class ModelScore(Report):
    """How one model did on one benchmark.

    Attributes:
        score: Right answers, percent.
        interval_low: Lower end of the score's 95 % Wilson interval, percent.
        interval_high: Its upper end, percent.
        num_correct: Right answers.
        thinking_closed: Items whose thought the model closed itself.
        forced_close: Items whose thought the budget closed.
        truncated: Items cut off at max_new_tokens.
        invalid: Items with nothing to mark: no answer, or no box in it.
        mean_thinking_tokens: Mean over all items.
    """

    score: float
    interval_low: float
    interval_high: float
    num_correct: int
    thinking_closed: int
    forced_close: int
    truncated: int
    invalid: int
    mean_thinking_tokens: float

    @classmethod
    def of(cls, outputs: Sequence[ParsedOutput], marks: Sequence[Mark]) -> Self:
        """Count; one mark per output."""
        num_items = len(marks)
        num_correct = sum(mark.correct for mark in marks)
        low, high = wilson_interval(num_correct, num_items)
        closed = [output.thinking_closed for output in outputs]
        return cls(
            score=round(100 * num_correct / num_items, DECIMALS),
            interval_low=round(100 * low, DECIMALS),
            interval_high=round(100 * high, DECIMALS),
            num_correct=num_correct,
            thinking_closed=closed.count("natural"),
            forced_close=closed.count("forced"),
            truncated=sum(output.finish_reason == "length" for output in outputs),
            invalid=sum(mark.invalid for mark in marks),
            mean_thinking_tokens=round(
                sum(output.thinking_tokens for output in outputs) / num_items, DECIMALS
            ),
        )


class BenchmarkReport(Report):
    """Base and tuned model on the same items.

    Attributes:
        fingerprint: sha256 over items, media, metric and protocol; scores compare only if equal.
        metric: Name of the metric.
        num_items: Items marked.
        tuned: The model of this run.
        base: The checkpoint it came from.
    """

    fingerprint: str
    metric: str
    num_items: int
    tuned: ModelScore
    base: ModelScore


class EvaluationReport(Report):
    """All benchmarks of one evaluation.

    Attributes:
        protocol: How answers were generated; part of every fingerprint.
        benchmarks: By name.
    """

    protocol: dict[str, Any]
    benchmarks: dict[str, BenchmarkReport]

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of the report under a flat name, for a tracker."""
        return {
            f"{name}.{role}.{key}": float(value)
            for name, report in self.benchmarks.items()
            for role, score in (("tuned", report.tuned), ("base", report.base))
            for key, value in score.model_dump().items()
        }

    def to_table(self) -> str:
        """Tell the scores as plain text, one line per benchmark."""
        lines = [f"{'benchmark':24} {'items':>5} {'base':>8} {'tuned':>8}   95 % interval"]
        for name, report in self.benchmarks.items():
            tuned = report.tuned
            lines.append(
                f"{name:24} {report.num_items:5} {report.base.score:6.1f} % {tuned.score:6.1f} %"
                f"   {tuned.interval_low:.1f} - {tuned.interval_high:.1f}"
            )
        return "\n".join(lines)
