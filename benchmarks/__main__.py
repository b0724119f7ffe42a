"""The command: `python -m benchmarks SUITE`, one table from one run.

    python -m benchmarks model                       all cases
    python -m benchmarks model --only P1,C1          some goals
    python -m benchmarks model --smoke               small sizes, one round: does it work?
    python -m benchmarks training --only S1          a million samples to packed rows
    python -m benchmarks training --only T1,T3       whole trainings of equal batches, side by side
    python -m benchmarks data --only D2 --no-scale   the suite's table alone
    python -m benchmarks data --only scale,extract   whole validations by size, and extraction

Exit code 1 if a variant gave a wrong result; a goal that was missed is said in the table and
changes the exit code only with --strict.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.goals import Goal
from benchmarks.machine import Machine
from benchmarks.report import json_lines, table
from benchmarks.suite import Case, Row, Settings, run_case

SUITES = ("data", "model", "training")
#: What `--only` calls the measurements that follow the cases of a suite.
FOLLOW_UPS = {
    "data": ("scale", "extract"),
    "model": (),
    "training": ("T1", "T2", "T3", "T4", "T5", "T6", "plan"),
}
SMOKE = Settings(rounds=1, min_seconds=0.0, small=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a suite, print its table and return the exit code."""
    options = _parser().parse_args(arguments)
    # The measured work is one thread's: ratios then say how much work was removed.
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    module = f"benchmarks.{options.suite}.cases"
    cases = _select(importlib.import_module(module).cases(), options)
    settings = replace(
        SMOKE if options.smoke else Settings(rounds=options.rounds), preload=(module,)
    )
    machine = Machine.measure()
    print(f"{machine}\n", flush=True)
    rows: list[Row] = []
    for case in cases:
        print(f"{case.goal} {case.workload} ...", file=sys.stderr, flush=True)
        rows += run_case(case, settings)
        # Now, lest an interrupted run leave nothing.
        _write(options.json, json_lines(rows, machine))
    if rows:
        print(table(rows))
    found, goals = _follow_up(options, rows, machine) if FOLLOW_UPS[options.suite] else ([], [])
    return exit_code(rows, goals, wrong_of(found), strict=options.strict)


def _follow_up(
    options: argparse.Namespace, rows: Sequence[Row], machine: Machine
) -> tuple[Sequence[Any], Sequence[Goal]]:
    """Measure what is no case, print what came of it, and return that and its goals."""
    # Imported here: Great Expectations and trainers take seconds, which cases need not wait for.
    follow_up: Any = importlib.import_module(f"benchmarks.{options.suite}.follow_up")
    found: list[Any] = []
    for name, measure in follow_up.steps(_follow_ups(options), options).items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found += measure()
        lines = follow_up.json_lines(found, [], machine)
        _write(options.json, json_lines(rows, machine), lines)
    goals: Sequence[Goal] = follow_up.goals_of(rows, found, machine, small=options.smoke)
    more = follow_up.json_lines(found, goals, machine)
    _write(options.json, json_lines(rows, machine), more)
    if found or goals:
        print("\n" * bool(rows) + follow_up.text(found, goals, machine))
    return found, goals


def _write(path: Path | None, *texts: str) -> None:
    if path is not None:
        path.write_text("".join(texts), encoding="utf-8")


def _follow_ups(options: argparse.Namespace) -> Sequence[str]:
    names = FOLLOW_UPS[options.suite]
    if options.no_scale:
        return ()
    return [name for name in names if not options.only or name in options.only.split(",")]


def wrong_of(found: Sequence[Any]) -> list[str]:
    """Name the trainers whose losses were wrong."""
    return [
        f"{one.race}: {one.variant.name} is WRONG ({one.agreement.how})"
        for one in found
        if hasattr(one, "agreement") and not one.agreement.equal
    ]


def exit_code(
    rows: Sequence[Row],
    goals: Sequence[Goal] = (),
    wrong: Sequence[str] = (),
    *,
    strict: bool,
) -> int:
    """Return 1 if a result was wrong or, when strict, a goal was missed; name what was wrong."""
    wrong = [
        *wrong,
        *(
            f"{row.goal} {row.workload}: {row.variant} is WRONG ({row.agreement.how})"
            for row in rows
            if not row.agreement.equal
        ),
    ]
    for line in wrong:
        print(line)
    verdicts = [*(row.verdict for row in rows), *(goal.verdict for goal in goals)]
    missed = [verdict for verdict in verdicts if verdict.startswith("MISS")]
    return int(bool(wrong) or (strict and bool(missed)))


def _select(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    goals = {case.goal for case in cases}
    goals |= set(FOLLOW_UPS[options.suite])
    wanted = set(options.only.split(",")) if options.only else goals
    if unknown := sorted(wanted - goals):
        raise SystemExit(
            f"--only: no goal {', '.join(unknown)}; there are {', '.join(sorted(goals))}"
        )
    return [case for case in cases if case.goal in wanted]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--only", metavar="P1,C1", help="goals to measure; all by default")
    parser.add_argument("--rounds", type=int, default=Settings.rounds, help="5 by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line per row")
    parser.add_argument("--smoke", action="store_true", help="small sizes, one round")
    parser.add_argument("--no-scale", action="store_true", help="of data: the cases alone")
    parser.add_argument(
        "--rows", type=_sizes, metavar="10000,...", help="of data: sizes to validate"
    )
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error too")
    return parser


def _sizes(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


if __name__ == "__main__":
    raise SystemExit(main())
