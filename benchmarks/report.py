"""Rows of a run to a table for people and to JSON lines for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.machine import Machine
from benchmarks.measure import Quartiles
from benchmarks.suite import Row

HEADINGS = (
    "goal",
    "workload",
    "variant",
    "cpu ms (q1-q3)",
    "ratio (q1-q3)",
    "peak MB",
    "peak ratio",
    "equal",
    "wanted",
    "verdict",
)
MEGABYTE = 2**20


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as a Markdown table whose columns line up; '-' is what was not measured."""
    return lay_out([HEADINGS, *(_cells(row, above) for row, above in _with_row_above(rows))])


def lay_out(lines: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table whose columns line up; the first line is its head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([written[0], rule, *written[1:]])


def json_lines(rows: Sequence[Row], machine: Machine) -> str:
    """Write one JSON object per row, each with the machine it was measured on."""
    return "".join(json.dumps({**_values(row), **asdict(machine)}) + "\n" for row in rows)


def _with_row_above(rows: Sequence[Row]) -> list[tuple[Row, Row | None]]:
    return list(zip(rows, [None, *rows], strict=False))


def _cells(row: Row, above: Row | None) -> tuple[str, ...]:
    # A case is named once, in its first line.
    repeated = above is not None and (above.goal, above.workload) == (row.goal, row.workload)
    return (
        "" if repeated else row.goal,
        "" if repeated else row.workload,
        row.variant,
        "-" if row.times is None else _milliseconds(Quartiles.of(row.times.cpu_seconds)),
        "-" if row.ratio is None else _ratio(row.ratio),
        "-" if row.peak is None else f"{row.peak / MEGABYTE:.0f}",
        "-" if row.peak_ratio is None else f"{row.peak_ratio:.1f}",
        row.agreement.how,
        str(row.target) if row.is_ours else "",
        row.verdict,
    )


def _milliseconds(seconds: Quartiles) -> str:
    median, q1, q3 = map(_three_digits, (seconds.median, seconds.q1, seconds.q3))
    return f"{median} ({q1}-{q3})"


def _three_digits(seconds: float) -> str:
    """Write milliseconds with three digits at least, and none after the point from 100 on."""
    milliseconds = 1e3 * seconds
    decimals = next((n for n, limit in enumerate((100, 10, 1)) if milliseconds >= limit), 3)
    return f"{milliseconds:,.{decimals}f}"


def _ratio(ratio: Quartiles) -> str:
    return f"{ratio.median:.2f} ({ratio.q1:.2f}-{ratio.q3:.2f})"


def _values(row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {
        "goal": row.goal,
        "workload": row.workload,
        "workload_sha256": row.workload_sha256,
        "seed": row.seed,
        "dtype": row.dtype,
        "variant": row.variant,
        "equal": row.agreement.equal,
        "agreement": row.agreement.how,
        "peak_bytes": row.peak,
        "peak_ratio": row.peak_ratio,
        "wanted_time_ratio": row.target.time,
        "wanted_peak_ratio": row.target.peak,
        "verdict": row.verdict,
    }
    if row.times is not None:
        cpu = Quartiles.of(row.times.cpu_seconds)
        values |= {
            "rounds": len(row.times.cpu_seconds),
            "calls_per_round": row.times.calls_per_round,
            "cpu_ms_median": 1e3 * cpu.median,
            "cpu_ms_q1": 1e3 * cpu.q1,
            "cpu_ms_q3": 1e3 * cpu.q3,
            "wall_ms_median": 1e3 * Quartiles.of(row.times.wall_seconds).median,
        }
    if row.ratio is not None:
        values |= {f"ratio_{key}": value for key, value in asdict(row.ratio).items()}
    return values
