"""What is served is what prefect.yaml deploys, and a schedule says when it comes."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flows import deployments as served
from flows.deployments import announcement, deployments, next_times
from ovis_model.errors import ConfigError
from tasks.operations import Operations, ScheduleConfig

ROOT = Path(__file__).parents[3]


def limit_of(one):
    strategy = one.concurrency_options
    return (one.concurrency_limit, strategy.collision_strategy.value if strategy else None)


def schedule_of(one):
    (schedule,) = one.schedules or [None]
    if schedule is None:
        return None
    times = schedule.schedule
    if hasattr(times, "cron"):
        return {"cron": times.cron, "timezone": times.timezone}
    return {"interval": int(times.interval.total_seconds()), "active": schedule.active}


def test_the_deployments_for_a_server_and_the_served_ones_are_the_same():
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    told = [
        (
            one["entrypoint"],
            one["name"],
            one["description"],
            one.get("parameters", {}),
            one.get("tags", []),
            tuple(one.get("concurrency_limit", {"limit": None, "strategy": None}).values()),
            one.get("schedules", [None])[0],
        )
        for one in written
    ]
    found = [
        (
            one.entrypoint,
            one.name,
            one.description,
            one.parameters,
            one.tags,
            limit_of(one),
            schedule_of(one),
        )
        for one in deployments(Operations.read(ROOT / "operations.yaml"))
    ]
    assert found == told


def test_what_operations_say_of_overlap_and_triggers_is_served():
    config = {"schedule": {"overlap": "skip"}, "triggers": {"new_data": True}}
    scheduled, _, data, drift, *_ = deployments(Operations.parse(config, where="test"))
    assert limit_of(scheduled) == (1, "CANCEL_NEW")
    assert (schedule_of(data)["active"], schedule_of(drift)["active"]) == (True, False)


def test_an_unknown_command_is_answered_with_the_two():
    done = subprocess.run(
        [sys.executable, "-m", "flows", "deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "usage: python -m flows {retrain,schedule}\n"


@pytest.mark.parametrize("change", [{"cron": "on mondays"}, {"timezone": "Europe/Ulm"}])
def test_a_schedule_that_is_none_is_refused(change):
    operations = Operations.parse({"schedule": change}, where="test")
    with pytest.raises(ConfigError, match=r"is not a schedule; an example is '0 2 \* \* 1', Mond"):
        deployments(operations)


def test_another_time_in_the_environment_counts(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CRON", "on mondays")
    with pytest.raises(ConfigError, match="cron='on mondays'"):
        served.main()


def test_a_nightly_run_is_once_a_night_also_when_clocks_change():
    config = ScheduleConfig(cron="30 2 * * *", timezone="Europe/Berlin")
    assert next_times(config, datetime(2026, 10, 24, 12, tzinfo=UTC)) == [
        "Sun 2026-10-25 02:30 CEST (+0200)",
        "Mon 2026-10-26 02:30 CET (+0100)",
        "Tue 2026-10-27 02:30 CET (+0100)",
    ]
    # There is no 02:30 on 2027-03-28: the run comes when clocks have jumped.
    spring = next_times(config, datetime(2027, 3, 27, 12, tzinfo=UTC))
    assert [re.sub(r" \d\d:.*", "", one) for one in spring] == [
        "Sun 2027-03-28",
        "Mon 2027-03-29",
        "Tue 2027-03-30",
    ]


def test_what_is_served_is_announced_with_its_next_three_times():
    operations = Operations.parse({"triggers": {"drift": True}}, where="test")
    assert list(announcement(operations, datetime(2026, 11, 26, tzinfo=UTC))) == [
        "retrain, the next times:",
        "  Mon 2026-11-30 02:00 UTC (+0000)",
        "  Mon 2026-12-07 02:00 UTC (+0000)",
        "  Mon 2026-12-14 02:00 UTC (+0000)",
        "missed windows: one run; overlap: wait",
        "trigger drift: a look every 10 minutes",
    ]
