"""What a candidate must show against the champion, and what the judgement says.

    pass            every target is better, and no guard can have lost its margin
    fail            a gain worth having is ruled out, a guard lost more than its margin, or more
                    answers are invalid or forced than allowed
    inconclusive    neither: the rows cannot tell, and the power says what they could have told

All numbers are points of a score or a rate, 0 to 100, unless they are p-values or powers.
"""

from collections.abc import Mapping
from typing import Literal

from ovis_model.config import ComparisonRules, Role
from ovis_model.errors import list_examples
from ovis_model.evaluation.statistics import ONE_SIDED, POWER
from ovis_model.reports import Report

Outcome = Literal["pass", "fail", "inconclusive"]


class Flip(Report):
    """A question that only one of the two got right."""

    index: str
    seed: int
    now_right: bool


class Rates(Report):
    """Share of answers of a kind, in percent."""

    candidate: float
    champion: float

    @property
    def increase(self) -> float:
        """Points that the candidate has more."""
        return self.candidate - self.champion


class SliceComparison(Report):
    """One value of one slice.

    Attributes:
        slice: Such as "category".
        value: Such as "charts".
        num_items: Rows of it.
        difference: Candidate minus champion.
        low: Lower end of its 95 % interval, for this slice alone.
        high: Its upper end.
        p_worse: One-sided, of not being worse, corrected for the number of slices.
        regressed: Whether the candidate is worse.
    """

    slice: str
    value: str
    num_items: int
    difference: float
    low: float
    high: float
    p_worse: float
    regressed: bool


class Evidence(Report):
    """What the rows of one benchmark say about two models.

    Attributes:
        candidate: Its score.
        champion: Its score.
        difference: Candidate minus champion.
        low: Lower end of the difference's 95 % interval.
        high: Its upper end.
        test: Name of the test.
        p_value: Two-sided, of no difference.
        t_test_p: Of the paired t-test that lmms-eval prints, to compare with it; nothing is
            judged by it.  None if no difference varies.
        p_for: One-sided: small if a target improved, or if a guard kept its margin; guards are
            corrected for their number.
        p_against: One-sided: small if a target cannot have gained enough, or if a guard lost
            more than its margin; guards are corrected for their number.
        standard_error: Of the difference.
        power: How often these rows show it if there is a gain of the size sought; for a guard, if
            there is no loss.
        detectable: Smallest true difference that these rows show in 80 % of cases.
        items_needed: Rows with which the power would be 80 %.
    """

    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    test: str
    p_value: float
    t_test_p: float | None
    p_for: float
    p_against: float
    standard_error: float
    power: float
    detectable: float
    items_needed: int

    @property
    def change(self) -> str:
        """The difference with its interval, as a sentence or a table has it."""
        return f"{self.difference:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


class BenchmarkComparison(Report):
    """Both models on one benchmark.

    Attributes:
        role: A target must improve, a guard must not lose.
        sought: The gain or margin that is looked for.
        num_items: Rows of each.
        evidence: What the scores say.
        forced_close: Thoughts closed by the budget.
        invalid: Answers with nothing to judge.
        slices: By slice and value.
        flips: Questions that changed between right and wrong.
        outcome: Of this benchmark.
        reason: Why, in one clause.
    """

    role: Role
    sought: float
    num_items: int
    evidence: Evidence
    forced_close: Rates
    invalid: Rates
    slices: tuple[SliceComparison, ...]
    flips: tuple[Flip, ...]
    outcome: Outcome
    reason: str

    @property
    def num_gained(self) -> int:
        """Questions that went from wrong to right."""
        return sum(flip.now_right for flip in self.flips)

    @property
    def num_lost(self) -> int:
        """Questions that went from right to wrong."""
        return len(self.flips) - self.num_gained


class Comparison(Report):
    """The judgement.

    Attributes:
        candidate: Who wants to be promoted.
        champion: Who is to be beaten.
        rules: By which it was judged.
        outcome: Pass, fail or inconclusive.
        reason: Why, in one sentence.
        self_promotion: How often a model would have met the targets against itself on rows that
            differ as much as these, in percent; None without targets.
        benchmarks: By name.
    """

    candidate: str
    champion: str
    rules: ComparisonRules
    outcome: Outcome
    reason: str
    self_promotion: float | None
    benchmarks: dict[str, BenchmarkComparison]

    def to_table(self) -> str:
        """Tell the judgement as plain text: a line per benchmark, then the sentence."""
        lines = [f"{'benchmark':24} {'role':6} {'champion':>9} {'candidate':>9}   difference"]
        for name, one in self.benchmarks.items():
            found = one.evidence
            lines.append(
                f"{name:24} {one.role:6} {found.champion:7.1f} % {found.candidate:7.1f} %   "
                f"{found.change}  {one.outcome}"
            )
        return "\n".join([*lines, self.reason])


def judge(
    rules: ComparisonRules,
    name: str,
    found: Evidence,
    *,
    rates: Mapping[str, tuple[Rates, float]],
    slices: tuple[SliceComparison, ...],
) -> tuple[Outcome, str]:
    """Judge one benchmark.

    Args:
        rules: What must be shown.
        name: Of the benchmark.
        found: What the scores say.
        rates: By what is counted: how often, and by how many points it may rise.
        slices: The slices that were tested.

    Returns:
        The outcome, and why, in one clause.
    """
    for what, (rate, allowed) in rates.items():
        if rate.increase > allowed:
            return "fail", (
                f"{name} has {rate.candidate:.1f} % {what}, the champion {rate.champion:.1f} % "
                f"({_points(allowed)} more allowed)"
            )
    regressed = [f"{one.slice} {one.value}" for one in slices if one.regressed]
    if regressed and not rules.slices_may_regress:
        return "fail", f"{name} is worse in {list_examples(regressed)}"
    if rules.role_of(name) == "target":
        return _judge_target(name, found, rules.gain)
    return _judge_guard(name, found, rules.sought(name))


def conclude(benchmarks: Mapping[str, BenchmarkComparison]) -> tuple[Outcome, str]:
    """Join the outcomes: the worst decides, and its reasons are the sentence's.

    Args:
        benchmarks: By name.
    """
    for outcome in ("fail", "inconclusive", "pass"):
        found = [one for one in benchmarks.values() if one.outcome == outcome]
        targets = [one.reason for one in found if one.role == "target"]
        reasons = [one.reason for one in found]
        if outcome == "pass" and 0 < len(targets) < len(found):
            reasons = [*targets, "no guard lost its margin"]
        if reasons:
            return outcome, f"{outcome}: {'; '.join(reasons)}."
    return "inconclusive", "inconclusive: there is no benchmark to compare on."


def _judge_target(name: str, found: Evidence, gain: float) -> tuple[Outcome, str]:
    interval = f"{found.difference:+.1f} points ({found.low:+.1f} to {found.high:+.1f})"
    if found.p_for <= ONE_SIDED:
        return "pass", f"{name} improved by {interval}"
    if found.p_against <= ONE_SIDED:
        return "fail", f"{name} changed by {interval}, a gain of {_points(gain)} is ruled out"
    return "inconclusive", (
        f"{name} changed by {interval}, which may be chance: these rows show a gain of "
        f"{_points(gain)} in {found.power:.0%} of cases{_rows_that_would(found)}"
    )


def _judge_guard(name: str, found: Evidence, margin: float) -> tuple[Outcome, str]:
    interval = f"{found.difference:+.1f} points ({found.low:+.1f} to {found.high:+.1f})"
    if found.p_for <= ONE_SIDED:
        return "pass", f"{name} kept within {_points(margin)}, at {interval}"
    if found.p_against <= ONE_SIDED:
        return "fail", f"{name} lost more than {_points(margin)}, at {interval}"
    if found.high < 0:  # worse for certain, so more rows would not clear it
        return "inconclusive", (
            f"{name} is worse, by {interval}, and a loss of {_points(margin)} is not ruled out"
        )
    return "inconclusive", (
        f"{name} changed by {interval}, so a loss of {_points(margin)} is not ruled out: these "
        f"rows rule it out for an equal model in {found.power:.0%} of cases"
        f"{_rows_that_would(found)}"
    )


def _rows_that_would(found: Evidence) -> str:
    return f", {found.items_needed:,} rows would in 80 %" if found.power < POWER else ""


def _points(value: float) -> str:
    return f"{value:g} point{'' if value == 1 else 's'}"
