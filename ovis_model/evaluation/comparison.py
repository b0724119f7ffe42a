"""Compare two runs of the same benchmarks: candidate and champion.

    compare(read_run(candidate), read_run(champion), ComparisonRules(targets=("digits",)))

Rows are paired by benchmark, index and seed; what cannot be paired is refused.  A target passes
if the 95 % interval of candidate minus champion lies above 0, a guard if it lies above minus the
margin, corrected by Holm's method for the number of guards.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from ovis_model.config import ComparisonRules
from ovis_model.errors import ConfigError, GateError, list_examples
from ovis_model.evaluation.aggregation import share_rows
from ovis_model.evaluation.pairing import Paired, pair
from ovis_model.evaluation.predictions import BenchmarkRecord, Key, PredictionRow, Run
from ovis_model.evaluation.statistics import (
    BOOTSTRAP_SEED,
    ONE_SIDED,
    minimal_detectable_difference,
    paired_t_test,
    power_at,
)
from ovis_model.evaluation.verdict import (
    BenchmarkComparison,
    Comparison,
    Evidence,
    Flip,
    Rates,
    SliceComparison,
    conclude,
    judge,
)
from ovis_model.multiple_tests import holm

#: Slices with fewer rows are not tested: they could not regress visibly.
MIN_SLICE_ROWS = 10
#: Times that a model is compared with itself, to see how often it would meet the targets.
SELF_DRAWS = 1000
DECIMALS = 4


@dataclass(frozen=True)
class Match:
    """The rows of one benchmark, both models' in one order, and the test that fits them."""

    name: str
    parts: tuple[str, ...]
    candidate: Sequence[PredictionRow]
    champion: Sequence[PredictionRow]
    paired: Paired


def compare(candidate: Run, champion: Run, rules: ComparisonRules) -> Comparison:
    """Judge a candidate by the same questions that the champion answered.

    Args:
        candidate: Its run.
        champion: Its run.
        rules: What must be shown.

    Raises:
        GateError: If the two cannot be compared: other conditions, benchmarks or questions, or
            answers that are missing or ended in an error.
        ConfigError: If the rules name a benchmark that was not run.
    """
    refuse_unknown_names(rules, candidate)
    matches = match_runs(candidate, champion)
    evidence = _weigh(matches, rules)
    slices = compare_slices(matches)
    benchmarks = {
        match.name: _compare_one(match, rules, evidence[match.name], slices[match.name])
        for match in matches
    }
    outcome, reason = conclude(benchmarks)
    return Comparison(
        candidate=candidate.record.model,
        champion=champion.record.model,
        rules=rules,
        outcome=outcome,
        reason=reason,
        self_promotion=self_promotion(
            [match.paired for match in matches if match.name in rules.targets]
        ),
        benchmarks=benchmarks,
    )


def match_runs(candidate: Run, champion: Run) -> list[Match]:
    """Pair the rows of two runs.

    Raises:
        GateError: If they cannot be paired.
    """
    _refuse_other_conditions(candidate, champion)
    return [
        _match(name, record, candidate.rows[name], champion.rows[name])
        for name, record in candidate.record.benchmarks.items()
    ]


def find_flips(
    candidate: Iterable[PredictionRow], champion: Iterable[PredictionRow]
) -> list[Flip]:
    """List the questions that changed between right and wrong.

    Args:
        candidate: Rows in some order.
        champion: Rows of the same questions, in the same order.
    """
    return [
        Flip(index=one.index, seed=one.seed, now_right=one.right)
        for one, other in zip(candidate, champion, strict=True)
        if one.right != other.right
    ]


def self_promotion(targets: Sequence[Paired], *, draws: int = SELF_DRAWS) -> float | None:
    """Return how often a model would meet all targets against itself, in percent.

    The two models exchange their answers at random, as often as the real ones differ: whatever is
    left is chance.  Guards can only make it rarer.

    Returns:
        None if nothing has to improve.
    """
    if not targets:
        return None
    met = np.ones(draws, dtype=bool)
    for number, paired in enumerate(targets):
        met &= paired.wins_against_itself(draws, BOOTSTRAP_SEED + number)
    return round(100 * float(met.mean()), DECIMALS)


# ---- what cannot be compared ----------------------------------------------------------------


def refuse_unknown_names(rules: ComparisonRules, run: Run) -> None:
    """Refuse rules about benchmarks that were not run.

    Raises:
        ConfigError: Naming them.
    """
    unknown = sorted({*rules.targets, *rules.margins} - run.record.benchmarks.keys())
    if unknown:
        raise ConfigError(
            f"the rules name {list_examples(unknown)}, which was not run; there are "
            f"{', '.join(run.record.benchmarks)}"
        )


def _refuse_other_conditions(candidate: Run, champion: Run) -> None:
    ours, theirs = candidate.record, champion.record
    alone = sorted(ours.benchmarks.keys() ^ theirs.benchmarks.keys())
    if alone:
        raise GateError(
            f"only one of the two models was asked {list_examples(alone)}; evaluate the other on "
            "the same benchmarks first"
        )
    differing = [
        f"{key} is {ours.conditions.get(key)!r} for the candidate and "
        f"{theirs.conditions.get(key)!r} for the champion"
        for key in sorted(ours.conditions.keys() | theirs.conditions.keys())
        if ours.conditions.get(key) != theirs.conditions.get(key)
    ]
    differing += [
        f"{field} of {name} is {getattr(record, field)!r} for the candidate and "
        f"{getattr(theirs.benchmarks[name], field)!r} for the champion"
        for name, record in ours.benchmarks.items()
        for field in BenchmarkRecord.model_fields
        if getattr(record, field) != getattr(theirs.benchmarks[name], field)
    ]
    if differing:
        raise GateError(
            f"the two runs are different exams: {list_examples(differing)}; evaluate the "
            "champion under the candidate's conditions first"
        )


def _match(
    name: str,
    record: BenchmarkRecord,
    candidate: Sequence[PredictionRow],
    champion: Sequence[PredictionRow],
) -> Match:
    ours = _complete(name, "candidate", record, candidate)
    theirs = _complete(name, "champion", record, champion)
    keys = sorted(ours)
    other = sorted(ours.keys() ^ theirs.keys()) or [
        key for key in keys if _question(ours[key]) != _question(theirs[key])
    ]
    if other:
        named = list_examples([f"{index} with seed {seed}" for index, seed in other])
        raise GateError(
            f"{name}: the two models were not asked the same questions: {named}; evaluate the "
            "champion on the candidate's benchmark first"
        )
    mine, others = [ours[key] for key in keys], [theirs[key] for key in keys]
    return Match(name, record.parts, mine, others, pair(mine, others, record.parts))


def _question(row: PredictionRow) -> tuple[object, ...]:
    return row.row_hash, row.cluster, row.groups, row.slices


def _complete(
    name: str, who: str, record: BenchmarkRecord, rows: Sequence[PredictionRow]
) -> dict[Key, PredictionRow]:
    errors = [f"{row.index} ({row.error})" for row in rows if row.status == "error"]
    if errors:
        raise GateError(
            f"{name}: {len(errors)} questions of the {who} ended in an error, so its score is "
            f"not known: {list_examples(errors)}; run its evaluation again"
        )
    expected = record.num_items * len(record.seeds)
    if len(rows) != expected:
        raise GateError(
            f"{name}: the {who} has {len(rows)} of {expected} answers; run its evaluation again"
        )
    return {row.key: row for row in rows}


# ---- what the rows say ----------------------------------------------------------------------


def _weigh(matches: Sequence[Match], rules: ComparisonRules) -> dict[str, Evidence]:
    p_for, p_against = {}, {}
    guards = [match for match in matches if rules.role_of(match.name) == "guard"]
    for match in matches:
        if rules.role_of(match.name) == "target":
            p_for[match.name] = match.paired.p_above(0.0)
            p_against[match.name] = match.paired.p_below(rules.gain / 100)
    margins = [(match, -rules.sought(match.name) / 100) for match in guards]
    kept = holm([match.paired.p_above(margin) for match, margin in margins])
    lost = holm([match.paired.p_below(margin) for match, margin in margins])
    for match, p_kept, p_lost in zip(guards, kept, lost, strict=True):
        p_for[match.name], p_against[match.name] = p_kept, p_lost
    return {
        match.name: _evidence(
            match, rules.sought(match.name), p_for[match.name], p_against[match.name]
        )
        for match in matches
    }


def _evidence(match: Match, sought: float, p_for: float, p_against: float) -> Evidence:
    paired, rows = match.paired, len(match.candidate)
    low, high = paired.interval
    error = paired.standard_error
    detectable = 100 * minimal_detectable_difference(error)
    return Evidence(
        candidate=_points(share_rows(match.candidate, match.parts).score),
        champion=_points(share_rows(match.champion, match.parts).score),
        difference=_points(paired.difference),
        low=_points(low),
        high=_points(high),
        test=paired.test,
        p_value=paired.p_value,
        t_test_p=_t_test_p(match),
        p_for=p_for,
        p_against=p_against,
        standard_error=_points(error),
        power=round(power_at(sought / 100, error), DECIMALS),
        detectable=round(detectable, DECIMALS),
        items_needed=ceil(rows * (detectable / sought) ** 2),
    )


def _t_test_p(match: Match) -> float | None:
    if len(match.candidate) < 2:
        return None
    found = paired_t_test(
        [row.score for row in match.candidate], [row.score for row in match.champion]
    )
    return None if found is None else found.p


def _compare_one(
    match: Match,
    rules: ComparisonRules,
    found: Evidence,
    slices: tuple[SliceComparison, ...],
) -> BenchmarkComparison:
    forced_close = Rates(
        candidate=_rate(row.flags.forced_close for row in match.candidate),
        champion=_rate(row.flags.forced_close for row in match.champion),
    )
    invalid = Rates(
        candidate=_rate(row.status == "invalid" for row in match.candidate),
        champion=_rate(row.status == "invalid" for row in match.champion),
    )
    rates = {
        "thoughts closed by force": (forced_close, rules.max_forced_close_increase),
        "invalid answers": (invalid, rules.max_invalid_increase),
    }
    outcome, reason = judge(rules, match.name, found, rates=rates, slices=slices)
    return BenchmarkComparison(
        role=rules.role_of(match.name),
        sought=rules.sought(match.name),
        num_items=len(match.candidate),
        evidence=found,
        forced_close=forced_close,
        invalid=invalid,
        slices=slices,
        flips=tuple(find_flips(match.candidate, match.champion)),
        outcome=outcome,
        reason=reason,
    )


def compare_slices(matches: Sequence[Match]) -> dict[str, tuple[SliceComparison, ...]]:
    """Test every slice of every benchmark, corrected for the number of all of them."""
    sliced = [
        (match.name, key, len(rows[0]), pair(*rows))
        for match in matches
        for key, rows in _rows_by_slice(match).items()
    ]
    adjusted = holm([paired.p_below(0.0) for *_, paired in sliced])
    found: dict[str, list[SliceComparison]] = {match.name: [] for match in matches}
    for (benchmark, (name, value), num_items, paired), p_worse in zip(
        sliced, adjusted, strict=True
    ):
        low, high = paired.interval
        found[benchmark].append(
            SliceComparison(
                slice=name,
                value=value,
                num_items=num_items,
                difference=_points(paired.difference),
                low=_points(low),
                high=_points(high),
                p_worse=p_worse,
                regressed=p_worse <= ONE_SIDED,
            )
        )
    return {name: tuple(some) for name, some in found.items()}


def _rows_by_slice(
    match: Match,
) -> Mapping[tuple[str, str], tuple[list[PredictionRow], list[PredictionRow]]]:
    """Give both models' rows of every value that tells some rows from others."""
    by_value: dict[tuple[str, str], tuple[list[PredictionRow], list[PredictionRow]]]
    by_value = defaultdict(lambda: ([], []))
    for one, other in zip(match.candidate, match.champion, strict=True):
        for name, value in one.slices.items():
            by_value[name, value][0].append(one)
            by_value[name, value][1].append(other)
    return {
        key: rows
        for key, rows in sorted(by_value.items())
        if MIN_SLICE_ROWS <= len(rows[0]) < len(match.candidate)
    }


def _points(fraction: float) -> float:
    return round(100 * fraction, DECIMALS)


def _rate(flags: Iterator[bool]) -> float:
    counted = list(flags)
    return _points(sum(counted) / len(counted))
