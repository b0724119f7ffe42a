"""One run of the whole pipeline, shared by the tests of this folder."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.support.working_tree import WorkingTree, copy_working_tree


@dataclass(frozen=True)
class FirstRun:
    """A clone after `dvc repro`, `git commit`, `dvc repro`, and what was seen on the way.

    As people do, a value was changed for the first run and not committed before it.
    """

    tree: WorkingTree
    output: str
    second_output: str
    changed_files: str
    versions: list[tuple[str, int]]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """Run the pipeline twice in a clone, with its record committed in between."""
    tree = copy_working_tree(tmp_path_factory.mktemp("pipeline"))
    tree.change_params(**{"train.weight_decay": 0.01})
    output = tree.run("dvc", "repro").stdout
    tree.commit("the record of the first run")
    second_output = tree.run("dvc", "repro").stdout
    with closing(sqlite3.connect(tree.path / ".mlflow/mlflow.db")) as registry:
        versions = registry.execute("select name, version from model_versions").fetchall()
    changed = tree.run("git", "status", "--porcelain").stdout
    return FirstRun(tree, output, second_output, changed, versions)


@pytest.fixture(scope="session")
def up_to_date(first_run):
    """Hold the trees that no test has changed since they were brought up to date."""
    return {first_run.tree.path}


@pytest.fixture
def settled_tree(first_run, up_to_date):
    """Give the tree of the first run, up to date, to a test that changes nothing."""
    tree = first_run.tree
    if tree.path not in up_to_date:
        tree.run("git", "checkout", "--quiet", "--force", "main")
        tree.run("dvc", "repro")
        up_to_date.add(tree.path)
    return tree


@pytest.fixture
def tree(settled_tree, up_to_date):
    """Give the tree of the first run, up to date, to a test that may do to it what it likes."""
    up_to_date.remove(settled_tree.path)
    return settled_tree
