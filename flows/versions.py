"""Flows on versions that are registered already: promote, roll back, evaluate once more."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.admission import turn
from flows.failures import tell_failure
from ovis_model import promotion
from tasks import environment
from tasks._announcements import announce_move
from tasks.commands.promotions import open_registry, tell, tell_promotion
from tasks.evaluate_version import evaluate_version


@flow(name="promote", on_failure=[tell_failure], on_crashed=[tell_failure])
def promote(
    version: int, reason: str = "", *, force: bool = False, expected: int | None = None
) -> str:
    """Make a version the champion, as `ovis promote` does.

    Args:
        version: Its number in the registry.
        reason: Kept in the log of promotions; needed by force.
        force: Whether to pass over the gate and over a missing approval.
        expected: Do nothing unless this is the champion now; 0 means none.
    """
    environment.apply()
    registry, files = open_registry()
    done = promotion.promote(
        registry, version, files=files, reason=reason, force=force, expected=expected
    )
    announce_move(files.name, done)
    return _say("\n".join(tell_promotion(version, done)))


@flow(name="rollback", on_failure=[tell_failure], on_crashed=[tell_failure])
def rollback(reason: str = "", expected: int | None = None) -> str:
    """Make the previous champion the champion again, as `ovis rollback` does.

    Args:
        reason: Kept in the log of promotions.
        expected: Do nothing unless this is the champion now.
    """
    environment.apply()
    registry, files = open_registry()
    done = promotion.rollback(registry, files=files, reason=reason, expected=expected)
    announce_move(files.name, done)
    return _say("\n".join(tell(done)))


@flow(name="evaluate-version", on_failure=[tell_failure], on_crashed=[tell_failure])
def evaluate_a_version(version: str = "champion") -> str:
    """Score a version on the benchmarks that params.yaml names now.

    Args:
        version: A number, or an alias.
    """
    environment.apply()
    with turn(f"evaluate-version {version}", get_run_logger()):
        summary = evaluate_version(version)
    table = f"```\n{summary.to_table()}\n```\n"
    create_markdown_artifact(table, key="version-scores", description=f"version {version}")
    return table


def _say(text: str) -> str:
    get_run_logger().info(text)
    return text
