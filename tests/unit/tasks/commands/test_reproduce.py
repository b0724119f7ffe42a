"""What a version is made of must be known, whole and here before anything is trained again."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from ovis_model.errors import ConfigError, DataError
from ovis_model.model_comparison import FileComparison
from ovis_model.model_folder import listed_digest
from tasks._past_tree import PastTree, make_past_tree
from tasks.artifacts import MODEL
from tasks.commands.reproduce import (
    Record,
    ReproduceReport,
    Terminal,
    as_text,
    changes_of,
    check_inputs,
    compare,
    describe_machine,
    describe_packages,
)
from tasks.tracking.facts import digest_of_patch, environment_tags
from tests.support.registry import write_model

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@localhost")
PATCH = b"diff --git a/code.py b/code.py\n"


def record(**facts):
    known = {
        "version": 3,
        "model_digest": "d" * 64,
        "inputs_digest": "i" * 64,
        "datasets": {"extracted": "e" * 64, "base_model": "b" * 64},
        "commit": "c" * 40,
        "changes": None,
        "patch": None,
        "files": {},
        "training": {},
        "tags": {},
    }
    return Record(**known | facts)


# ---- uncommitted changes --------------------------------------------------------------------


def test_changes_that_are_on_record_are_returned_and_none_are_none():
    changed = record(changes=digest_of_patch(PATCH), patch=PATCH)
    assert changes_of(changed) == PATCH
    assert changes_of(record()) is None


def test_changes_that_are_not_on_record_stop_it():
    with pytest.raises(ConfigError) as raised:
        changes_of(record(changes="1" * 64))
    assert str(raised.value) == (
        f"version 3 was trained from commit {'c' * 40} with changes that were not committed "
        f"(sha256 {'1' * 64}), and they are not on record; --without-changes trains from the "
        "commit alone"
    )


def test_changes_that_were_edited_stop_it():
    with pytest.raises(DataError, match=r"git_diff\.patch of version 3 is not what ran: its sha"):
        changes_of(record(changes=digest_of_patch(PATCH), patch=PATCH + b"more"))


def test_changes_of_an_attempt_before_they_were_committed_are_not_applied():
    tags = {"ovis.git_dirty": "false"}
    assert changes_of(record(changes=digest_of_patch(PATCH), patch=PATCH, tags=tags)) is None


# ---- inputs ---------------------------------------------------------------------------------


def test_equal_inputs_pass():
    check_inputs(record(), {"digest": "i" * 64, "datasets": {}})


def test_other_data_is_named():
    found = {"extracted": "9" * 64, "base_model": "b" * 64}
    with pytest.raises(DataError) as raised:
        check_inputs(record(), {"digest": "0", "datasets": found})
    assert f"nothing was trained: extracted: sha256 {'9' * 64}, not {'e' * 64}. `ovis" in str(
        raised.value
    )


def test_other_settings_are_named_when_the_data_are_equal():
    with pytest.raises(DataError, match=r"trained: the settings of `train` are others\. `ovis li"):
        check_inputs(record(), {"digest": "0", "datasets": dict(record().datasets)})


def test_packages_of_a_commit_without_a_lock_file_are_unknown(tmp_path):
    lock = tmp_path / "requirements.lock"
    assert describe_packages(lock) == {"requirements.lock": ("not committed", "unknown")}


def test_what_was_another_on_the_machine_of_then_is_told_but_not_what_is_computed_from():
    here = environment_tags()
    then = {**here, "ovis.python": "3.9.1", "ovis.requirements_lock": "0" * 64, "ovis.old": "x"}
    assert describe_machine(record(tags=then)) == {"python": ("3.9.1", here["ovis.python"])}


# ---- the tree -------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits of one file, and DVC."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    git("init", "--quiet")
    subprocess.run(["dvc", "init", "--quiet"], check=True)
    for text in ("old\n", "new\n"):
        Path("code.py").write_text(text)
        git("add", "--all")
        git(*IDENTITY, "commit", "--quiet", "--message", text)
    return here


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True).stdout


def test_a_commit_is_checked_out_with_its_changes_and_this_tree_is_left_alone(
    repository, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://models")
    commit = git("rev-parse", "HEAD~1").decode().strip()
    git("checkout", "--quiet", commit)
    Path("code.py").write_text("old, changed\r\n")
    patch = git("diff", "HEAD", "--binary")
    git("checkout", "--quiet", "--force", "-")

    tree = make_past_tree(tmp_path / "past", commit=commit, patch=patch, log=Terminal())

    assert (tree.path / "code.py").read_bytes() == b"old, changed\r\n"
    assert Path("code.py").read_text() == "new\n"
    assert git("status", "--porcelain") == b""
    cache = subprocess.run(["dvc", "cache", "dir"], cwd=tree.path, capture_output=True, check=True)
    assert Path(cache.stdout.decode().strip()).resolve() == repository / ".dvc/cache"
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"} & tree.environment.keys()
    assert tree.environment["PYTHONPATH"].startswith(str(tree.path))
    with pytest.raises(DataError, match=r"not say what it would read:\n(.*\n)*.*params\.yaml"):
        PastTree(tmp_path, Terminal()).ask_inputs()

    with pytest.raises(DataError, match=r"the recorded changes cannot be applied in .*past2:\n"):
        make_past_tree(tmp_path / "past2", commit="HEAD", patch=patch, log=Terminal())
    with pytest.raises(ConfigError, match=r"is there already; delete it \(`rm -r .*past`\)"):
        make_past_tree(tmp_path / "past", commit=commit, patch=None, log=Terminal())
    with pytest.raises(ConfigError, match=r"commit 1{40} is not in this repository; fetch it"):
        make_past_tree(tmp_path / "past3", commit="1" * 40, patch=None, log=Terminal())


def test_what_comes_out_in_the_past_is_not_restored_here(repository, tmp_path):
    Path("dvc.yaml").write_text(
        "stages:\n"
        "  extract: {cmd: date +%N > data, deps: [code.py], outs: [data]}\n"
        "  train: {cmd: date +%N > model, deps: [data], outs: [model]}\n"
    )
    git("add", "--all")
    git(*IDENTITY, "commit", "--quiet", "--message", "a pipeline")

    tree = make_past_tree(tmp_path / "past", commit="HEAD", patch=None, log=Terminal())
    tree.restore_data()
    tree.train()

    assert (tree.path / "model").is_file()
    assert not [path for path in Path(".dvc/cache").rglob("*") if path.is_file()]


def test_what_git_or_dvc_refuse_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git(*IDENTITY, "commit", "--quiet", "--allow-empty", "--message", "without DVC")
    with pytest.raises(ConfigError, match=r"`dvc cache dir` failed: ERROR: config"):
        make_past_tree(tmp_path / "past", commit="HEAD", patch=None, log=Terminal())


# ---- the verdict ----------------------------------------------------------------------------


def test_another_model_is_told_file_by_file_with_what_was_another_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(MODEL, save({"w": np.float32([1.0, 2.0])}))
    there = PastTree(tmp_path / "past", Terminal())
    write_model(there.path / MODEL, save({"w": np.float32([1.0, 2.5])}))
    of_version = record(
        model_digest=listed_digest(MODEL), training={"device": "cuda", "world_size": 1}
    )
    report = compare("ovis2_5", of_version, there, {"torch": ("2.13.0", "2.12.0")}, changes="1")
    assert report.identical is False
    assert report.environment == {"torch": ("2.13.0", "2.12.0"), "device": ("cuda", "None")} | {
        "world_size": ("1", "None")
    }
    said = as_text(report, tmp_path / "past")
    assert report.files["model.safetensors"].max_abs_difference == 0.5
    assert report.files["lineage.json"].identical
    assert f"different: model digest {report.reproduced_digest}, registered was " in said
    assert "not as it was: torch: 2.13.0 then, 2.12.0 now" in said
    assert f"from commit {'c' * 40} and its changes" in said


def test_every_way_in_which_a_file_differs_has_its_words():
    def one(expected, found, difference=None):
        return FileComparison(
            expected=expected,
            found=found,
            identical=expected == found,
            max_abs_difference=difference,
        )

    report = ReproduceReport(
        model_name="m",
        version=1,
        commit="c",
        changes=None,
        inputs_digest="i",
        registered_digest="1",
        reproduced_digest="2",
        identical=False,
        files={
            "a": one("1", "1"),
            "b": one("1", "2", 0.000123),
            "c": one("1", "2"),
            "d": one("1", None),
            "e": one(None, "1"),
        },
        environment={},
    )
    lines = as_text(report, Path("past")).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines[1:6]] == [
        "identical",
        "different, numbers by at most 0.000123",
        "different",
        "only in the registered one",
        "only in the new one",
    ]
