"""A schedule that is none is told before it waits for a Monday that never comes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.deployments import serve_retrain
from ovis_model.errors import ConfigError

ROOT = Path(__file__).parents[3]


def test_the_deployment_for_a_server_and_the_served_one_have_the_same_schedule():
    text = (ROOT / "flows/deployments.py").read_text(encoding="utf-8")
    deployment = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert [one["name"] for one in deployment] == ["weekly"]
    assert f'CRON = "{deployment[0]["schedules"][0]["cron"]}"' in text
    assert deployment[0]["concurrency_limit"] == 1


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


def test_a_schedule_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("CRON", "on mondays")
    with pytest.raises(ConfigError, match="CRON='on mondays' is not a schedule; an example is"):
        serve_retrain()
