"""Step 5 of 5: a registry version for the model; `champion` moves only if the gate agrees."""

import math

from prefect import task
from prefect.logging import get_run_logger

from ovis_model import registration
from ovis_model.data.report import ValidationReport
from ovis_model.model_folder import read_inputs_digest
from ovis_model.registration import RegisterReport
from ovis_model.registry import EVIDENCE
from ovis_model.reports import sha256_of_file
from tasks._dvc import reproduce
from tasks.artifacts import (
    DATA_CARD,
    EVALUATE_REPORT,
    EXTRACTED,
    GATE_REPORT,
    KEPT_MODELS,
    MODEL,
    MODEL_CARD,
    PREDICTIONS,
    REGISTER_REPORT,
    TRAIN_REPORT,
    VALIDATE_REPORT,
)
from tasks.params import Params
from tasks.retries import RETRY


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks register`."""
    # Imported here: mlflow takes seconds, which the flow that imports this file need not wait.
    from tasks import _announcements, _registry  # noqa: PLC0415
    from tasks.commands import drift, lineage  # noqa: PLC0415
    from tasks.tracking.runs import log_results  # noqa: PLC0415

    config = params.register_
    data = ValidationReport.read(VALIDATE_REPORT)
    log_results(read_inputs_digest(MODEL), data_metrics(data), (VALIDATE_REPORT, DATA_CARD))
    registry = _registry.MlflowRegistry(config.model_name)
    report = registration.register(
        config,
        model=MODEL,
        evaluation=EVALUATE_REPORT,
        predictions=PREDICTIONS,
        training=TRAIN_REPORT,
        kept_models=KEPT_MODELS,
        card=MODEL_CARD,
        judgement=GATE_REPORT,
        registry=registry,
        validation=VALIDATE_REPORT,
    )
    if registry.tags_of(report.version)[EVIDENCE] == sha256_of_file(GATE_REPORT):
        registry.keep_file(report.version, GATE_REPORT)
    lineage.keep_sample_list(registry, report.version, EXTRACTED)
    drift.keep_profile(registry, report.version, EXTRACTED)
    report.write(REGISTER_REPORT)
    _announcements.announce_verdict(registry, report)


def data_metrics(report: ValidationReport) -> dict[str, float]:
    """Pick what a reader of the run wants to know of the data it learned from."""
    numbers = {
        "data.samples": report.num_samples,
        "data.quarantined": report.num_quarantined,
        "data.dropped": sum(report.num_dropped.values()),
        "data.train_lines": report.num_train_lines,
        "data.holdout": report.num_holdout,
    }
    shares = {f"data.share.{name or 'none'}": s.share for name, s in report.sources.items()}
    return {name: float(value) for name, value in (numbers | shares).items()}


@task(name="register", **RETRY)
def register(*, limit_hours: float = math.inf) -> RegisterReport:
    """Bring DVC stage `register` up to date and return its report.

    Args:
        limit_hours: After how long it is ended as one that hangs.
    """
    reproduce("register", get_run_logger(), limit_hours=limit_hours)
    return RegisterReport.read(REGISTER_REPORT)
