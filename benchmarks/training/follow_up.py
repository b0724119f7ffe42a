"""What follows the cases of the suite `training`: whole trainings side by side, T1 to T6.

Their table, the goals, and how far planned peaks are from measured ones.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.goals import Goal, goal_table
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.report import lay_out
from benchmarks.suite import Row
from benchmarks.training.race import Result, run_race, speed
from benchmarks.training.variants import Limit, Race, races
from benchmarks.training.world import build_world

GIGABYTE = 1e9
#: Wanted of `ovis plan`: how far a peak may be from what was planned, in per cent.
PLAN_ERROR = 15.0
UNITS = {"speed": "x", "memory": "x", "overhead": "x", "share": "%"}
AT_LEAST = {"speed", "share"}
_HEADINGS = (
    *("race", "trainer", "cpu s/epoch (q1-q3)", "ratio (q1-q3)", "samples/s", "tokens/s"),
    *("padding %", "GFLOP/s", "% of ceiling", "peak GB", "first loss", "last loss", "equal"),
)
_PLAN_HEADINGS = ("trainer", "planned GB", "measured GB", "error %", "verdict")


def steps(
    names: Sequence[str], options: argparse.Namespace
) -> Mapping[str, Callable[[], list[Result]]]:
    """List the races that are about some goals.

    Args:
        names: Goals, or "plan" for all that a peak is planned for.
        options: Of the command: `rounds` and `smoke` are read.
    """
    wanted = [race for race in races() if "plan" in names or race.goals & set(names)]
    if not wanted:
        return {}
    world = build_world(small=options.smoke)
    rounds = 1 if options.smoke else options.rounds
    return {race.name: partial(run_race, race, world, rounds=rounds) for race in wanted}


def goals_of(
    _rows: Sequence[Row], found: Sequence[Result], machine: Machine, *, small: bool
) -> list[Goal]:
    """Hold what was measured against the goals.

    Of a ratio the worse quartile is judged.  Nothing is said of a trainer whose losses were wrong.
    """
    goals = []
    by_race = {one.name: one for one in races()}
    for name in dict.fromkeys(one.race for one in found):
        results = {one.variant.name: one for one in found if one.race == name}
        goals += _goals_of_race(by_race[name], results, machine, applies=not small)
    for result in found:
        if (error := plan_error(result)) is not None:
            what = f"planned peak: {result.variant.name}"
            goals.append(Goal("plan", what, abs(error), PLAN_ERROR, "%", applies=not small))
    return sorted(goals, key=lambda goal: goal.goal)


def _goals_of_race(
    race: Race, results: Mapping[str, Result], machine: Machine, *, applies: bool
) -> list[Goal]:
    goals = []
    for limit in race.limits:
        result = results[limit.variant]
        base = results[limit.against or limit.variant]
        measured = _measure(limit, result, base, machine)
        if measured is None or not (result.agreement.equal and base.agreement.equal):
            continue
        against = "" if limit.against is None else f" against {limit.against}"
        goals.append(
            Goal(
                limit.goal,
                f"{limit.measure}: {limit.variant}{against}",
                measured,
                limit.bound,
                UNITS[limit.measure],
                applies=applies,
                at_least=limit.measure in AT_LEAST,
            )
        )
    return goals


def _measure(limit: Limit, result: Result, base: Result, machine: Machine) -> float | None:
    if limit.measure == "speed":
        return speed(base, result).q1
    if limit.measure == "overhead":
        return speed(result, base).q3
    if limit.measure == "share":
        return share_of_ceiling(result, machine)
    if result.peak_bytes is None or base.peak_bytes is None:
        return None
    return result.peak_bytes / base.peak_bytes


def share_of_ceiling(result: Result, machine: Machine) -> float:
    """Return useful work per second of forward and backward passes, in per cent of a product's."""
    bfloat16 = result.variant.dtype == "bfloat16"
    ceiling = machine.gemm_bfloat16 if bfloat16 else machine.gemm_float32
    return 100 * _rate(result) / ceiling


def _rate(result: Result) -> float:
    """Useful GFLOP per second of forward and backward passes."""
    return result.expected.useful_flops / result.model_seconds / 1e9


def plan_error(result: Result) -> float | None:
    """Return how far the planned peak is above the measured one, in per cent of it."""
    planned, measured = result.expected.peak_bytes, result.peak_bytes
    if planned is None or measured is None:
        return None
    return 100 * (planned - measured) / measured


def text(found: Sequence[Result], goals: Sequence[Goal], machine: Machine) -> str:
    """Lay all out as Markdown tables."""
    if not found:
        return ""
    one = found[0].expected
    head = (
        f"{one.samples} samples, {one.tokens:,} tokens, {one.atoms:,} of them visual and "
        f"{one.labels:,} learned; an epoch is one step of the optimizer; "
        f"{len(found[0].epochs) - 1} timed epochs after a warm-up"
    )
    parts = [
        head,
        lay_out([_HEADINGS, *(_cells(result, found, machine) for result in found)]),
        "goals\n" + goal_table([goal for goal in goals if goal.goal != "plan"]),
        "planned peak against the measured one\n" + _plan_table(found, goals),
    ]
    return "\n\n".join(parts)


def _cells(result: Result, found: Sequence[Result], machine: Machine) -> tuple[str, ...]:
    base = next(one for one in found if one.race == result.race)
    seconds = Quartiles.of(result.times.cpu_seconds)
    ratio = speed(base, result)
    expected = result.expected
    sound = result.agreement.equal
    return (
        result.race if result is base else "",
        result.variant.name,
        f"{seconds.median:.2f} ({seconds.q1:.2f}-{seconds.q3:.2f})" if sound else "-",
        f"{ratio.median:.2f} ({ratio.q1:.2f}-{ratio.q3:.2f})" if sound else "-",
        f"{expected.samples / seconds.median:.2f}" if sound else "-",
        f"{expected.tokens / seconds.median:,.0f}" if sound else "-",
        f"{100 * (1 - expected.tokens / expected.positions):.1f}",
        f"{_rate(result):.1f}" if sound else "-",
        f"{share_of_ceiling(result, machine):.1f}" if sound else "-",
        "-" if result.peak_bytes is None else f"{result.peak_bytes / GIGABYTE:.2f}",
        f"{result.epochs[0].loss:.4f}",
        f"{result.epochs[-1].loss:.4f}",
        result.agreement.how if sound else f"WRONG: {result.agreement.how}",
    )


def _plan_table(found: Sequence[Result], goals: Sequence[Goal]) -> str:
    verdicts = {goal.what: goal.verdict for goal in goals}
    lines = [_PLAN_HEADINGS]
    for result in found:
        error, planned, measured = (
            plan_error(result),
            result.expected.peak_bytes,
            result.peak_bytes,
        )
        if error is not None and planned is not None and measured is not None:
            name = result.variant.name
            lines.append(
                (
                    name,
                    f"{planned / GIGABYTE:.2f}",
                    f"{measured / GIGABYTE:.2f}",
                    f"{error:+.1f}",
                    verdicts.get(f"planned peak: {name}", ""),
                )
            )
    return lay_out(lines)


def json_lines(found: Sequence[Result], goals: Sequence[Goal], machine: Machine) -> str:
    """Write one JSON object per trainer and goal, each with its machine."""
    values = [_values(result, found, machine) for result in found]
    values += [{"table": "goals", **asdict(goal), "verdict": goal.verdict} for goal in goals]
    return "".join(json.dumps({**one, **asdict(machine)}) + "\n" for one in values)


def _values(result: Result, found: Sequence[Result], machine: Machine) -> dict[str, Any]:
    base = next(one for one in found if one.race == result.race)
    cpu, wall = Quartiles.of(result.times.cpu_seconds), Quartiles.of(result.times.wall_seconds)
    expected = result.expected
    ratio = {f"ratio_{key}": value for key, value in asdict(speed(base, result)).items()}
    return {
        "table": "races",
        "race": result.race,
        "variant": result.variant.name,
        "dtype": result.variant.dtype,
        "workload_sha256": result.world_sha256,
        "rounds": len(result.times.cpu_seconds),
        "cpu_ms_median": 1e3 * cpu.median,
        "cpu_ms_q1": 1e3 * cpu.q1,
        "cpu_ms_q3": 1e3 * cpu.q3,
        "wall_ms_median": 1e3 * wall.median,
        "model_ms_median": 1e3 * result.model_seconds,
        **ratio,
        "samples": expected.samples,
        "real_tokens": expected.tokens,
        "padded_tokens": expected.positions,
        "atoms": expected.atoms,
        "labels": expected.labels,
        "pad_eff": expected.tokens / expected.positions,
        "useful_flops": expected.useful_flops,
        "gflops": _rate(result),
        "pct_ceiling": share_of_ceiling(result, machine),
        "peak_bytes": result.peak_bytes,
        "planned_peak_bytes": expected.peak_bytes,
        "losses": [one.loss for one in result.epochs],
        "equal": result.agreement.equal,
        "agreement": result.agreement.how,
    }
