"""What people are told of the registry: verdicts of the gate and moves of the champion."""

from typing import TYPE_CHECKING

from ovis_model.promotion_log import DONE, Entry
from ovis_model.registration import RegisterReport
from ovis_model.registry import CHAMPION, VERDICT_KEY, Registry
from tasks.notifications import notify

if TYPE_CHECKING:
    from tasks.operations import Kind

#: Tag of a version: the verdict that people were told of.  `register` runs every time, and a step
#: that dies before it has told tells when it runs again.
TOLD = "ovis.told"


def announce_verdict(registry: Registry, report: RegisterReport) -> None:
    """Tell what the gate said of a version, unless that was told before."""
    tags = registry.tags_of(report.version)
    verdict = tags[VERDICT_KEY]
    if tags.get(TOLD) == verdict:
        return
    version = f"{report.model_name} version {report.version}"
    facts = {
        "model": report.model_name,
        "version": report.version,
        "champion": report.champion,
        "verdict": verdict[:12],
    }
    if report.objections:
        notify("gate_refused", f"the gate refused {version}", "\n".join(report.objections), facts)
    elif report.waits_for_approval:
        how = f"`ovis approve {report.version} --reason TEXT`, or `ovis reject` likewise"
        notify("approval", f"{version} passed the gate and waits for approval", how, facts)
    elif report.promoted:
        notify("promoted", f"{version} is the {CHAMPION}", "the gate let it pass", facts)
    registry.set_tags(report.version, {TOLD: verdict})


def announce_move(model_name: str, done: Entry | None) -> None:
    """Tell what a person did to the champion.

    Args:
        model_name: Of whose versions.
        done: The line of the log that says how it ended; None if nothing was to do.
    """
    if done is None or done.event != DONE:
        return
    version = next((move.after for move in done.moves if move.alias == CHAMPION), None)
    news: tuple[Kind, str] = ("promoted", f"{model_name} version {version} is the {CHAMPION}")
    if done.action == "rollback":
        news = ("rolled_back", f"{model_name} version {version} is the {CHAMPION} again")
    elif done.action == "reject":
        news = ("approval", f"a version of {model_name} was rejected")
    facts = {"model": model_name, "version": version, "who": done.who, "forced": done.forced}
    moves = ", ".join(map(str, done.moves))
    notify(*news, text=done.reason, facts={**facts, "moves": moves or None})
