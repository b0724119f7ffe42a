"""Step 5 of 5: a registry version for the model; `champion` moves only if the gate agrees."""

from prefect import task
from prefect.logging import get_run_logger

from ovis_model import registration
from ovis_model.registration import RegisterReport
from tasks._dvc import reproduce
from tasks.artifacts import (
    EVALUATE_REPORT,
    KEPT_MODELS,
    MODEL,
    MODEL_CARD,
    REGISTER_REPORT,
    TRAIN_REPORT,
)
from tasks.params import Params


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks register`."""
    # Imported here: mlflow takes seconds, which the flow that imports this file need not wait.
    from tasks._mlflow import MlflowRegistry  # noqa: PLC0415

    config = params.register_
    report = registration.register(
        config,
        model=MODEL,
        evaluation=EVALUATE_REPORT,
        training=TRAIN_REPORT,
        kept_models=KEPT_MODELS,
        card=MODEL_CARD,
        registry=MlflowRegistry(config.model_name),
    )
    report.write(REGISTER_REPORT)


@task(name="register", retries=1, retry_delay_seconds=10)
def register() -> RegisterReport:
    """Bring DVC stage `register` up to date and return its report."""
    reproduce("register", get_run_logger())
    return RegisterReport.read(REGISTER_REPORT)
