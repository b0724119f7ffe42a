"""Asks a person whether a version that passed the gate may become champion.

The flow pauses, and Prefect's page of the run shows a form.  Whoever types `ovis approve` or
`ovis reject` meanwhile has decided as well: what waits is the version, not the flow.
"""

from prefect import get_client, get_run_logger, pause_flow_run, runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.states import Running
from pydantic import Field

from ovis_model import promotion
from ovis_model.errors import ConfigError
from ovis_model.registry import APPROVAL, WAITING
from tasks._announcements import announce_move
from tasks.commands import promotions
from tasks.operations import Operations

#: Between looks at whether somebody has answered.
POLL_SECONDS = 5


class Answer(RunInput):
    """What the form asks for."""

    approve: bool = Field(description="make it the champion?")
    name: str = Field(min_length=1, description="who decides; goes into the log of promotions")
    reason: str = Field(min_length=1, description="why; goes into the log of promotions")


def ask(version: int, summary: str) -> str:
    """Pause the flow until somebody has decided, and do as they say; silence is no.

    Args:
        version: Waits for approval.
        summary: What people read above the form, in Markdown.

    Returns:
        What was decided, by whom.

    Raises:
        PromotionError: If the version may not become champion any more.
    """
    hours = Operations.read().approval.timeout_hours
    form = Answer.with_initial_data(
        description=f"{summary}\nMay version {version} become champion? Without an answer within "
        f"{hours:g} hours it may not. `ovis approve {version}` answers, too."
    )
    try:
        answer: Answer = pause_flow_run(
            wait_for_input=form, timeout=round(hours * 3600), poll_interval=POLL_SECONDS
        )
    except FlowPauseTimeout:
        answer = Answer(approve=False, name="nobody", reason=f"no answer within {hours:g} hours")
        # A flow that is paused cannot end well, and one whose time is up cannot be resumed.
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runtime.flow_run.id, Running(), force=True)
    said = decide(version, answer)
    get_run_logger().info(said)
    return said


def decide(version: int, answer: Answer) -> str:
    """Do what was answered, unless somebody has decided already.

    Raises:
        ConfigError: If the answer has no reason.
        PromotionError: If the version may not become champion any more.
    """
    registry, files = promotions.open_registry()
    state = registry.tags_of(version).get(APPROVAL)
    if state != WAITING:
        return f"version {version} is {state} already; `ovis promotions` says by whom"
    if not answer.reason.strip():
        raise ConfigError("the answer has no reason, which the log of promotions keeps")
    reason = f"{answer.name} in Prefect's form: {answer.reason}"
    if answer.approve:
        announce_move(files.name, promotion.approve(registry, version, files=files, reason=reason))
        return f"version {version} was approved by {answer.name}: {answer.reason}"
    announce_move(files.name, promotion.reject(registry, version, reason=reason))
    return f"version {version} was rejected by {answer.name}: {answer.reason}"
