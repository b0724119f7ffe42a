import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks import _mlflow
from tasks._mlflow import find_run_id
from tasks.cli import main
from tasks.tracking.facts import digest_of_patch
from tasks.tracking.limits import flatten
from tasks.tracking.runs import log_results, start_or_find_run
from tasks.tracking.session import session

DIGESTS = (f"{number:064x}" for number in itertools.count())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One store for this file: making the schema takes seconds."""
    return tmp_path_factory.mktemp("tree")


@pytest.fixture(autouse=True)
def _in_a_working_tree(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def digest():
    return next(DIGESTS)


def client():
    return _mlflow.MlflowClient(_mlflow.setup())


def read(run_id):
    return client().get_run(run_id)


def test_everything_lives_under_one_folder(home, digest):
    with start_or_find_run(digest) as run:
        pass
    assert (home / ".mlflow" / "mlflow.db").is_file()
    assert read(run.run_id).info.artifact_uri.startswith((home / ".mlflow").as_uri())
    assert [path.name for path in home.iterdir()] == [".mlflow"]


def test_a_tracking_uri_of_the_user_wins(monkeypatch, tmp_path, home):
    _mlflow.setup()
    shutil.copy(home / ".mlflow" / "mlflow.db", tmp_path / "other.db")  # a schema takes seconds
    uri = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    assert _mlflow.setup() == uri
    assert not (tmp_path / ".mlflow" / "mlflow.db").exists()


def test_a_run_is_found_by_the_digest_of_its_inputs(digest):
    assert find_run_id(digest) is None
    with start_or_find_run(digest, params={"learning_rate": 1e-3, "gate": {"floor": 2}}) as run:
        run.log_metrics({"loss": 0.5}, step=1)
    assert find_run_id(digest) == run.run_id
    found = read(run.run_id)
    assert found.data.params == {"learning_rate": "0.001", "gate.floor": "2"}
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (ValueError, "FAILED")]
)
def test_an_interrupted_run_is_continued_and_repeats_nothing(digest, error, status):
    def interrupted():
        with start_or_find_run(digest, params={"seed": 1}) as run:
            run.log_metrics({"loss": 3.0}, step=1)
            run.log_metrics({"loss": 2.0}, step=2)
            raise error

    with pytest.raises(error):
        interrupted()
    first = read(find_run_id(digest))
    assert first.info.status == status
    with start_or_find_run(digest, params={"seed": 1}) as second:
        second.log_metrics({"loss": 2.0}, step=2)  # resumed from the checkpoint of step 1
        second.log_metrics({"loss": 1.0}, step=3)
    assert second.run_id == first.info.run_id
    points = client().get_metric_history(second.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert read(second.run_id).info.status == "FINISHED"


def test_training_the_same_again_on_purpose_is_a_second_run(digest):
    with start_or_find_run(digest) as first:
        pass
    with start_or_find_run(digest) as second:
        pass
    assert first.run_id != second.run_id
    assert find_run_id(digest) == second.run_id


def test_a_setting_changed_between_attempts_is_kept_as_a_tag(digest):
    with pytest.raises(ValueError, match="stop"), start_or_find_run(digest, params={"workers": 2}):
        raise ValueError("stop")
    with start_or_find_run(digest, params={"workers": 4}) as run:
        pass
    found = read(run.run_id)
    assert found.data.params["workers"] == "2"
    assert found.data.tags["ovis.resumed_with.workers"] == "4"


def test_more_settings_than_one_request_takes_are_all_logged(digest):
    with start_or_find_run(digest, params={f"key_{n}": n for n in range(250)}) as run:
        run.log_metrics({f"metric_{n}": n for n in range(250)}, step=1)
    found = read(run.run_id)
    logged = [name for name in found.data.metrics if name.startswith("metric_")]
    assert (len(found.data.params), len(logged)) == (250, 250)


def test_a_dataset_is_recorded_by_its_whole_digest(digest, home):
    with start_or_find_run(digest) as run:
        run.log_dataset_digest("extracted", "ab" * 32, source=home / "data")
    (entry,) = read(run.run_id).inputs.dataset_inputs
    assert entry.dataset.name == "extracted"
    assert {tag.key: tag.value for tag in entry.tags}["ovis.sha256"] == "ab" * 32


def test_the_commit_and_whether_files_differ_from_it_are_on_the_run(digest, tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(("git", *who, *words), check=True, capture_output=True, text=True)
        return done.stdout.strip()

    uri = _mlflow.setup()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a", encoding="utf-8")
    git("init", "-q")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    git("config", "diff.noprefix", "true")  # of a person, and not what `git apply` takes
    with session("train"):
        (tmp_path / "file").write_text("b of hf_" + 34 * "x", encoding="utf-8")
        with start_or_find_run(digest) as run:
            pass
    tags = read(run.run_id).data.tags
    assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
    assert tags["ovis.git_dirty"] == "true"
    patch = Path(client().download_artifacts(run.run_id, "git_diff.patch", str(tmp_path.parent)))
    assert tags["ovis.git_diff"] == digest_of_patch(patch.read_bytes())
    git("checkout", "file")
    git("apply", str(patch))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "b of ***"


def test_parameters_and_tags_hold_no_secret(digest, monkeypatch):
    monkeypatch.setenv("DEMO_TOKEN", "sw0rdfish")
    params = {"raw": "s3://me:pa55word@bucket/raw", "hub": {"hub_token": "open sesame"}}
    with start_or_find_run(digest, params=params) as run:
        run.set_tags({"why": "because of sw0rdfish"})
    data = read(run.run_id).data
    assert data.params == {"raw": "s3://***@bucket/raw", "hub.hub_token": "***"}
    assert data.tags["why"] == "because of ***"


def test_an_evaluation_lands_on_the_run_of_its_training(digest, tmp_path):
    report = tmp_path / "evaluate.json"
    report.write_text("{}", encoding="utf-8")
    with start_or_find_run(digest) as run:
        pass
    log_results(digest, {"digits.tuned.score": 90.0}, [report])
    log_results(digest, {"digits.tuned.score": 95.0}, [report])
    assert read(run.run_id).data.metrics["digits.tuned.score"] == 95.0
    files = client().list_artifacts(run.run_id)
    assert [file.path for file in files] == ["evaluate.json"]


def test_an_evaluation_of_a_model_trained_elsewhere_gets_a_run(digest):
    log_results(digest, {"digits.tuned.score": 90.0}, [])
    run = read(find_run_id(digest))
    assert run.info.run_name.startswith("trained-elsewhere")
    assert run.info.status == "FINISHED"


def test_nested_settings_become_flat_text():
    assert flatten({"a": {"b": {"c": 1}}, "d": None, "e": ()}) == {
        "a.b.c": "1",
        "d": "None",
        "e": "[]",
    }


@pytest.mark.parametrize(
    "source", ["a+b", "/", "../..", "a//b", "\n", "사진", "x" * 300, 'web "A"'], ids=repr
)
def test_a_source_may_be_called_anything(digest, source):
    with start_or_find_run(digest) as run:
        run.log_metrics({f"loss/{source}": 0.5, "loss": 0.25}, step=1)
    metrics = read(run.run_id).data.metrics
    assert sorted(metrics[name] for name in metrics if name.startswith("loss")) == [0.25, 0.5]


def test_the_address_of_the_store_is_not_in_the_arguments_of_its_server(monkeypatch):
    uri = _mlflow.setup()
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    became = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: became.append(arguments))
    main(["ui", "--port", "0"])
    assert became == [["mlflow", "ui", "--host", "127.0.0.1", "--port", "0"]]
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == uri
