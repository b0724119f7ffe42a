"""One run in MLflow per run of the pipeline, and below it one for each step that did work.

    pipeline-1f0c9a52           settings, data, code, the headline numbers of every step
        validate                its report, what it cost, how busy the machine was
        extract
        train-83c1d2e0          the learning curve; a training may belong to several pipeline runs
        evaluate
        register

All are found by the digest of what they are computed from: an interrupted one is continued, and
a step that DVC skips leaves no trace but what it left when it ran.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tasks._mlflow import MlflowException, explain, store_uri
from tasks._nodes import this_node
from tasks.artifacts import (
    DATA_CARD,
    EVALUATE_HTML,
    EVALUATE_REPORT,
    EXTRACT_REPORT,
    MODEL_CARD,
    REGISTER_REPORT,
    TRAIN_REPORT,
    VALIDATE_REPORT,
)
from tasks.params import Params
from tasks.tracking.inputs import pipeline_inputs
from tasks.tracking.meter import metered
from tasks.tracking.runs import log_git_difference
from tasks.tracking.session import RunLogger, Session, closing, session

#: The steps that ask the registry: without it they cannot do their work.
NEED_THE_STORE = ("evaluate", "register")
WAIT_SECONDS = 60.0
#: A step's report, whose numbers go onto the pipeline run, and what else a person opens.
REPORTS = {
    "validate": (VALIDATE_REPORT, DATA_CARD),
    "extract": (EXTRACT_REPORT,),
    "train": (TRAIN_REPORT,),
    "evaluate": (EVALUATE_REPORT, EVALUATE_HTML),
    "register": (REGISTER_REPORT, MODEL_CARD),
}
#: What a run is: of the pipeline, of a step.  A training has neither tag.
KIND = "ovis.kind"
#: On a pipeline run: its newest step.
LAST_STEP = "ovis.last_step"


@contextmanager
def track(step: str, params: Params) -> Iterator[None]:
    """Track a step of the pipeline; on the second and further machines of a training, nothing.

    Raises:
        ConfigError: If the store cannot be used.  While it only does not answer, work goes on
            and its record waits; but evaluate and register need the registry that is in it.
    """
    if step == "train" and this_node(params.train).number:
        yield
        return
    with session(step) as now, ExitStack() as stack:
        pipeline = _open_pipeline(now, params)
        pipeline.set_tags({LAST_STEP: step})
        now.parent = pipeline
        own = None
        if step != "train":  # a training is found by the digest of its own inputs
            digest = hashlib.sha256(f"{pipeline.digest} {step}".encode()).hexdigest()
            own = now.open(digest, name=step, how="same", parent=pipeline, tags={KIND: step})
        now.start(wait_seconds=WAIT_SECONDS if step in NEED_THE_STORE else 0.0)
        for run in (pipeline, own):
            if run:
                stack.enter_context(closing(run))
        stack.callback(_log_reports, step, pipeline, own, before=_times(step))
        if own:
            stack.enter_context(metered(own))
        try:
            yield
        except MlflowException as error:  # of the registry, while the step asked it
            raise explain(error, store_uri()) from None  # it may show who logs in


def _open_pipeline(now: Session, params: Params) -> RunLogger:
    digest, datasets = pipeline_inputs(params)
    name = f"pipeline-{digest[:8]}"
    pipeline = now.open(digest, name=name, how="same", tags={KIND: "pipeline"})
    pipeline.log_params(params.model_dump(mode="json", by_alias=True))
    for what, (place, of_it) in datasets.items():
        pipeline.log_dataset_digest(what, of_it, source=place)
    log_git_difference(pipeline)
    return pipeline


def _times(step: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in REPORTS[step] if path.exists()}


def _log_reports(
    step: str, pipeline: RunLogger, own: RunLogger | None, *, before: Mapping[Path, int]
) -> None:
    """Log the reports that the step wrote just now, also one that says why it failed."""
    now = _times(step)
    for path in now:
        if now[path] != before.get(path) and own:
            own.log_artifact(path)
    report = REPORTS[step][0]
    if report in now and now[report] != before.get(report):
        values = json.loads(report.read_text(encoding="utf-8"))
        pipeline.log_metrics(_numbers(step, values), once=False)


def _numbers(step: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers at the top of a report.

    Example:
        >>> _numbers("validate", {"num_samples": 3, "ok": True, "name": "a", "sources": {}})
        {'validate.num_samples': 3.0}
    """
    return {
        f"{step}.{key}": float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
