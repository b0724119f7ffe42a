"""`ovis status` of a run that is alive, killed, taken up again, and edited while it runs."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing

from tasks.artifacts import HEARTBEATS, NOTIFICATIONS
from tasks.heartbeats import read_heartbeats

WAIT_SECONDS = 120
#: Nobody listens there.
UNREACHABLE = "MLFLOW_TRACKING_URI=http://127.0.0.1:9"


def status(tree, *environment):
    return tree.run("env", *environment, "python", "-m", "tasks.cli", "status").stdout


def wait_for_training(tree, *, steps):
    """Wait until a training tells of so many steps; return its step's process."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        for one in read_heartbeats(tree.path / HEARTBEATS):
            if one.step == "train" and one.is_alive:
                done = int(one.progress.split()[1]) if one.progress else 0
                if done >= steps:
                    return one.pid
        assert time.monotonic() < deadline, f"no training tells of {steps} steps"
        time.sleep(0.1)


def run_states(tree):
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as store:
        return [row[0] for row in store.execute("select status from runs order by start_time")]


def test_a_killed_step_is_told_its_run_closed_and_edited_code_is_not_recorded(tree):
    tree.change_params(**{"train.seed": 77, "train.max_steps": 120, "train.save_steps": 10})
    before = run_states(tree)
    process = tree.start("dvc", "repro", "train")
    step = wait_for_training(tree, steps=12)
    assert run_states(tree) == [*before, "RUNNING", "RUNNING"]
    os.kill(step, signal.SIGKILL)
    assert process.wait() != 0

    said = status(tree, UNREACHABLE)
    assert said.startswith("nothing is running\ntrain crashed at step ")
    assert "its MLflow run could not be closed: the MLflow store http://127.0.0.1:9 cannot" in said
    assert run_states(tree) == [*before, "RUNNING", "RUNNING"]
    assert "its MLflow run could not be closed" not in status(tree)
    assert run_states(tree) == [*before, "KILLED", "KILLED"]

    # Taken up again, it goes on; but meanwhile somebody edits what it runs.
    process = tree.start("dvc", "repro", "train")
    wait_for_training(tree, steps=1)
    edited = tree.path / "ovis_model/training/throughput.py"
    text = edited.read_text(encoding="utf-8")
    edited.write_text(text + "# edited\n", encoding="utf-8")
    assert process.wait() != 0
    log = tree.output_log.read_text()
    assert "resuming from" in log
    assert (
        "train failed: what it runs was changed while it ran: ovis_model/training/throughput.py."
    ) in log
    assert "train failed at step 120 of 120" in status(tree)
    assert "train" in json.loads(tree.run("dvc", "status", "--json", "train").stdout)

    # As the message says: with the code put back, the results are those of that code.
    edited.write_text(text, encoding="utf-8")
    tree.run("dvc", "commit", "--force", "train")
    assert json.loads(tree.run("dvc", "status", "--json", "train").stdout) == {}
    (tree.path / NOTIFICATIONS).unlink()  # of the failure, which is this test's own
