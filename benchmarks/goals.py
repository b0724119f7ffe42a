"""Goals that are no ratio of a case: a number, and the limit that is wanted of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import lay_out

HEADINGS = ("goal", "what", "measured", "wanted", "verdict")


@dataclass(frozen=True)
class Goal:
    """A number with a limit.

    Attributes:
        goal: Its name in the suite.
        what: What was measured.
        measured: The number that is judged.
        limit: The highest that is wanted, or the lowest.
        unit: Of both.
        applies: Whether the size is the one that the limit is about.
        at_least: Whether the limit is the lowest.
    """

    goal: str
    what: str
    measured: float
    limit: float
    unit: str
    applies: bool = True
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """PASS or MISS, or nothing where the limit is about another size."""
        if not self.applies:
            return ""
        reached = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "PASS" if reached else "MISS"


def goal_table(goals: Sequence[Goal]) -> str:
    """Lay goals out as a Markdown table."""
    lines = [
        (
            goal.goal,
            goal.what,
            f"{goal.measured:.2f} {goal.unit}",
            f"{'>=' if goal.at_least else '<='} {goal.limit:g} {goal.unit}",
            goal.verdict,
        )
        for goal in goals
    ]
    return lay_out([HEADINGS, *lines])
