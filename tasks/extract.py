"""Step 2 of 5: frames out of videos, and every picture as a file named by its content."""

import math
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.data.report import ExtractionReport
from tasks._dvc import reproduce
from tasks.artifacts import (
    EXTRACT_LEDGER,
    EXTRACT_REPORT,
    EXTRACTED,
    PICTURE_STORE,
    VALIDATED,
)
from tasks.params import Params
from tasks.retries import RETRY


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks extract`."""
    # Imported here: moviepy is not needed to bring a stage up to date.
    from ovis_model.data import extraction  # noqa: PLC0415

    report = extraction.extract(
        params.extract,
        validated=VALIDATED,
        raw_data=Path(params.validation.raw_data),
        output=EXTRACTED,
        store=PICTURE_STORE,
        ledger=EXTRACT_LEDGER,
    )
    report.write(EXTRACT_REPORT)


@task(name="extract", **RETRY)
def extract(*, limit_hours: float = math.inf) -> ExtractionReport:
    """Bring DVC stage `extract` up to date and return its report.

    Args:
        limit_hours: After how long it is ended as one that hangs.
    """
    reproduce("extract", get_run_logger(), limit_hours=limit_hours)
    return ExtractionReport.read(EXTRACT_REPORT)
