"""The pipeline as a Prefect flow: the same five DVC stages, with a record for each attempt."""

import sys

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.failures import tell_failure
from ovis_model.errors import OvisError
from tasks.evaluate import evaluate
from tasks.extract import extract
from tasks.masking import masked
from tasks.register import register
from tasks.summary import as_markdown, read_summary
from tasks.train import train
from tasks.validate import validate


@flow(name="retrain", on_failure=[tell_failure], on_crashed=[tell_failure])
def retrain() -> str:
    """Run the five steps and return the summary, which becomes an artifact of the run.

    Order only; whether a step has work to do is DVC's to decide.
    """
    validate()
    extract()
    train()
    evaluate()
    register()
    summary = as_markdown(read_summary())
    create_markdown_artifact(summary, key="retrain-summary", description="The pipeline's result")
    return summary


if __name__ == "__main__":
    try:
        sys.stdout.write(f"\n{retrain()}")
    except OvisError as error:
        sys.exit(masked(f"retrain failed: {error}"))
