"""The score of a benchmark, with the room that unresolved answers leave."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.aggregates import AGGREGATES, AggregateName
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.metrics import Metric


@dataclass(frozen=True)
class Score:
    """A score in percent.

    Attributes:
        value: Every unresolved answer counted wrong: a lower bound.
        upper: Every unresolved answer counted right.
        parts: The official parts of the score by name.
        num_items: Answers marked.
        num_units: What they make one by one, such as MMBench questions of several rolls.
        unresolved: Answers that a judge would have to settle.
        invalid: Answers with nothing to judge.
    """

    value: float
    upper: float
    parts: Mapping[str, float]
    num_items: int
    num_units: int
    unresolved: int
    invalid: int


def compute_score(
    items: Sequence[BenchmarkItem],
    marks: Sequence[Mark],
    metric: Metric,
    aggregate: AggregateName,
) -> Score:
    """Put the marks of a benchmark together.

    Args:
        items: What was asked.
        marks: One per item.
        metric: What gave the marks.
        aggregate: How they become a score.

    Raises:
        ValueError: If there is no mark, or not one per item.
    """
    if not marks or len(marks) != len(items):
        raise ValueError(f"{len(marks)} marks for {len(items)} items; one of each is needed")
    way = AGGREGATES[aggregate]
    parts = way.compute(items, [metric.credit(mark) for mark in marks])
    upper = way.compute(items, [metric.highest_credit(mark) for mark in marks])
    return Score(
        value=parts.pop("score"),
        upper=upper["score"],
        parts=parts,
        num_items=len(items),
        num_units=len(items) if way.unit is None else len({way.unit(item) for item in items}),
        unresolved=sum(mark.status == "unresolved" for mark in marks),
        invalid=sum(mark.invalid for mark in marks),
    )
