"""`ovis compare`: is one model better than another on the same questions?

ovis compare reports/predictions/tuned reports/predictions/base --target digits_single
ovis compare candidate champion --target mmstar --margin 0.5 --json comparison.json

The exit code is 0 for pass, 3 for fail, 4 for inconclusive.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ovis_model.config import ComparisonRules
from ovis_model.errors import ConfigError, list_examples

if TYPE_CHECKING:
    from ovis_model.evaluation.verdict import BenchmarkComparison, Comparison

#: By outcome.  1 and 2 are the codes of errors.
EXIT_CODES = {"pass": 0, "fail": 3, "inconclusive": 4}


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "whether a candidate beats a champion on stored predictions"
    parser: argparse.ArgumentParser = commands.add_parser("compare", help=text, description=text)
    parser.add_argument("candidate", type=Path, help="folder of a run: run.json and its rows")
    parser.add_argument("champion", type=Path, help="folder of the run to beat")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        dest="targets",
        metavar="BENCHMARK",
        help="must improve; may be given again; every other benchmark is a guard",
    )
    parser.add_argument("--margin", type=float, help="points that a guard may lose")
    parser.add_argument("--gain", type=float, help="smallest gain of a target worth having")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found")


def compare_runs(options: argparse.Namespace) -> int:
    """Compare, tell, and return the exit code.

    Raises:
        ConfigError: If the rules cannot be used.
        DataError: If a folder holds no run.
        GateError: If the two runs cannot be compared.
    """
    # Imported here: scipy takes a second, which `ovis status` need not wait for.
    from ovis_model.evaluation.comparison import compare  # noqa: PLC0415
    from ovis_model.evaluation.predictions import read_run  # noqa: PLC0415

    given = {name: getattr(options, name) for name in ("margin", "gain")}
    values = {name: value for name, value in given.items() if value is not None}
    try:
        rules = ComparisonRules(targets=tuple(options.targets), **values)
    except ValidationError as error:
        found = [f"--{one['loc'][0]}: {one['msg']}" for one in error.errors()]
        raise ConfigError(list_examples(found)) from error
    comparison = compare(read_run(options.candidate), read_run(options.champion), rules)
    if options.json is not None:
        comparison.write(options.json)
    sys.stdout.write("\n".join(_tell(comparison)) + "\n")
    return EXIT_CODES[comparison.outcome]


def _tell(comparison: "Comparison") -> Iterator[str]:
    yield comparison.to_table()
    for name, one in comparison.benchmarks.items():
        yield from _tell_one(name, one)
    if comparison.self_promotion is not None:
        yield (
            f"against itself, on rows that differ as much, a model would have met the targets in "
            f"{comparison.self_promotion:.1f} % of cases"
        )


def _tell_one(name: str, one: "BenchmarkComparison") -> Iterator[str]:
    yield f"{name}: {one.num_gained} newly right, {one.num_lost} newly wrong"
    for part in one.slices:
        if part.regressed:
            yield (
                f"{name}: worse in {part.slice} {part.value}, {part.difference:+.1f} points "
                f"({part.low:+.1f} to {part.high:+.1f})"
            )
