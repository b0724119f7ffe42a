"""The command: `python -m benchmarks SUITE`, one table from one run.

    python -m benchmarks model                       all cases
    python -m benchmarks model --only P1,C1          some goals
    python -m benchmarks model --smoke               small sizes, one round: does it work?

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

import torch

from benchmarks.machine import Machine
from benchmarks.report import json_lines, table
from benchmarks.suite import Case, Row, Settings, run_case

SUITES = ("model",)
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
        if options.json is not None:  # now, lest an interrupted run leave nothing
            options.json.write_text(json_lines(rows, machine), encoding="utf-8")
    print(table(rows))
    return exit_code(rows, strict=options.strict)


def exit_code(rows: Sequence[Row], *, strict: bool) -> int:
    """Return 1 if a result was wrong or, when strict, a target was missed; name what was wrong."""
    wrong = [row for row in rows if not row.agreement.equal]
    for row in wrong:
        print(f"{row.goal} {row.workload}: {row.variant} is WRONG ({row.agreement.how})")
    missed = [row for row in rows if row.verdict.startswith("MISS")]
    return int(bool(wrong) or (strict and bool(missed)))


def _select(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    goals = {case.goal for case in cases}
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
    parser.add_argument("--strict", action="store_true", help="a missed goal is an error too")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
