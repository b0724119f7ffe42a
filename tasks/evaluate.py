"""Step 4 of 5: score base and tuned model on the benchmarks, thinking enabled."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.model_folder import read_inputs_digest
from ovis_model.registry import CHAMPION
from ovis_model.reports import write_text
from tasks._dvc import reproduce
from tasks.artifacts import (
    EVALUATE_HTML,
    EVALUATE_REPORT,
    EVALUATE_RESUME,
    EVALUATE_SCORES,
    EXTRACTED,
    MODEL,
    PREDICTIONS,
)
from tasks.params import Params
from tasks.retries import RETRY

if TYPE_CHECKING:
    from ovis_model.evaluation.evaluation import Models

log = logging.getLogger(__name__)


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks evaluate`."""
    # Imported here: torch and mlflow take seconds, which a flow need not wait for.
    from ovis_model.evaluation import evaluation  # noqa: PLC0415
    from ovis_model.evaluation.predictions import BASE, TUNED, read_run  # noqa: PLC0415
    from ovis_model.evaluation.timing import timing_metrics  # noqa: PLC0415
    from tasks.tracking.runs import log_results  # noqa: PLC0415

    config = params.evaluate
    digest = read_inputs_digest(MODEL)
    report = evaluation.evaluate(
        config,
        models=find_models(params),
        benchmarks=Path(config.benchmarks),
        training=EXTRACTED if config.contamination else None,
        outputs=evaluation.Outputs(
            predictions=PREDICTIONS,
            html=EVALUATE_HTML,
            working=EVALUATE_RESUME,
        ),
    )
    report.write(EVALUATE_REPORT)
    write_text(EVALUATE_SCORES, scores_csv(report))
    log.info("%s", report.to_table())
    # Clock readings are for the tracker: another step reads the report.
    runs = {role: read_run(PREDICTIONS / role) for role in (BASE, TUNED)}
    metrics = {**report.metrics, **timing_metrics(runs)}
    artifacts = (EVALUATE_REPORT, EVALUATE_HTML, PREDICTIONS)
    log_results(digest, metrics, artifacts)


def scores_csv(report: EvaluationReport) -> str:
    """Write the scores as `dvc plots` draws them: one bar per benchmark and model."""
    lines = ["name,score,interval_low,interval_high\n"]
    for name, one in report.benchmarks.items():
        lines += [
            f"{name} {role},{score.score},{score.interval_low},{score.interval_high}\n"
            for role, score in (("base", one.base), ("tuned", one.tuned))
        ]
    return "".join(lines)


def find_models(params: Params) -> "Models":
    """Say who is asked; only here the registry is asked who the champion is."""
    from ovis_model.evaluation.evaluation import Models  # noqa: PLC0415
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    base = Path(params.train.ovis_pretrained_path)
    registry = MlflowRegistry(params.register_.model_name)
    version = registry.version_at(CHAMPION)
    if version is None:
        return Models(MODEL, base)
    kept = registry.files_of(version)
    if not kept.is_dir():
        return Models(
            MODEL,
            base,
            champion_note=f"the files of version {version} are not in {kept}",
        )
    return Models(MODEL, base, kept)


@task(name="evaluate", **RETRY)
def evaluate(*, limit_hours: float = math.inf) -> EvaluationReport:
    """Bring DVC stage `evaluate` up to date and return its report.

    Args:
        limit_hours: After how long it is ended as one that hangs.
    """
    reproduce("evaluate", get_run_logger(), limit_hours=limit_hours)
    return EvaluationReport.read(EVALUATE_REPORT)
