"""What MLflow has of a run of the pipeline: one run, and below it one for each step."""

import shutil
import sqlite3
from contextlib import closing

from tasks import STEPS


def ask(tree, query):
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as store:
        return store.execute(query).fetchall()


def runs_by_kind(tree, digest):
    """Return, by kind, (run, status, parent) of what belongs to a pipeline run."""
    parents = "select run_uuid from tags where key = 'ovis.inputs_digest' and value = '{}'"
    (pipeline,) = (run for (run,) in ask(tree, parents.format(digest)))
    children = ask(
        tree,
        "select runs.run_uuid, runs.name, runs.status from runs join tags using (run_uuid) "
        f"where tags.key = 'mlflow.parentRunId' and tags.value = '{pipeline}'",
    )
    return pipeline, children


def tags(tree, run):
    return dict(ask(tree, f"select key, value from tags where run_uuid = '{run}'"))


def latest(tree, run):
    return dict(ask(tree, f"select key, value from latest_metrics where run_uuid = '{run}'"))


def first_pipeline(tree):
    (digest,) = ask(
        tree,
        "select inputs.value from tags inputs join tags kind using (run_uuid) join runs using "
        "(run_uuid) where inputs.key = 'ovis.inputs_digest' and kind.key = 'ovis.kind' and "
        "kind.value = 'pipeline' order by runs.start_time limit 1",
    )[0]
    return runs_by_kind(tree, digest)


def test_a_pipeline_run_has_one_run_below_it_for_each_step(first_run):
    pipeline, children = first_pipeline(first_run.tree)
    names = sorted(name.partition("-")[0] for _, name, _ in children)
    assert names == sorted(STEPS)
    assert {status for _, _, status in children} == {"FINISHED"}
    assert tags(first_run.tree, pipeline)["ovis.last_step"] == "register"


def test_running_again_adds_no_run(settled_tree):
    """The pipeline ran at least twice here, and tests have changed what it is computed from."""
    doubled = ask(
        settled_tree,
        "select inputs.value, count(*) from tags inputs join tags kind using (run_uuid) where "
        "inputs.key = 'ovis.inputs_digest' and kind.key = 'ovis.kind' group by inputs.value "
        "having count(*) > 1",
    )
    assert doubled == []
    assert list((settled_tree.path / ".mlflow/spool").iterdir()) == []


def test_a_pipeline_run_tells_settings_data_code_packages_and_numbers(first_run):
    tree = first_run.tree
    pipeline, children = first_pipeline(tree)
    params = dict(ask(tree, f"select key, value from params where run_uuid = '{pipeline}'"))
    assert params["train.max_steps"] == "6"
    assert "register.gate.min_score.digits_single" in params
    inputs = ask(tree, f"select source_id from inputs where destination_id = '{pipeline}'")
    assert len(inputs) == 3
    known = tags(tree, pipeline)
    (training,) = (run for run, name, _ in children if name.startswith("train-"))
    assert known["ovis.training_run"] == training
    for tag in ("mlflow.source.git.commit", "ovis.requirements_lock", "ovis.torch"):
        assert known[tag], tag
    numbers = latest(tree, pipeline)
    for name in ("validate.num_samples", "train.final_loss", "digits_single.tuned.score"):
        assert name in numbers


def test_every_step_tells_what_it_cost_and_what_could_not_be_measured(first_run):
    _, children = first_pipeline(first_run.tree)
    for run, name, _ in children:
        numbers = latest(first_run.tree, run)
        assert numbers["cost.cpu_seconds"] > 0, name
        assert numbers["cost.wall_seconds"] > 0, name
        assert "ovis.not_measured" in tags(first_run.tree, run)
    assert list((first_run.tree.path / ".mlflow/artifacts").glob("*/artifacts/validate.json"))


def test_a_step_does_its_work_while_the_store_is_away(settled_tree):
    away = ("env", "MLFLOW_TRACKING_URI=http://127.0.0.1:9")
    done = settled_tree.run(*away, "python", "-m", "tasks", "extract")
    assert "Work goes on; its record waits in .mlflow/spool" in done.stdout
    (waiting,) = (settled_tree.path / ".mlflow/spool").iterdir()
    assert '"status": "FINISHED"' in (waiting / "records.jsonl").read_text(encoding="utf-8")
    shutil.rmtree(waiting)
    assert "extract" not in settled_tree.run("dvc", "status").stdout
