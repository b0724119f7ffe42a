"""Step 1 of 5: check every sample of the raw data, and hold some of them out."""

from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.data.report import ValidationReport
from tasks._dvc import reproduce
from tasks.artifacts import DATA_DOCS, VALIDATE_REPORT, VALIDATED
from tasks.params import Params


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks validate`."""
    # Imported here: Great Expectations takes seconds, which a flow need not wait for.
    from ovis_model.data import validation  # noqa: PLC0415

    config = params.validation
    validation.validate(
        config,
        raw_data=Path(config.raw_data),
        output=VALIDATED,
        report=VALIDATE_REPORT,
        data_docs=DATA_DOCS,
    )


@task(name="validate")
def validate() -> ValidationReport:
    """Bring DVC stage `validate` up to date and return its report.

    Without retries: bad data does not become better by waiting.
    """
    reproduce("validate", get_run_logger())
    return ValidationReport.read(VALIDATE_REPORT)
