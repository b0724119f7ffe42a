"""Asks a person whether a version that passed the gate may become champion.

The flow pauses, and Prefect's page of the run shows a form.  Whoever types `ovis approve` or
`ovis reject` meanwhile has decided as well: what waits is the version, not the flow.  One run asks
for one verdict; a later run that finds the same version waiting does not ask again.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import get_client, get_run_logger, pause_flow_run, runtime
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from prefect.states import Running
from pydantic import Field

from ovis_model import promotion
from ovis_model.registry import APPROVAL, VERDICT_KEY, WAITING
from tasks._announcements import announce_move
from tasks.artifacts import APPROVALS
from tasks.commands import promotions
from tasks.operations import Operations

#: Between looks at whether somebody has answered.
POLL_SECONDS = 5
#: More than spaces; in the form's schema, too, so that the server refuses it and asks on.
TEXT = r"\S"


class Answer(RunInput):
    """What the form asks for."""

    approve: bool = Field(description="make it the champion?")
    name: str = Field(pattern=TEXT, description="who decides; goes into the log of promotions")
    reason: str = Field(pattern=TEXT, description="why; goes into the log of promotions")


def ask(version: int, summary: str) -> str:
    """Pause the flow until somebody has decided, and do as they say; silence is no.

    Args:
        version: Waits for approval.
        summary: What people read above the form, in Markdown.

    Returns:
        What was decided, by whom; or that another run asks already.

    Raises:
        PromotionError: If the version may not become champion any more.
    """
    registry, files = promotions.open_registry()
    verdict = registry.tags_of(version).get(VERDICT_KEY, "")
    with _asking(APPROVALS / f"{files.name}-{version}-{verdict[:12]}.lock") as alone:
        if alone:
            said = decide(version, _pause(version, summary), verdict=verdict)
        else:
            said = f"version {version} waits still; an earlier run asks for it"
    get_run_logger().info(said)
    return said


@contextmanager
def _asking(path: Path) -> Iterator[bool]:
    """Say whether nobody else asks; a process that is gone asks no more, however it ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _pause(version: int, summary: str) -> Answer:
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
    return answer


def decide(version: int, answer: Answer, *, verdict: str) -> str:
    """Do what was answered, unless somebody has decided already.

    Args:
        version: What was asked for.
        answer: What was said.
        verdict: Key of the verdict that people were shown; another one is another question.

    Raises:
        PromotionError: If the version may not become champion any more.
    """
    registry, files = promotions.open_registry()
    tags = registry.tags_of(version)
    state = tags.get(APPROVAL)
    if state != WAITING:
        return f"version {version} is {state} already; `ovis promotions` says by whom"
    if tags.get(VERDICT_KEY, "") != verdict:
        return (
            f"version {version} was judged anew since it was asked for, and waits still; "
            f"`ovis approve {version}` or `ovis reject {version}` decides"
        )
    reason = f"{answer.name} in Prefect's form: {answer.reason}"
    if answer.approve:
        announce_move(files.name, promotion.approve(registry, version, files=files, reason=reason))
        return f"version {version} was approved by {answer.name}: {answer.reason}"
    announce_move(files.name, promotion.reject(registry, version, reason=reason))
    return f"version {version} was rejected by {answer.name}: {answer.reason}"
