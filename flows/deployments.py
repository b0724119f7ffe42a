"""What runs when, and what can be asked to run: flows, times and parameters, nothing else.

`make schedule` serves these from the working tree; prefect.yaml says the same for a server and
work pools of one's own, and a test compares the two.
"""

import asyncio
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Schedule
from prefect.server.schemas.schedules import CronSchedule as ServerCronSchedule

from flows.retrain import retrain
from flows.versions import evaluate_a_version, promote, rollback
from flows.watch import on_drift, on_new_data
from ovis_model.errors import ConfigError
from tasks import environment
from tasks.operations import Operations, ScheduleConfig, TriggersConfig

SHOWN_TIMES = 3
#: How many runs `make schedule` starts at once.  Those that need the working tree take turns.
SERVED_RUNS = 8


def _one(strategy: ConcurrencyLimitStrategy) -> ConcurrencyLimitConfig:
    return ConcurrencyLimitConfig(limit=1, collision_strategy=strategy)


#: DVC holds one lock per working tree.  Flows wait for their turn there, too; this keeps runs that
#: wait from taking a process each.
ONE_WAITS = _one(ConcurrencyLimitStrategy.ENQUEUE)
ONE_LOOK = _one(ConcurrencyLimitStrategy.CANCEL_NEW)


def deployments(operations: Operations) -> list[RunnerDeployment]:
    """List every deployment.

    Raises:
        ConfigError: If the schedule is none.
    """
    return [*_retrains(operations.schedule), *_watches(operations.triggers), *_for_versions()]


def _retrains(config: ScheduleConfig) -> list[RunnerDeployment]:
    check(config)
    return [
        _deployment(
            retrain,
            name="scheduled",
            description="the pipeline by the clock; DVC skips what is done",
            schedule=Schedule(cron=config.cron, timezone=config.timezone),
            parameters={"reason": "the schedule"},
            tags=["schedule"],
            concurrency_limit=ONE_WAITS if config.overlap == "queue" else ONE_LOOK,
        ),
        _deployment(
            retrain,
            name="on-demand",
            description="the pipeline because a person or a trigger asks for it",
            concurrency_limit=ONE_WAITS,
        ),
    ]


def _watches(config: TriggersConfig) -> list[RunnerDeployment]:
    look = timedelta(minutes=config.look_every_minutes)
    return [
        _deployment(
            on_new_data,
            name="watch",
            description="starts retrain/on-demand once new raw data stay as they are",
            schedule=Schedule(interval=look, active=config.new_data),
            concurrency_limit=ONE_LOOK,
        ),
        _deployment(
            on_drift,
            name="watch",
            description="starts retrain/on-demand once for new raw data that have drifted",
            schedule=Schedule(interval=look, active=config.drift),
            concurrency_limit=ONE_LOOK,
        ),
    ]


def _for_versions() -> list[RunnerDeployment]:
    return [
        _deployment(promote, name="on-demand", description="make a version the champion"),
        _deployment(rollback, name="on-demand", description="the previous champion again"),
        _deployment(
            evaluate_a_version,
            name="on-demand",
            description="score a registered version on the benchmarks of now",
            concurrency_limit=ONE_WAITS,
        ),
    ]


def _deployment(flow: Flow[..., Any], **settings: Any) -> RunnerDeployment:
    found = flow.to_deployment(**settings)
    assert isinstance(found, RunnerDeployment), "there is no event loop here"
    return found


def check(config: ScheduleConfig) -> None:
    """Refuse a schedule that would never come.

    Raises:
        ConfigError: Naming the value and an example.
    """
    try:
        CronSchedule(cron=config.cron, timezone=config.timezone)
    except ValueError as error:
        raise ConfigError(
            f"cron={config.cron!r}, timezone={config.timezone!r} is not a schedule; an example "
            "is '0 2 * * 1', Mondays at 02:00, in Europe/Berlin"
        ) from error


def next_times(config: ScheduleConfig, start: datetime, count: int = SHOWN_TIMES) -> list[str]:
    """Say when the next runs are due, as the server computes it, in the schedule's zone.

    Example:
        >>> config = ScheduleConfig(cron="0 2 * * 1", timezone="Europe/Berlin")
        >>> for line in next_times(config, datetime(2026, 10, 18, tzinfo=UTC), count=2):
        ...     print(line)
        Mon 2026-10-19 02:00 CEST (+0200)
        Mon 2026-10-26 02:00 CET (+0100)
    """
    schedule = ServerCronSchedule(cron=config.cron, timezone=config.timezone)
    found = asyncio.run(schedule.get_dates(n=count, start=start))
    return [f"{one:%a %Y-%m-%d %H:%M %Z (%z)}" for one in found]


def announcement(operations: Operations, now: datetime) -> Iterable[str]:
    """Say in lines what is served, and when it is due."""
    yield "retrain, the next times:"
    for line in next_times(operations.schedule, now):
        yield f"  {line}"
    yield f"missed windows: {operations.schedule.catch_up} run; overlap: " + (
        "wait" if operations.schedule.overlap == "queue" else "leave out"
    )
    for name in ("new_data", "drift"):
        if getattr(operations.triggers, name):
            yield f"trigger {name}: a look every {operations.triggers.look_every_minutes} minutes"


def main() -> None:
    """Serve every deployment from this working tree until interrupted.

    Raises:
        ConfigError: If operations.yaml, or CRON in the environment, cannot be used.
    """
    environment.apply()
    operations = Operations.read()
    cron = os.environ.get("CRON")
    if cron:
        schedule = operations.schedule.model_copy(update={"cron": cron})
        operations = operations.model_copy(update={"schedule": schedule})
    served = deployments(operations)
    sys.stdout.writelines(f"{line}\n" for line in announcement(operations, datetime.now(UTC)))
    sys.stdout.flush()
    serve(*served, limit=SERVED_RUNS)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(str(error))
