"""Step 1 of 5: check every sample of the raw data, and hold some of them out."""

import math
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.config import FrameSampling
from ovis_model.data.report import ValidationReport
from tasks._data_version import unchanged
from tasks._dvc import reproduce
from tasks.artifacts import (
    DATA_CARD,
    DATA_DOCS,
    MEDIA_MEMORY,
    VALIDATE_LEDGER,
    VALIDATE_REPORT,
    VALIDATED,
)
from tasks.params import Params
from tasks.retries import RETRY


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks validate`."""
    # Imported here: Great Expectations takes seconds, which a flow need not wait for.
    from ovis_model.data import validation  # noqa: PLC0415
    from ovis_model.data.checks.lengths import LengthRules  # noqa: PLC0415

    config, train = params.validation, params.train
    sampling = FrameSampling(
        min_frames=params.extract.min_frames, max_frames=params.extract.max_frames
    )
    raw_data = Path(config.raw_data)
    with unchanged(raw_data):
        validation.validate(
            config,
            raw_data=raw_data,
            results=validation.Results(
                output=VALIDATED,
                report=VALIDATE_REPORT,
                ledger=VALIDATE_LEDGER,
                data_docs=DATA_DOCS,
                card=DATA_CARD,
            ),
            context=validation.Context(
                sampling=sampling,
                lengths=LengthRules(
                    base_model=Path(train.ovis_pretrained_path),
                    pixel_limits=train.pixel_limits,
                    frame_sampling=sampling,
                    multimodal_max_length=train.multimodal_max_length,
                    text_max_length=train.text_max_length,
                    thinking_budget=params.evaluate.thinking_budget,
                    policy=config.over_length,
                ),
                exam=Path(params.evaluate.benchmarks),
                memory=MEDIA_MEMORY,
            ),
        )


@task(name="validate", **RETRY)
def validate(*, limit_hours: float = math.inf) -> ValidationReport:
    """Bring DVC stage `validate` up to date and return its report.

    Args:
        limit_hours: After how long it is ended as one that hangs.
    """
    reproduce("validate", get_run_logger(), limit_hours=limit_hours)
    return ValidationReport.read(VALIDATE_REPORT)
