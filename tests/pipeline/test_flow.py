"""The flow and `dvc repro` are the same run, and the flow's server lives as long as it does."""

import json
import re
import sqlite3
from contextlib import closing

from tasks import STEPS
from tasks.artifacts import NOTIFICATIONS
from tests.support.working_tree import SECRETS, stages_that_ran


def test_a_flow_runs_what_dvc_finds_changed_and_records_five_tasks(tree):
    path = tree.path / "ovis_model/evaluation/scoring/own.py"
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")

    output = tree.run("python", "-m", "flows", "retrain").stdout

    assert stages_that_ran(output) == ["evaluate", "register"]
    finished = re.findall(r"Task run '(\w+)-\w+' - Finished in state Completed", output)
    assert tuple(finished) == STEPS
    # The logs of the tasks, not only the terminal, have what DVC said.
    with closing(sqlite3.connect(tree.path / ".prefect/prefect.db")) as prefect:
        logged = [row[0] for row in prefect.execute("select message from log")]
        artifacts = [row[0] for row in prefect.execute("select data from artifact")]
    assert any("Running stage 'evaluate'" in message for message in logged)
    assert any("digits_single" in str(artifact) for artifact in artifacts)

    status = json.loads(tree.run("dvc", "status", "--json").stdout)
    assert status == {"register": ["always changed"]}
    assert tree.processes() == []
    assert not (tree.path / ".prefect/server.json").exists()
    assert not tree.egress_log.exists(), tree.egress_log.read_text()


def test_a_failing_step_fails_the_flow_and_stops_what_follows(tree):
    secret = SECRETS["DEMO_PASSWORD"]
    tree.change_params(**{"validate.annotations": f"missing {secret}.json"})
    done = tree.run("python", "-m", "flows", "retrain", check=False)
    assert done.returncode == 1
    assert "missing ***.json" in done.stdout
    assert "Task run 'extract" not in done.stdout
    assert not (tree.path / "data/validated").exists()
    assert tree.processes() == []
    # By the flow, not by the step as well, nor at each attempt.
    lines = (tree.path / NOTIFICATIONS).read_text("utf-8").splitlines()
    (told,) = [line for line in map(json.loads, lines) if line["kind"] == "failure"]
    assert told["title"] == "retrain failed"
    assert "missing ***.json" in told["text"]
    # Neither the terminal nor Prefect's logs and states.
    assert secret not in done.stdout
    kept = [path.read_bytes() for path in (tree.path / ".prefect").glob("prefect.db*")]
    assert any(b"missing ***.json" in content for content in kept)
    assert not any(secret.encode() in content for content in kept)
