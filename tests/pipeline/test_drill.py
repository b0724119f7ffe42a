"""The whole loop on the whole sample, as somebody on duty would live through it.

New data arrive, a trigger starts a run, the gate lets its model pass, a bad candidate is refused,
a rollback takes the promotion back.  What happened when is written to `drill.txt` beside the
working tree, and printed with `pytest -s`.
"""

import json
import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from tests.support.working_tree import copy_working_tree

WAIT_SECONDS = 1800
FIRST_SHARE = 0.8


class Clock:
    """Writes down what happened, and how long after the beginning."""

    def __init__(self, path):
        self.path = path
        self.begin = time.monotonic()

    def tell(self, what):
        line = f"{time.monotonic() - self.begin:7.1f} s  {what}\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        print(line, end="")


def wait_until(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.5)
    return found


def registration(tree):
    return json.loads((tree.path / "reports/register.json").read_text(encoding="utf-8"))


def aliases(tree):
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as registry:
        found = registry.execute("select alias, version from registered_model_aliases").fetchall()
    return {alias: int(version) for alias, version in found}


def flow_runs(tree):
    """Return state, tags and parameters of the runs of retrain, the oldest first."""
    with closing(sqlite3.connect(tree.path / ".prefect/prefect.db")) as prefect:
        return prefect.execute(
            "select flow_run.state_type, flow_run.tags, flow_run.parameters from flow_run join flow"
            " on flow.id = flow_run.flow_id where flow.name = 'retrain' order by flow_run.created"
        ).fetchall()


def arrive(tree, folder, records):
    """Put annotations in place as a careful sender does: whole, under their name at the end."""
    partial = folder / "annotations.json.partial"
    partial.write_text(json.dumps(records), encoding="utf-8")
    partial.rename(folder / "annotations.json")


@pytest.mark.slow
def test_new_data_win_a_bad_candidate_does_not_and_a_rollback_takes_it_back(tmp_path):
    tree = copy_working_tree(tmp_path, small=False)
    clock = Clock(tmp_path / "drill.txt")
    tree.run("dvc", "repro", "data/sample/dvc.yaml")
    raw = tree.path / "data/raw"
    shutil.copytree(tree.path / "data/sample/digits/train", raw)
    records = json.loads((raw / "annotations.json").read_text(encoding="utf-8"))
    arrive(tree, raw, records[: int(FIRST_SHARE * len(records))])
    tree.change_params(**{"validate.raw_data": "data/raw"})
    tree.change_params(
        "operations.yaml",
        triggers={"new_data": True, "look_every_minutes": 1, "stable_minutes": 0},
    )

    clock.tell(f"first run begins, on {int(FIRST_SHARE * len(records))} samples")
    tree.run("dvc", "repro")
    assert registration(tree)["promoted"], registration(tree)["objections"]
    clock.tell("version 1 passed the gate and is the champion")

    schedule = tree.start("python", "-m", "flows", "schedule")
    try:
        wait_until(
            lambda: "retrain, the next times" in tree.output_log.read_text(), "the schedule"
        )
        clock.tell("the schedule is served; it looks for new data every minute")
        arrive(tree, raw, records)
        clock.tell(f"new data: {len(records)} samples")
        wait_until(lambda: (tree.path / ".prefect/prefect.db").exists(), "Prefect's database")
        wait_until(lambda: flow_runs(tree), "a run that the trigger starts")
        clock.tell("the trigger has started a run")
        (state, tags, parameters) = wait_until(
            lambda: next((one for one in flow_runs(tree) if one[0] not in RUNNING), None),
            "the end of that run",
        )
        assert state == "COMPLETED", tree.output_log.read_text()[-6000:]
        assert "new-data" in tags
        assert "new data" in parameters
        assert registration(tree)["version"] == 2
        assert registration(tree)["promoted"], registration(tree)["objections"]
        assert aliases(tree) == {"challenger": 2, "champion": 2, "previous": 1}
        clock.tell("version 2 is trained, judged and the champion")
    finally:
        schedule.terminate()
        schedule.wait()
    assert len(flow_runs(tree)) == 1, "one version of the data starts one run"

    tree.change_params(**{"train.max_steps": 20})
    tree.run("python", "-m", "flows", "retrain", "--reason", "a bad idea")
    report = registration(tree)
    assert report["version"] == 3
    assert not report["promoted"]
    assert report["objections"]
    assert aliases(tree) == {"challenger": 3, "champion": 2, "previous": 1}
    clock.tell(f"version 3, trained badly, is refused: {report['objections'][0]}")
    refused = tree.run("python", "-m", "tasks.cli", "promote", "3", check=False)
    assert refused.returncode == 1
    assert "refused by the gate" in refused.stdout

    tree.run("python", "-m", "tasks.cli", "rollback", "--reason", "the end of the drill")
    assert aliases(tree) == {"challenger": 3, "champion": 1}
    clock.tell("rolled back: version 1 is the champion again")
    log = tree.run("python", "-m", "tasks.cli", "promotions").stdout
    assert "rollback: champion 2 -> 1" in log
    assert "the end of the drill" in log
    kinds = [
        json.loads(line)["kind"]
        for line in (tree.path / "reports/notifications.jsonl").read_text().splitlines()
    ]
    assert kinds == ["promoted", "promoted", "gate_refused", "rolled_back"]
    assert tree.processes() == []


RUNNING = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
