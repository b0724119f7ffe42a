"""What follows the cases of the suite `data`: validation by size, and extraction."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from benchmarks.data import scale_report
from benchmarks.data.scale_report import Found
from benchmarks.goals import Goal
from benchmarks.machine import Machine
from benchmarks.suite import Row

json_lines = scale_report.json_lines


def steps(
    names: Sequence[str], options: argparse.Namespace
) -> Mapping[str, Callable[[], list[Found]]]:
    """List what is to be measured; see `scale_report.steps`."""
    listed = scale_report.steps(names, options.rows, small=options.smoke)
    return {name: partial(_alone, measure) for name, measure in listed.items()}


def _alone(measure: Callable[[], Found]) -> list[Found]:
    return [measure()]


def goals_of(
    rows: Sequence[Row], found: Sequence[Found], _machine: Machine, *, small: bool
) -> list[Goal]:
    """Hold what was measured against the goals; see `scale_report.goals_of`."""
    return scale_report.goals_of(rows, found, small=small)


def text(found: Sequence[Found], goals: Sequence[Goal], _machine: Machine) -> str:
    """Lay all out as tables."""
    return scale_report.text(found, goals)
