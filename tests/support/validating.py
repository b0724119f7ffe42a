"""Running the validate step on a folder: root/raw in, root/validated and root/reports out."""

from pathlib import Path
from typing import Any

from ovis_model.config import ValidateConfig
from ovis_model.data.report import ValidationReport
from ovis_model.data.validation import Context, Results, validate


def results_below(root: Path) -> Results:
    """Return where validation writes below a folder."""
    return Results(
        output=root / "validated",
        report=root / "reports/validate.json",
        ledger=root / "reports/validate_ledger.jsonl",
        data_docs=root / "reports/data_docs",
    )


def run_validation(
    root: Path, *, context: Context | None = None, **settings: Any
) -> ValidationReport:
    """Validate root/raw; settings are those of `ValidateConfig`."""
    settings = {"workers": 1, "holdout_fraction": 0.0, **settings}
    return validate(
        ValidateConfig(raw_data=str(root / "raw"), **settings),
        raw_data=root / "raw",
        results=results_below(root),
        context=context,
    )
