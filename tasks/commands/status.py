"""`ovis status`: what runs here, what ended without saying so, and the table of the last run.

ovis status            # once
ovis status --watch    # again and again
ovis status --json     # for programs
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from ovis_model.errors import DataError, OvisError
from tasks.heartbeats import Heartbeat, now, read_heartbeats, settle
from tasks.summary import Summary, as_text, read_summary

#: Between two looks of `--watch`.
WATCH_SECONDS = 2.0
CLEAR = "\x1b[2J\x1b[H"
#: Of the metrics of a step, those that a line has room for.
MAX_METRICS = 4


@dataclasses.dataclass(frozen=True)
class Situation:
    """What there is to tell.

    Attributes:
        running: Processes that are alive, the oldest first.
        ended: Those that failed, were stopped or crashed, and were not followed by a whole run.
        summary: The last run; None if there was none.
        no_summary: Why there is none.
        open_runs: Why runs of the tracker could not be closed; "" if all were.
    """

    running: Sequence[Heartbeat]
    ended: Sequence[Heartbeat]
    summary: Summary | None
    no_summary: str = ""
    open_runs: str = ""


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "what runs here, what crashed, and the table of the last run"
    parser: argparse.ArgumentParser = commands.add_parser("status", help=text, description=text)
    parser.add_argument("--seconds", type=int, help="wall time of the run, to be shown with it")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--watch", action="store_true", help="again and again, until Ctrl+C")


def status(options: argparse.Namespace) -> None:
    """Show it."""
    if options.json:
        sys.stdout.write(as_json(look()) + "\n")
    elif options.watch:
        _watch()
    else:
        sys.stdout.write(as_screen(look(), seconds=options.seconds) + "\n")


def _watch() -> None:
    try:
        while True:
            sys.stdout.write(CLEAR + as_screen(look()) + "\n")
            sys.stdout.flush()
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return


def look() -> Situation:
    """Find out; what crashed is closed on the way."""
    found, open_runs = close_crashed(read_heartbeats())
    summary, no_summary = None, ""
    try:
        summary = read_summary()
    except DataError as error:
        no_summary = str(error)
    running = [one for one in found if one.state == "running"]
    whole = [one.started_at for one in found if (one.step, one.state) == ("register", "done")]
    ended = [
        one
        for one in found
        if one.state not in ("running", "done")
        and (one.runs_are_open or not any(one.beat_at < later for later in whole))
    ]
    return Situation(running, ended, summary, no_summary, open_runs)


def close_crashed(found: Sequence[Heartbeat]) -> tuple[list[Heartbeat], str]:
    """Close the heartbeats of processes that are gone, and the runs they left open.

    Returns:
        The heartbeats as they are now, and why runs could not be closed, if they could not.
    """
    gone = [
        one for one in found if (one.state == "running" or one.runs_are_open) and not one.is_alive
    ]
    problem = _close_runs() if any(one.runs_are_open for one in gone) else ""
    closed = {
        one.path: settle(one, runs_are_open=one.runs_are_open and bool(problem)) for one in gone
    }
    return [closed.get(one.path, one) for one in found], problem


def _close_runs() -> str:
    """Have the tracker close runs of processes that are gone; return why it could not."""
    # Imported here: mlflow takes seconds, which only a crash is worth.
    from tasks.tracking.replay import sync_store  # noqa: PLC0415

    try:
        sync_store()
    except (OvisError, OSError) as error:
        return str(error)
    return ""


def as_json(situation: Situation) -> str:
    """Lay it out for programs."""
    summary = situation.summary
    reports = {} if summary is None else dataclasses.asdict(summary)
    answer = {
        "running": [
            {**one.model_dump(mode="json"), "hung": one.is_hung} for one in situation.running
        ],
        "ended": [one.model_dump(mode="json") for one in situation.ended],
        "open_runs": situation.open_runs,
        "last_run": {name: report.model_dump(mode="json") for name, report in reports.items()}
        or None,
    }
    return json.dumps(answer, indent=2)


def as_screen(situation: Situation, *, seconds: int | None = None) -> str:
    """Lay it out for a terminal.

    Args:
        situation: What there is to tell.
        seconds: Wall time of the last run, if it was measured.
    """
    lines = [line for one in situation.running for line in _running(one)]
    lines = lines or ["nothing is running"]
    lines += [line for one in situation.ended for line in _ended(one)]
    if situation.open_runs:
        lines.append(f"  its MLflow run could not be closed: {situation.open_runs}")
    lines.append("")
    if situation.summary is None:
        lines.append(f"no last run: {situation.no_summary}")
    else:
        lines.append(as_text(situation.summary, seconds=seconds))
    return "\n".join(lines)


def _running(one: Heartbeat) -> Iterator[str]:
    where = f"process {one.pid} on {one.host}, in {one.folder}"
    yield f"{one.step} runs: {one.progress or 'begun'}, since {_ago(now() - one.started_at)}"
    if one.metrics:
        shown = list(one.metrics.items())[:MAX_METRICS]
        yield "  " + ", ".join(f"{name} {value:.4g}" for name, value in shown)
    yield f"  {where}" + (f", writes {one.output}" if one.output else "")
    last = f"  last sign of life {_ago(now() - one.beat_at)} ago"
    if one.progress_at:
        last += f", last progress {_ago(now() - one.progress_at)} ago"
    yield last
    if one.is_hung:
        yield (
            f"  it is there, but hangs or was paused: look at it, or end it (kill {one.pid}); the "
            "next run goes on from its last checkpoint"
        )


def _ended(one: Heartbeat) -> Iterator[str]:
    at = f" at {one.progress}" if one.progress else ""
    how = "was stopped" if one.state == "stopped" else one.state
    when = _ago(now() - one.beat_at)
    yield f"{one.step} {how}{at}, {when} ago (process {one.pid} on {one.host}); run it again"


def _ago(duration: timedelta) -> str:
    """Write a duration in the one unit that matters.

    Example:
        >>> _ago(timedelta(seconds=75)), _ago(timedelta(hours=30))
        ('75 s', '30 h')
    """
    seconds = max(0, round(duration.total_seconds()))
    for unit, size in (("days", 86400 * 2), ("h", 3600 * 2), ("min", 120)):
        if seconds >= size:
            return f"{seconds // (size // 2)} {unit}"
    return f"{seconds} s"
