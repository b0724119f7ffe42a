"""The whole pipeline on a small sample: every part real, every promise about DVC kept."""

import json
import re
import shutil

import pytest

from tasks import STEPS
from tests.support.working_tree import stages_that_ran

#: What `dvc status` says of a stage outside DVC's knowledge, also right after it ran.
ONLY_REGISTER = {"register": ["always changed"]}


def status(tree, *stages):
    return json.loads(tree.run("dvc", "status", "--json", *stages).stdout)


def test_a_fresh_clone_runs_every_step_in_order(first_run, settled_tree):
    assert stages_that_ran(first_run.output) == list(STEPS)
    for step in STEPS:
        assert (settled_tree.path / f"reports/{step}.json").is_file()
    assert (settled_tree.path / "reports/evaluate.html").is_file()
    assert (settled_tree.path / "models/finetuned/model.safetensors").is_file()


def test_nothing_leaves_this_machine_while_the_pipeline_runs(first_run):
    tree = first_run.tree
    assert not tree.egress_log.exists(), tree.egress_log.read_text()


def test_the_guard_against_leaving_this_machine_works(first_run):
    tree = first_run.tree
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = tree.run("python", "-c", code, check=False)
    assert "a test allows no connection beyond this machine" in done.stdout
    assert "192.0.2.1" in tree.egress_log.read_text()
    tree.egress_log.unlink()


def test_a_second_run_runs_only_register_which_adds_nothing(first_run):
    assert stages_that_ran(first_run.second_output) == ["register"]
    assert len(first_run.versions) == 1
    # The record of the first run was committed: not a byte of it is different.
    assert first_run.changed_files == ""


def test_a_run_leaves_dvc_up_to_date_and_no_process_behind(settled_tree):
    assert status(settled_tree) == ONLY_REGISTER
    assert settled_tree.processes() == []


def test_an_experiment_with_another_learning_rate_runs_train_and_what_follows(tree):
    output = tree.run("dvc", "exp", "run", "-S", "train.learning_rate=5e-4").stdout
    assert stages_that_ran(output) == ["train", "evaluate", "register"]
    changed = json.loads(tree.run("dvc", "params", "diff", "--json").stdout)["params.yaml"]
    assert list(changed) == ["train.learning_rate"]
    assert changed["train.learning_rate"]["new"] == 5e-4
    moved = json.loads(tree.run("dvc", "metrics", "diff", "--json").stdout)
    assert "reports/train.json" in json.dumps(moved)
    assert "0.0005" in tree.run("dvc", "exp", "show", "--csv").stdout


def test_a_change_of_the_gate_runs_only_register(tree):
    tree.change_params(**{"register.gate.min_score": {"digits_single": 1.0}})
    assert tree.repro() == ["register"]


def test_a_change_of_evaluation_code_does_not_retrain(tree):
    path = tree.path / "ovis_model/evaluation/scoring/own.py"
    path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert set(status(tree)) == {"evaluate", "register"}


def test_one_more_sample_in_data_of_ones_own_runs_from_validate(tree):
    raw = tree.path / "data/raw"
    shutil.copytree(tree.path / "data/sample/digits/train", raw)
    try:
        tree.change_params(**{"validate.raw_data": "data/raw"})
        assert tree.repro("extract") == ["validate", "extract"]
        annotations = json.loads((raw / "annotations.json").read_text(encoding="utf-8"))
        sample = {**annotations["conversations"][0], "id": "one-more"}
        annotations["conversations"].append(sample)
        (raw / "annotations.json").write_text(json.dumps(annotations), encoding="utf-8")
        assert tree.repro("extract") == ["validate", "extract"]
        assert set(status(tree)) == {"train", "evaluate", "register"}
    finally:
        shutil.rmtree(raw)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["dvc", "dag"], id="dag"),
        pytest.param(["dvc", "metrics", "show", "--md"], id="metrics show"),
        pytest.param(["dvc", "metrics", "diff"], id="metrics diff"),
        pytest.param(["dvc", "params", "diff"], id="params diff"),
        pytest.param(["dvc", "plots", "show"], id="plots show"),
    ],
)
def test_dvc_answers_on_a_clone_that_has_run(settled_tree, command):
    settled_tree.run(*command)


def test_the_status_command_shows_the_table(settled_tree):
    shown = settled_tree.run("python", "-m", "tasks.cli", "status", "--seconds", "75").stdout
    for benchmark in ("digits_single", "digits_multi_image", "digits_video", "digits_grounding"):
        assert benchmark in shown
    # `previous` when the experiment of another test came first and its model was promoted,
    # `champion` alone when it was refused.
    assert re.search(r"version 1, aliases: (challenger, champion|champion|previous)\n", shown)
    assert "1 min 15 s" in shown


def test_the_champion_loads_from_the_registry_and_answers_a_question(settled_tree):
    code = (
        "import mlflow; from tasks import _mlflow\n"
        "mlflow.set_tracking_uri(_mlflow.setup())\n"
        "model = mlflow.pyfunc.load_model('models:/ovis2_5@champion')\n"
        "from pathlib import Path\n"
        "image = sorted(Path('data/sample/digits/benchmarks/images').iterdir())[0]\n"
        "question = {'question': 'Which digit is this?', 'image': str(image)}\n"
        "print('ANSWER', model.predict([question]))\n"
    )
    assert "ANSWER [{'answer':" in settled_tree.run("python", "-c", code).stdout
