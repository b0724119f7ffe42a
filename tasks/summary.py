"""What a run achieved, in one table: for the terminal, and as Markdown for Prefect."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from ovis_model.errors import DataError
from ovis_model.evaluation.scores import BenchmarkReport, EvaluationReport, ModelScore
from ovis_model.registration import RegisterReport
from ovis_model.reports import Report
from ovis_model.training.report import TrainReport
from tasks.artifacts import EVALUATE_REPORT, REGISTER_REPORT, TRAIN_REPORT

R = TypeVar("R", bound=Report)

HEADER = ("benchmark", "metric", "items", "base", "tuned", "95 % interval", "thinking closed")


@dataclass(frozen=True)
class Summary:
    """The three reports a person asks for first."""

    training: TrainReport
    evaluation: EvaluationReport
    registration: RegisterReport


def read_summary() -> Summary:
    """Read the reports of the last run.

    Raises:
        DataError: If one is missing or is not one of ours.
    """
    return Summary(
        _read(TrainReport, TRAIN_REPORT),
        _read(EvaluationReport, EVALUATE_REPORT),
        _read(RegisterReport, REGISTER_REPORT),
    )


def _read(kind: type[R], path: Path) -> R:
    try:
        return kind.read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the pipeline has not run yet; `make run`") from error
    except ValidationError as error:
        raise DataError(
            f"{path} is not a report of this version of the project; `make run` writes it anew"
        ) from error


def as_text(summary: Summary, *, seconds: int | None = None) -> str:
    """Lay the summary out for a terminal.

    Args:
        summary: The reports.
        seconds: Wall time of the run, if it was measured.
    """
    rows = [HEADER, *_rows(summary.evaluation)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    facts = _facts(summary, seconds)
    name_width = max(map(len, facts))
    lines += ["", *(f"{name.ljust(name_width)}  {value}" for name, value in facts.items())]
    return "\n".join(lines)


def as_markdown(summary: Summary) -> str:
    """Lay the summary out as Markdown."""
    rows = [HEADER, ("---",) * len(HEADER), *_rows(summary.evaluation)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"* **{name}**: {value}" for name, value in _facts(summary, None).items())]
    return "\n".join(lines) + "\n"


def _rows(evaluation: EvaluationReport) -> list[tuple[str, ...]]:
    return [_row(name, result) for name, result in evaluation.benchmarks.items()]


def _row(name: str, result: BenchmarkReport) -> tuple[str, ...]:
    return (
        name,
        result.metric,
        str(result.num_items),
        f"{result.base.score:.1f} %",
        f"{result.tuned.score:.1f} %",
        _interval(result.tuned),
        f"{result.tuned.thinking_closed} of {result.num_items}",
    )


def _interval(score: ModelScore) -> str:
    return f"{score.interval_low:.1f} to {score.interval_high:.1f} %"


def _facts(summary: Summary, seconds: int | None) -> dict[str, str]:
    train, register = summary.training, summary.registration
    aliases = ", ".join(register.aliases) or "none"
    facts = {
        "training": f"{train.steps} steps, loss {train.first_loss:.3f} -> {train.final_loss:.3f}",
        "gate": "refused: " + "; ".join(register.objections) if register.objections else "passed",
        "model": f"{register.model_name} version {register.version}, aliases: {aliases}",
    }
    if seconds is not None:
        facts["wall time"] = f"{seconds // 60} min {seconds % 60} s"
    return facts
