"""The whole loop on the whole sample, as somebody on duty would live through it.

New data arrive, a trigger starts a run, the gate lets its model pass, a bad candidate is refused,
a rollback takes the promotion back.  What happened when is written to `drill.txt` beside the
working tree, and printed with `pytest -s`.
"""

import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing

import pytest

from tests.support.working_tree import copy_working_tree

WAIT_SECONDS = 1800
FIRST_SHARE = 0.8
#: States of a flow run that has not ended.
GOING_ON = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
RUNS_OF_RETRAIN = """
select flow_run.state_type, flow_run.tags, flow_run.parameters
from flow_run join flow on flow.id = flow_run.flow_id
where flow.name = 'retrain' and not flow_run.auto_scheduled order by flow_run.created
"""


class Diary:
    """Writes down what happened, and how long after the beginning."""

    def __init__(self, path):
        self.path = path
        self.begin = time.monotonic()

    def tell(self, what):
        line = f"{time.monotonic() - self.begin:7.1f} s  {what}\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        sys.stdout.write(line)


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
    """Return state, tags and parameters of the runs of retrain, but those of the clock."""
    with closing(sqlite3.connect(tree.path / ".prefect/prefect.db")) as prefect:
        return prefect.execute(RUNS_OF_RETRAIN).fetchall()


def flow_runs_that_ended(tree):
    return [run for run in flow_runs(tree) if run[0] not in GOING_ON]


def arrive(tree, records):
    """Put annotations in place as a careful sender does: whole, under their name at the end."""
    partial = tree.path / "data/raw/annotations.json.partial"
    partial.write_text(json.dumps({"conversations": records}), encoding="utf-8")
    partial.rename(partial.with_suffix(""))


def ovis(tree, *arguments, check=True):
    return tree.run("python", "-m", "tasks.cli", *arguments, check=check)


@pytest.mark.slow
@pytest.mark.timeout(2 * WAIT_SECONDS)
def test_new_data_win_a_bad_candidate_does_not_and_a_rollback_takes_it_back(tmp_path):
    tree = copy_working_tree(tmp_path, small=False)
    diary = Diary(tmp_path / "drill.txt")
    records = have_data_of_ones_own(tree)
    first_version(tree, records[: int(FIRST_SHARE * len(records))], diary)
    new_data_become_the_champion(tree, records, diary)
    bad_candidate_is_refused(tree, diary)
    ovis(tree, "rollback", "--reason", "the end of the drill")
    assert aliases(tree) == {"challenger": 3, "champion": 1}
    diary.tell("rolled back: version 1 is the champion again")

    log = ovis(tree, "promotions").stdout
    assert "rollback: champion 2 -> 1" in log
    assert "the end of the drill" in log
    told = (tree.path / "reports/notifications.jsonl").read_text(encoding="utf-8").splitlines()
    kinds = [json.loads(line)["kind"] for line in told]
    assert kinds == ["promoted", "promoted", "gate_refused", "rolled_back"]
    assert tree.processes() == []


def have_data_of_ones_own(tree):
    """Copy the sample's data to data/raw, without its annotations, which are returned."""
    tree.run("dvc", "repro", "data/sample/dvc.yaml")
    raw = tree.path / "data/raw"
    shutil.copytree(tree.path / "data/sample/digits/train", raw)
    tree.change_params(**{"validate.raw_data": "data/raw"})
    watching = {"new_data": True, "look_every_minutes": 1, "stable_minutes": 0}
    tree.change_params("operations.yaml", triggers=watching)
    return json.loads((raw / "annotations.json").read_text(encoding="utf-8"))["conversations"]


def first_version(tree, records, diary):
    arrive(tree, records)
    diary.tell(f"the first run begins, on {len(records)} samples")
    tree.run("dvc", "repro")
    assert registration(tree)["promoted"], registration(tree)["objections"]
    assert aliases(tree) == {"challenger": 1, "champion": 1}
    diary.tell("version 1 is trained, judged and the champion")


def new_data_become_the_champion(tree, records, diary):
    schedule = tree.start("python", "-m", "flows", "schedule")
    try:
        said = tree.output_log
        wait_until(lambda: "retrain, the next times" in said.read_text(), "the schedule")
        diary.tell("the schedule is served: a look for new data every minute")
        arrive(tree, records)
        diary.tell(f"new data: {len(records)} samples")
        wait_until(lambda: flow_runs(tree), "a run that the trigger starts")
        diary.tell("the trigger has started a run")
        ((state, tags, parameters),) = wait_until(
            lambda: flow_runs_that_ended(tree), "the end of that run"
        )
        assert state == "COMPLETED", said.read_text()[-6000:]
        assert "new-data" in tags
        assert "new data" in parameters
    finally:
        schedule.terminate()
        schedule.wait()
    assert registration(tree)["version"] == 2
    assert registration(tree)["promoted"], registration(tree)["objections"]
    assert aliases(tree) == {"challenger": 2, "champion": 2, "previous": 1}
    diary.tell("version 2 is trained, judged and the champion")
    assert len(flow_runs(tree)) == 1, "one version of the data starts one run"


def bad_candidate_is_refused(tree, diary):
    tree.change_params(**{"train.max_steps": 20})
    diary.tell("a run with a bad idea begins: 20 steps of training")
    tree.run("python", "-m", "flows", "retrain", "--reason", "a bad idea")
    report = registration(tree)
    assert report["version"] == 3
    assert not report["promoted"]
    assert aliases(tree) == {"challenger": 3, "champion": 2, "previous": 1}
    diary.tell(f"version 3 is refused: {report['objections'][0]}")
    refused = ovis(tree, "promote", "3", check=False)
    assert refused.returncode == 1
    assert "refused by the gate" in refused.stdout
