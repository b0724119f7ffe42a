"""How much thinking pays: the same questions under several budgets.

The knee is the smallest budget whose score is at most `tolerance` points under the best one's.
Every budget leaves the answer the same room; budget 0 does not think.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ovis_model.data.checks.pages import page_environment
from ovis_model.evaluation.aggregation import share_rows
from ovis_model.evaluation.exam import Exam
from ovis_model.evaluation.exams import with_budget
from ovis_model.evaluation.predictions import PredictionRow, Run
from ovis_model.inference.auto_budget import AutoBudget
from ovis_model.reports import Report

BUDGETS = (0, 256, 1024, 2048, 6144)
TOLERANCE = 1.0
#: Size of a curve's field, in pixels, and the room around it for words.
WIDTH, HEIGHT, MARGIN = 360, 200, 44


class SweepPoint(Report):
    """What one budget gave.

    Attributes:
        budget: Tokens of thinking; 0 is no thinking.
        score: Mean over the benchmarks, percent.
        scores: Of each benchmark, percent.
        thinking_tokens: Of an answer, on average.
        forced_close: Share of thoughts that the budget closed, percent.
        seconds: From asking to the whole answer, on average.
        seconds_per_item: The same, divided by what was answered together.
    """

    budget: int
    score: float
    scores: dict[str, float]
    thinking_tokens: float
    forced_close: float
    seconds: float
    seconds_per_item: float


class Sweep(Report):
    """All budgets of a model.

    Attributes:
        model: Its digest.
        points: In the order of their budgets.
        tolerance: Points that the knee may be under the best score.
        knee: The budget that is chosen.
    """

    model: str
    points: tuple[SweepPoint, ...]
    tolerance: float
    knee: int

    @property
    def rule(self) -> str:
        """How the knee was chosen."""
        return (
            f"the smallest budget whose score is at most {self.tolerance:g} points under the best"
        )

    def to_auto_budget(self) -> AutoBudget:
        """Return what is recorded beside the model."""
        return AutoBudget(
            model=self.model,
            thinking_budget=self.knee,
            rule=self.rule,
            scores={point.budget: point.score for point in self.points},
        )

    def to_table(self) -> str:
        """Tell the points as plain text, one line per budget."""
        lines = [f"{'budget':>8} {'score':>8} {'thinking':>9} {'forced':>8} {'s/item':>8}"]
        lines += [
            f"{point.budget:8} {point.score:6.1f} % {point.thinking_tokens:9.1f} "
            f"{point.forced_close:6.1f} % {point.seconds_per_item:8.3f}"
            f"{'   <- auto' if point.budget == self.knee else ''}"
            for point in self.points
        ]
        return "\n".join(lines)


def sweep(
    exams: Sequence[Exam],
    budgets: Sequence[int],
    ask: Callable[[list[Exam]], Run],
    *,
    tolerance: float = TOLERANCE,
) -> Sweep:
    """Ask the same questions under every budget.

    Args:
        exams: Under their own settings.
        budgets: Tokens of thinking.
        ask: Asks exams, and returns the whole run.
        tolerance: See the module.

    Raises:
        ValueError: If there is no budget, or one below 0.
    """
    if not budgets or min(budgets) < 0:
        raise ValueError(f"budgets are numbers of tokens from 0 on, got {list(budgets)}")
    runs = {
        budget: ask([with_budget(exam, budget) for exam in exams])
        for budget in sorted(set(budgets))
    }
    points = tuple(_point(budget, run) for budget, run in runs.items())
    model = next(iter(runs.values())).record.model
    return Sweep(model=model, points=points, tolerance=tolerance, knee=_knee(points, tolerance))


def _point(budget: int, run: Run) -> SweepPoint:
    rows = [row for some in run.rows.values() for row in some]
    scores = {
        name: round(100 * share_rows(some, run.record.benchmarks[name].parts).score, 4)
        for name, some in run.rows.items()
    }
    return SweepPoint(
        budget=budget,
        score=round(fmean(scores.values()), 4),
        scores=scores,
        thinking_tokens=round(fmean(row.tokens.thinking for row in rows), 4),
        forced_close=round(100 * fmean(row.flags.forced_close for row in rows), 4),
        seconds=fmean(_seconds(row) for row in rows),
        seconds_per_item=fmean(_seconds(row) / row.batch_rows for row in rows),
    )


def _seconds(row: PredictionRow) -> float:
    return row.latency_s or 0.0


def _knee(points: Sequence[SweepPoint], tolerance: float) -> int:
    best = max(point.score for point in points)
    return min(point.budget for point in points if point.score >= best - tolerance)


@dataclass(frozen=True)
class Curve:
    """A curve of scores, as a picture of lines.

    Attributes:
        title: What it shows.
        unit: Of the horizontal axis.
        points: Horizontal value and sweep point, in the order of the budgets.
    """

    title: str
    unit: str
    points: Sequence[tuple[float, SweepPoint]]

    @property
    def widest(self) -> float:
        """Where the horizontal axis ends."""
        return max(value for value, _ in self.points) or 1.0

    @property
    def placed(self) -> list[tuple[float, float, SweepPoint]]:
        """Every point with its place in pixels."""
        scores = [point.score for _, point in self.points]
        low, high = math.floor(min(scores)), math.ceil(max(scores))
        rise = max(1, high - low)
        return [
            (
                round(MARGIN + WIDTH * value / self.widest, 1),
                round(MARGIN + HEIGHT * (1 - (point.score - low) / rise), 1),
                point,
            )
            for value, point in self.points
        ]

    @property
    def line(self) -> str:
        """The places as SVG wants them."""
        return " ".join(f"{x},{y}" for x, y, _ in self.placed)


def render_sweep(found: Sweep) -> str:
    """Render a page with a table and two curves; it opens anywhere."""
    by_tokens = [(point.thinking_tokens, point) for point in found.points]
    by_seconds = [(point.seconds_per_item, point) for point in found.points]
    return (
        page_environment("ovis_model.evaluation")
        .get_template("sweep.html.j2")
        .render(
            sweep=found,
            curves=[
                Curve("Score against thinking", "thinking tokens per answer", by_tokens),
                Curve("Score against time", "seconds per answer", by_seconds),
            ],
            width=WIDTH + 2 * MARGIN,
            height=HEIGHT + 2 * MARGIN,
            margin=MARGIN,
        )
    )
