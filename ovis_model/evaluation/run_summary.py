"""The scores of one run alone: what `ovis eval` prints, and summary.json beside the rows."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from ovis_model.evaluation.predictions import Run
from ovis_model.evaluation.scores import ModelScore
from ovis_model.evaluation.timing import Timing
from ovis_model.reports import Report


class RunSummary(Report):
    """One model on several benchmarks.

    Attributes:
        model: Who answered.
        protocol: How answers were generated.
        conditions: What else must be equal to compare.
        benchmarks: By name.
        seconds_per_answer: By benchmark: a batch's time, divided by its rows; none where the
            rows were not timed.
    """

    model: str
    protocol: Mapping[str, Any]
    conditions: Mapping[str, str]
    benchmarks: dict[str, ModelScore]
    seconds_per_answer: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Self:
        """Score a run."""
        record = run.record
        spent = {name: Timing.of(rows) for name, rows in run.rows.items()}
        return cls(
            model=record.model,
            protocol=record.protocol,
            conditions=record.conditions,
            benchmarks={
                name: ModelScore.of(rows, record.benchmarks[name])
                for name, rows in run.rows.items()
            },
            seconds_per_answer={
                name: round(timing.generated_tokens / timing.tokens_per_second, 6)
                for name, timing in spent.items()
                if timing is not None and timing.tokens_per_second
            },
        )

    def to_table(self) -> str:
        """Tell the scores as plain text, one line per benchmark."""
        counts = f"{'unresolved':>10} {'invalid':>8} {'errors':>7} {'answers/s':>10}"
        lines = [f"{'benchmark':24} {'rows':>6} {'score':>8}   {'95 % interval':16} {counts}"]
        for name, one in self.benchmarks.items():
            spent = self.seconds_per_answer.get(name)
            interval = f"{one.interval_low:.1f} - {one.interval_high:.1f}"
            lines.append(
                f"{name:24} {one.num_rows:6} {one.score:6.1f} %   {interval:16} "
                f"{one.unresolved:10} {one.invalid:8} {one.errors:7} "
                f"{f'{1 / spent:.2f}' if spent else '-':>10}"
            )
        return "\n".join(lines)
