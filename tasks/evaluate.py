"""Step 4 of 5: score base and tuned model on the benchmarks, thinking enabled."""

import logging
from pathlib import Path

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.model_folder import read_inputs_digest
from tasks._dvc import reproduce
from tasks.artifacts import EVALUATE_HTML, EVALUATE_REPORT, EXTRACTED, MODEL, PREDICTIONS
from tasks.params import Params

log = logging.getLogger(__name__)


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks evaluate`."""
    # Imported here: torch and mlflow take seconds, which a flow need not wait for.
    from ovis_model.evaluation import evaluation  # noqa: PLC0415
    from ovis_model.evaluation.predictions import read_run  # noqa: PLC0415
    from ovis_model.evaluation.timing import timing_metrics  # noqa: PLC0415
    from tasks import _mlflow  # noqa: PLC0415

    config = params.evaluate
    digest = read_inputs_digest(MODEL)
    report = evaluation.evaluate(
        config,
        model=MODEL,
        base_model=Path(params.train.ovis_pretrained_path),
        benchmarks=Path(config.benchmarks),
        training=EXTRACTED if config.contamination else None,
        predictions=PREDICTIONS,
        html=EVALUATE_HTML,
    )
    report.write(EVALUATE_REPORT)
    log.info("%s", report.to_table())
    # Clock readings are for the tracker: another step reads the report.
    runs = {role: read_run(PREDICTIONS / role) for role in (evaluation.BASE, evaluation.TUNED)}
    metrics = {**report.metrics, **timing_metrics(runs)}
    _mlflow.log_results(digest, metrics, (EVALUATE_REPORT, EVALUATE_HTML, PREDICTIONS))


@task(name="evaluate", retries=1, retry_delay_seconds=60)
def evaluate() -> EvaluationReport:
    """Bring DVC stage `evaluate` up to date and return its report."""
    reproduce("evaluate", get_run_logger())
    return EvaluationReport.read(EVALUATE_REPORT)
