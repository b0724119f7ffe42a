"""What follows the suite's table: validation by size, extraction, and goals that are no ratios."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.data.cases import LOOKS
from benchmarks.data.scale import ROWS, ROWS_SMALL, ScaleRow, in_own_process, measure_validation
from benchmarks.data.throughput import SMALL, WAYS, Rate, Sizes, measure_rate
from benchmarks.goals import Goal, goal_table
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.report import lay_out
from benchmarks.suite import Row

Line = tuple[str, ...]
Found = ScaleRow | Rate

GIGABYTE = 1e9
#: Wanted: memory at so many rows, and how much dearer a row may become.
MEMORY_GB, MEMORY_ROWS = 8.0, 1_000_000
MAX_GROWTH = 1.5
#: Wanted of D2, in microseconds of processor time a row, by the workload's last word.
LOOK_MICROSECONDS = {"headers": 40.0, "unchanged": 5.0}

_SHOWN_PARTS = ("read", "inspect", "measure", "write")
_SCALE_HEADINGS = (
    *("rows", "rows/s"),
    *(f"{part} rows/s" for part in _SHOWN_PARTS),
    *("expectations %", "other %", "cpu us/row", "us/further row", "peak MB", "decoders MB"),
)
_RATE_HEADINGS = ("what", "how", "items", "cpu s", "items/cpu s", "of decoding alone")


def steps(
    names: Sequence[str], rows: Sequence[int] | None, *, small: bool
) -> Mapping[str, Callable[[], Found]]:
    """List what is to be measured, by what it is called while it is, in order.

    Args:
        names: "scale" for validations, "extract" for extraction.
        rows: Numbers of annotations, ascending; None for the usual ones.
        small: Take small sizes.
    """
    listed: dict[str, Callable[[], Found]] = {}
    if "scale" in names:
        for count in rows or (ROWS_SMALL if small else ROWS):
            listed[f"validate {count:,} rows"] = partial(in_own_process, measure_validation, count)
    if "extract" in names:
        sizes = SMALL if small else Sizes()
        listed |= {f"{what}: {way}": partial(measure_rate, what, way, sizes) for what, way in WAYS}
    return listed


def text(found: Sequence[Found], goals: Sequence[Goal]) -> str:
    """Lay all out as Markdown tables, each with a line above that says what it is."""
    scale = [one for one in found if isinstance(one, ScaleRow)]
    rates = [one for one in found if isinstance(one, Rate)]
    parts = []
    if scale:
        parts.append("scale: validate, by number of annotations\n" + _scale_table(scale))
    if rates:
        parts.append("extract, one decoding process\n" + _rate_table(rates))
    if goals:
        parts.append("goals that are no ratios\n" + goal_table(goals))
    return "\n\n".join(parts)


def goals_of(rows: Sequence[Row], found: Sequence[Found], *, small: bool) -> list[Goal]:
    """Hold what was measured against the goals that are no ratios.

    Args:
        rows: Of the suite.
        found: Of scale and throughput.
        small: Whether the suite ran in small sizes, about which no goal is.
    """
    scale = [one for one in found if isinstance(one, ScaleRow)]
    return [*_look_goals(rows, small), *_memory_goals(scale), *_growth_goals(scale)]


def json_lines(found: Sequence[Found], goals: Sequence[Goal], machine: Machine) -> str:
    """Write one JSON object per measurement and goal, each with its machine."""
    values: list[dict[str, Any]] = [
        {"table": "scale" if isinstance(one, ScaleRow) else "throughput", **asdict(one)}
        for one in found
    ]
    values += [{"table": "goals", **asdict(goal), "verdict": goal.verdict} for goal in goals]
    return "".join(json.dumps({**one, **asdict(machine)}) + "\n" for one in values)


def _look_goals(rows: Sequence[Row], small: bool) -> list[Goal]:
    found = []
    for row in rows:
        if row.goal == "D2" and row.is_ours and row.times is not None and not small:
            limit = LOOK_MICROSECONDS[row.workload.split()[-1]]
            seconds = Quartiles.of(row.times.cpu_seconds).median
            found.append(Goal("D2", row.workload, 1e6 * seconds / LOOKS[0], limit, "us/row"))
    return found


def _memory_goals(scale: Sequence[ScaleRow]) -> list[Goal]:
    if not scale or (memory := scale[-1].memory_bytes) is None:
        return []
    rows = scale[-1].rows
    what = f"memory at {rows:,} rows, decoders included"
    measured = memory / GIGABYTE
    return [Goal("memory", what, measured, MEMORY_GB, "GB", applies=rows == MEMORY_ROWS)]


def _growth_goals(scale: Sequence[ScaleRow]) -> list[Goal]:
    """Compare what a row costs, and what a further one costs.

    The second is the stricter: what a run costs however few rows there are is not in it.
    """
    found = []
    if len(scale) > 1:
        first, last = scale[0], scale[-1]
        what = f"time of a row, {last.rows:,} rows over {first.rows:,}"
        growth = _per_row(last) / _per_row(first)
        found.append(Goal("linear", what, growth, MAX_GROWTH, "x"))
    if len(scale) > 2:
        first_step = _per_further_row(scale[1], scale[0])
        last_step = _per_further_row(scale[-1], scale[-2])
        what = (
            f"time of a further row, from {scale[-2].rows:,} to {scale[-1].rows:,} over "
            f"from {scale[0].rows:,} to {scale[1].rows:,}"
        )
        found.append(Goal("linear", what, last_step / first_step, MAX_GROWTH, "x"))
    return found


def _per_row(row: ScaleRow) -> float:
    return row.cpu_seconds / row.rows


def _per_further_row(row: ScaleRow, before: ScaleRow) -> float:
    return (row.cpu_seconds - before.cpu_seconds) / (row.rows - before.rows)


def _scale_table(scale: Sequence[ScaleRow]) -> str:
    lines = []
    for row, before in zip(scale, [None, *scale], strict=False):
        seconds = row.part_seconds
        lines.append(
            (
                f"{row.rows:,}",
                f"{row.rows / row.wall_seconds:,.0f}",
                *(f"{row.rows / seconds[part]:,.0f}" for part in _SHOWN_PARTS),
                *(f"{100 * seconds[n] / row.wall_seconds:.1f}" for n in ("expectations", "other")),
                f"{1e6 * _per_row(row):,.0f}",
                "-" if before is None else f"{1e6 * _per_further_row(row, before):,.0f}",
                "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:,.0f}",
                f"{row.decoder_bytes / 1e6:,.0f}",
            )
        )
    return lay_out([_SCALE_HEADINGS, *lines])


def _rate_table(rates: Sequence[Rate]) -> str:
    alone = {rate.what: rate.per_second for rate in reversed(rates)}
    lines = [
        (
            rate.what,
            rate.way,
            f"{rate.items:,}",
            f"{rate.cpu_seconds:.2f}",
            f"{rate.per_second:,.1f}",
            f"{100 * rate.per_second / alone[rate.what]:.0f} %",
        )
        for rate in rates
    ]
    return lay_out([_RATE_HEADINGS, *lines])
