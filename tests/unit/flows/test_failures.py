"""A flow run that fails is told once; one that was stopped, or is part of another, is not."""

import asyncio
import json
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import TerminationSignal
from prefect.states import Crashed, exception_to_crashed_state, exception_to_failed_state

from flows.failures import tell_failure
from flows.retrain import retrain
from ovis_model.errors import StageError
from tasks.artifacts import NOTIFICATIONS


@pytest.fixture(autouse=True)
def _in_a_tree_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_of(**fields):
    return FlowRun(flow_id=uuid4(), name="agile-otter", **fields)


def test_the_retrain_flow_tells_of_failures_and_crashes():
    assert retrain.on_failure_hooks == [tell_failure]
    assert retrain.on_crashed_hooks == [tell_failure]


def test_a_failed_flow_run_says_what_its_step_said():
    error = StageError("`dvc repro train` ended with exit code 255. Its last lines:\nno memory")
    run = run_of()
    tell_failure(retrain, run, asyncio.run(exception_to_failed_state(error)))
    told = json.loads(NOTIFICATIONS.read_text("utf-8"))
    assert (told["kind"], told["title"]) == ("failure", "retrain failed")
    assert "Its last lines:\nno memory" in told["text"]
    assert (told["facts"]["flow_run"], told["facts"]["name"]) == (str(run.id), "agile-otter")


def test_a_killed_flow_run_is_told():
    tell_failure(retrain, run_of(), Crashed(message="Flow run process exited with code -9."))
    told = json.loads(NOTIFICATIONS.read_text("utf-8"))
    assert (told["title"], told["text"]) == (
        "retrain crashed",
        "Flow run process exited with code -9.",
    )


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), TerminationSignal(15)])
def test_a_flow_run_that_was_asked_to_stop_has_not_failed(signal):
    tell_failure(retrain, run_of(), asyncio.run(exception_to_crashed_state(signal)))
    assert not NOTIFICATIONS.exists()


def test_a_part_of_another_flow_run_leaves_it_to_the_whole():
    failed = asyncio.run(exception_to_failed_state(StageError("no")))
    tell_failure(retrain, run_of(parent_task_run_id=uuid4()), failed)
    assert not NOTIFICATIONS.exists()
