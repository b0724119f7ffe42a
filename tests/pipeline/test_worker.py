"""A real Prefect server, a work pool and its worker: deployed, picked up, approved, cancelled."""

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass

import httpx
import pytest

from ovis_model.promotion_log import read_entries
from tests.support.working_tree import WorkingTree

WAIT_SECONDS = 400
#: A server of the working tree, until its input ends.
SERVER = """
import sys
from tasks import environment
environment.apply()
from flows.server import server
with server() as url:
    print(url, flush=True)
    sys.stdin.read()
"""
#: Prefect's command, with what the Makefile exports.
PREFECT = """
import sys
from tasks import environment
environment.apply()
from prefect.cli import app
sys.exit(app())
"""


def wait_until(condition, explain):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.5)


@dataclass(frozen=True)
class Prefect:
    """A server with every deployment of prefect.yaml, and a worker that takes its runs."""

    tree: WorkingTree
    url: str

    def ask(self, method, path, **content):
        answer = httpx.request(method, f"{self.url}{path}", json=content or None, timeout=60)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def start(self, name, **parameters):
        """Start a run of a deployment and return its id."""
        deployment = self.ask("GET", f"/deployments/name/{name}")
        path = f"/deployments/{deployment['id']}/create_flow_run"
        return self.ask("POST", path, parameters=parameters)["id"]

    def wait(self, run, name):
        """Wait for a state."""

        def is_reached():
            state = self.ask("GET", f"/flow_runs/{run}")["state"]
            ended = state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            assert state["name"] == name or not ended, (state, self.logs(run))
            return state["name"] == name

        wait_until(is_reached, lambda: self.logs(run))

    def logs(self, run):
        query = {"logs": {"flow_run_id": {"any_": [run]}}}
        return [one["message"] for one in self.ask("POST", "/logs/filter", **query)]

    def wait_for_log(self, run, message):
        """Wait for a line of a run's log, which may come after its end."""
        wait_until(lambda: message in self.logs(run), lambda: self.logs(run))

    def artifacts(self, run):
        query = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return {one["key"]: one for one in self.ask("POST", "/artifacts/filter", **query)}


@pytest.fixture(scope="module")
def prefect(first_run):
    tree = first_run.tree
    tree.run("git", "checkout", "--quiet", "--force", "main")
    # prefect.yaml names the folder by PWD, as the shell of a person has it.
    environment = {**tree.environment, "PWD": str(tree.path)}
    log = tree.path.parent / "prefect.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=tree.path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
        ) as server,
    ):
        url = server.stdout.readline().decode().strip()
        environment = {**environment, "PREFECT_API_URL": url}

        def prefect_command(*arguments):
            return [sys.executable, "-c", PREFECT, *arguments]

        # The worker makes its pool.  `prefect work-pool create` would have the server ask a list
        # of worker types that is elsewhere.
        with subprocess.Popen(
            prefect_command("worker", "start", "--pool", "local", "--type", "process"),
            cwd=tree.path,
            env=environment,
            stdout=output,
            stderr=output,
        ) as worker:
            wait_until(
                lambda: httpx.get(f"{url}/work_pools/local", timeout=60).is_success,
                lambda: log.read_text(encoding="utf-8"),
            )
            done = subprocess.run(
                prefect_command("--no-prompt", "deploy", "--all"),
                cwd=tree.path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            yield Prefect(tree, url)
            worker.terminate()
        server.stdin.close()
    assert tree.processes() == [], log.read_text(encoding="utf-8")
    # The training that was cancelled is not the next test's to take up.
    shutil.rmtree(tree.path / "models/.resume")
    assert not tree.egress_log.exists(), tree.egress_log.read_text()


@pytest.fixture(autouse=True)
def as_committed(prefect):
    """Take back what the test before changed, whichever it was."""
    prefect.tree.run("git", "checkout", "--quiet", "--force", "main")


def test_a_run_is_picked_up_asks_a_person_and_promotes_on_their_word(prefect):
    tree = prefect.tree
    # The version is to be judged anew, with nobody in its place, and a person to be asked.
    tree.change_params(**{"register.promotion": "by_approval", "register.gate.margin": 98.0})
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as store:
        store.execute("delete from registered_model_aliases where alias = 'champion'")
        store.commit()
    run = prefect.start("retrain/on-demand", reason="the floor was set anew")
    prefect.wait(run, "Paused")
    summary = prefect.artifacts(run)["retrain-summary"]
    assert "Started because of: the floor was set anew" in summary["data"]
    answer = {"approve": True, "name": "Octavia", "reason": "read twenty answers"}
    prefect.ask("POST", f"/flow_runs/{run}/resume", run_input=answer)
    prefect.wait(run, "Completed")
    prefect.wait_for_log(run, "version 1 was approved by Octavia: read twenty answers")
    path = tree.path / ".mlflow/promotions/ovis2_5.jsonl"
    last = read_entries(path.read_bytes(), path)[-1]
    assert (last.action, [str(move) for move in last.moves]) == (
        "approve",
        ["champion nowhere -> 1"],
    )
    assert last.reason == "Octavia in Prefect's form: read twenty answers"


def test_a_registered_version_is_evaluated_into_a_folder_of_its_own(prefect):
    reports = prefect.tree.path / "reports"
    before = (reports / "evaluate.json").read_bytes()
    run = prefect.start("evaluate-version/on-demand", version="1")
    prefect.wait(run, "Completed")
    assert "digits_single" in prefect.artifacts(run)["version-scores"]["data"]
    assert (reports / "runs/version-1/summary.json").is_file()
    assert (reports / "evaluate.json").read_bytes() == before
    with closing(sqlite3.connect(prefect.tree.path / ".mlflow/mlflow.db")) as store:
        keys = store.execute("select key from metrics where key like 'version.%'").fetchall()
    assert ("version.digits_single",) in keys


def test_a_cancelled_run_stops_its_trainer(prefect):
    tree = prefect.tree
    tree.change_params(**{"train.seed": 7, "train.max_steps": 100_000, "train.save_steps": 5})
    run = prefect.start("retrain/on-demand", reason="to be cancelled")

    def working():
        """Return the step, DVC and the trainers, but not the server and the worker."""
        ours = re.compile(r" -m (dvc|tasks|ovis_model)\b")
        return [line for line in tree.processes() if ours.search(line)]

    def is_training():
        state = prefect.ask("GET", f"/flow_runs/{run}")["state"]
        assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), prefect.logs(run)
        logs = (tree.path / "models/.resume").glob("*.metrics.jsonl")
        has_steps = any(path.read_text(encoding="utf-8") for path in logs)
        return has_steps and any("-m ovis_model.training" in line for line in working())

    wait_until(is_training, lambda: prefect.logs(run))
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    prefect.ask("POST", f"/flow_runs/{run}/set_state", state=cancelling)
    prefect.wait(run, "Cancelled")
    wait_until(lambda: working() == [], working)
