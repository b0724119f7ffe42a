"""The pipeline as a Prefect flow: the same five DVC stages, with a record for each attempt."""

import argparse
import os
import sys
from datetime import UTC, datetime

from prefect import flow, get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed

from flows.admission import Window, turn, waits, why_missed
from flows.approval import ask
from flows.failures import tell_failure
from ovis_model.errors import OvisError, StageBusyError
from ovis_model.registration import RegisterReport
from tasks import environment
from tasks.artifacts import TRIGGER_VARIABLE
from tasks.evaluate import evaluate
from tasks.extract import extract
from tasks.masking import masked
from tasks.operations import Operations
from tasks.register import register
from tasks.summary import as_markdown, read_summary
from tasks.train import train
from tasks.validate import validate


@flow(name="retrain", on_failure=[tell_failure], on_crashed=[tell_failure])
def retrain(reason: str = "by hand", *, force: bool = False) -> str | State[str]:
    """Run the five steps and return the summary, which becomes an artifact of the run.

    Order only; whether a step has work to do is DVC's to decide.

    Args:
        reason: Why it runs: what a trigger found, or what a person says.
        force: Whether to train even if nothing changed.
    """
    environment.apply()
    config = Operations.read().schedule
    os.environ[TRIGGER_VARIABLE] = reason
    window = _window()
    missed = why_missed(window, config, datetime.now(UTC)) if window else None
    if missed:
        return _left_out(missed)
    try:
        with turn(_name(), get_run_logger(), wait=waits(window, config)):
            registration = run_steps(force=force)
            summary = f"Started because of: {reason}\n\n{as_markdown(read_summary())}"
    except StageBusyError as error:
        if waits(window, config):  # a `dvc repro` that somebody typed took too long
            raise
        return _left_out(str(error))
    create_markdown_artifact(summary, key="retrain-summary", description="The pipeline's result")
    if registration.waits_for_approval:
        # Outside the turn: people may take days, and the next run need not wait for them.
        summary += f"* **approval**: {ask(registration.version, summary)}\n"
    return summary


def run_steps(*, force: bool) -> RegisterReport:
    """Run the five steps.

    Raw data that change meanwhile do no harm: `validate` refuses what was written to while it
    read, `extract` any file that is not the one that was validated, and the steps after them
    read a copy.
    """
    hours = Operations.read().timeouts
    validate(limit_hours=hours.validate_)
    extract(limit_hours=hours.extract)
    train(force=force, limit_hours=hours.train)
    evaluate(limit_hours=hours.evaluate)
    return register(limit_hours=hours.register_)


def _window() -> Window | None:
    """Return the time this run was due and those of the schedule's later runs, if it has one."""
    run = FlowRunContext.get()
    if run is None or run.flow_run is None or not run.flow_run.auto_scheduled:
        return None
    expected = run.flow_run.expected_start_time
    if expected is None or run.flow_run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        others = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                expected_start_time=FlowRunFilterExpectedStartTime(after_=expected)
            ),
            deployment_filter=DeploymentFilter(
                id=DeploymentFilterId(any_=[run.flow_run.deployment_id])
            ),
        )
    later = [
        one.expected_start_time
        for one in others
        if one.auto_scheduled and one.expected_start_time and not _was_cancelled(one.state)
    ]
    return Window(expected, later)


def _was_cancelled(state: State | None) -> bool:
    return state is not None and state.is_cancelled()


def _name() -> str:
    run = FlowRunContext.get()
    return f"retrain {run.flow_run.name}" if run and run.flow_run else "retrain"


def _left_out(why: str) -> State[str]:
    get_run_logger().info("left out: %s", why)
    return Completed(name="Skipped", message=why)


def main(arguments: list[str]) -> int:
    """Run the flow once and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows retrain")
    parser.add_argument("--reason", default="by hand", help="kept in the record of the run")
    parser.add_argument("--force", action="store_true", help="train even if nothing changed")
    options = parser.parse_args(arguments)
    try:
        found = retrain(reason=options.reason, force=options.force)  # never left out
    except OvisError as error:
        sys.stderr.write(masked(f"retrain failed: {error}\n"))
        return 1
    sys.stdout.write(f"\n{found}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
