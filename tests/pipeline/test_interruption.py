"""Interrupted anywhere, nothing is left running, and the next run finishes the job."""

import os
import re
import signal
import sqlite3
import time
from contextlib import closing

import pytest

WAIT_SECONDS = 120


def wait_until(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.2)


def trained_steps(tree):
    logs = list((tree.path / "models/.resume").glob("*.metrics.jsonl"))
    return len(logs[0].read_text(encoding="utf-8").splitlines()) if logs else 0


def logged_steps(tree):
    """Return the steps whose loss MLflow has of the newest training, as often as it has it."""
    newest = "select run_uuid from runs where name like 'train-%' order by start_time desc limit 1"
    query = f"select step from metrics where key = 'loss' and run_uuid = ({newest}) order by step"
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as store:
        return [step for (step,) in store.execute(query)]


def kill_dvc(process, tree):
    process.kill()


def press_ctrl_c(process, tree):
    os.killpg(process.pid, signal.SIGINT)


def stop_a_trainer(process, tree):
    """As a cluster does that takes the machine away."""
    (trainer,) = (
        number
        for number, line in tree.process_ids().items()
        if re.match(r"\S+ -m ovis_model\.training ", line)
    )
    os.kill(trainer, signal.SIGTERM)
    process.wait()
    said = tree.output_log.read_text()
    assert re.search(r"stopped by SIGTERM after step \d+ of 200, with a checkpoint of it", said)
    assert "train: training was stopped; run it again, and it goes on from its last" in said
    assert "exited with 75" in said


@pytest.mark.parametrize(
    ("interrupt", "seed"),
    [
        pytest.param(kill_dvc, 1, id="kill -9 dvc"),
        pytest.param(press_ctrl_c, 2, id="Ctrl+C"),
        pytest.param(stop_a_trainer, 3, id="SIGTERM to a trainer"),
    ],
)
def test_training_ends_with_its_run_and_is_resumed_by_the_next(tree, interrupt, seed):
    tree.change_params(**{"train.seed": seed, "train.max_steps": 200, "train.save_steps": 5})
    process = tree.start("dvc", "repro", "train")
    wait_until(lambda: trained_steps(tree) >= 12, "twelve steps of training")
    interrupt(process, tree)
    assert process.wait() != 0
    wait_until(lambda: tree.processes() == [], f"the end of {tree.processes()}")
    assert not (tree.path / "models/finetuned").exists()

    output = tree.run("dvc", "repro", "train").stdout
    assert "resuming from" in output
    assert (tree.path / "models/finetuned/model.safetensors").is_file()
    assert list((tree.path / "models/.resume").glob("*.json*")) == []
    assert logged_steps(tree) == list(range(1, 201))
