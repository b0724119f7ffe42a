"""A flow run that fails tells people, once: of a step that failed in it, too."""

from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal

from tasks.notifications import notify


def tell_failure(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell of a flow run that failed or crashed; for `on_failure` and `on_crashed` of a flow.

    Prefect calls it when retries are used up; after `kill -9` the worker that started the run
    does.  A part of another flow run leaves it to the whole, and a run that was asked to stop
    has not failed.
    """
    if flow_run.parent_task_run_id is not None or _was_asked_to_stop(state):
        return
    facts = {"flow_run": str(flow_run.id), "name": flow_run.name}
    notify(
        "failure",
        f"{flow.name} {(state.name or state.type.value).lower()}",
        state.message or "",
        facts,
    )


def _was_asked_to_stop(state: State[Any]) -> bool:
    cause = getattr(state.data, "result", state.data)
    return isinstance(cause, KeyboardInterrupt | TerminationSignal)
