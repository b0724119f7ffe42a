"""A store in a file that is locked, damaged, not writable or not ours to read; dead writers."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ovis_model.errors import ConfigError, UnavailableError
from tasks import _mlflow
from tasks._mlflow import StoreUnavailable, find_run_id, setup
from tasks._process_identity import process_identity
from tasks.tracking.facts import PROCESS
from tasks.tracking.replay import reconcile, sync_store
from tasks.tracking.runs import start_or_find_run
from tasks.tracking.spool import SPOOL

ROOT = Path(__file__).parents[2]
DATABASE = Path(".mlflow/mlflow.db")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A store as the first run leaves it: making the schema takes seconds."""
    home = tmp_path_factory.mktemp("fresh")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        setup()
    return home / DATABASE


@pytest.fixture(autouse=True)
def _in_a_working_tree(fresh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    DATABASE.parent.mkdir()
    shutil.copy(fresh, DATABASE)


def as_another(path):
    """Give an address that MLflow has not opened yet in this process."""
    return f"sqlite:///{path.resolve()}"


def test_a_damaged_database_is_named_and_kept(caplog):
    whole = DATABASE.read_bytes()
    DATABASE.write_bytes(b"x" * 100 + whole[100:])
    damaged = DATABASE.read_bytes()
    with (
        pytest.raises(ConfigError, match=r"is damaged\. Put a copy back, or move it away") as told,
        start_or_find_run("a" * 64),
    ):
        pytest.fail("work began without its record")
    assert not isinstance(told.value, StoreUnavailable)
    assert str(DATABASE.resolve()) in str(told.value)
    assert DATABASE.read_bytes() == damaged
    assert list(SPOOL.iterdir()) == []


def test_a_page_that_is_damaged_is_told_too():
    with closing(sqlite3.connect(DATABASE)) as store:
        (page,) = store.execute(
            "select rootpage from sqlite_master where name = 'runs'"
        ).fetchone()
        (size,) = store.execute("pragma page_size").fetchone()
    with DATABASE.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(ConfigError, match=r"malformed.*\. It is damaged"), start_or_find_run("b"):
        pytest.fail("work began without its record")


def test_a_database_that_cannot_be_written_is_told_before_work_begins(monkeypatch):
    address = f"sqlite:///file:{DATABASE.resolve()}?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    complaint = r"readonly database\. It cannot be written to: see to the rights"
    with pytest.raises(ConfigError, match=complaint), start_or_find_run("c" * 64):
        pytest.fail("work began without its record")


def test_the_database_of_a_newer_mlflow_is_left_alone():
    with closing(sqlite3.connect(DATABASE)) as store:
        store.execute("update alembic_version set version_num = 'ffffffffffff'")
        store.commit()
    before = DATABASE.read_bytes()
    with pytest.raises(ConfigError, match=r"[Aa] newer (one|version of MLflow)"):
        setup()
    assert DATABASE.read_bytes() == before


def test_a_database_that_is_locked_for_a_while_gets_everything_afterwards(caplog):
    setup()
    holder = sqlite3.connect(DATABASE, check_same_thread=False, isolation_level=None)
    with closing(holder), start_or_find_run("d" * 64) as run:
        holder.execute("begin exclusive")
        for step in range(1, 4):
            run.log_metrics({"loss": float(step)}, step=step)
        threading.Timer(2.0, lambda: holder.execute("rollback")).start()
    history = _mlflow.MlflowClient(setup()).get_metric_history(find_run_id("d" * 64), "loss")
    assert [point.step for point in history] == [1, 2, 3]


def test_a_database_that_stays_locked_is_told_with_who_may_hold_it():
    error = sqlite3.OperationalError("database is locked")
    told = _mlflow.explain(error, "sqlite:////srv/mlflow.db")
    assert isinstance(told, StoreUnavailable)
    # A step ends with another exit code then, by which a flow knows that it may try again.
    assert isinstance(told, UnavailableError)
    assert "`fuser /srv/mlflow.db` names it" in str(told)


MEETING = """
import os, sys
from tasks import _mlflow
from tasks.tracking.runs import start_or_find_run
ready, go = os.pipe(), os.pipe()
children = []
for number in range(16):
    child = os.fork()
    if child == 0:
        os.close(go[1])
        os.read(go[0], 1)  # returns when the parent closes its end: all begin at once
        with start_or_find_run(f"{number:064x}") as run:
            run.log_metrics({"loss": float(number)}, step=1)
        os._exit(0 if run.run_id else 1)
    children.append(child)
os.close(go[0]); os.close(go[1])
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))
"""


def test_sixteen_processes_that_meet_in_an_empty_home_all_succeed():
    shutil.rmtree(".mlflow")
    done = subprocess.run(
        [sys.executable, "-c", MEETING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for number in range(16):
        run = _mlflow.MlflowClient(setup()).get_run(find_run_id(f"{number:064x}"))
        assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", float(number))
    assert list(SPOOL.iterdir()) == []


LEFT = """
import os, signal
from tasks.tracking.runs import start_or_find_run
with start_or_find_run("f" * 64) as run:
    while run.run_id is None or run._session.spool.count():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_process_died_is_marked_as_killed_and_no_other_one():
    subprocess.run(
        [sys.executable, "-c", LEFT], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    shutil.rmtree(SPOOL)  # as if another machine had cleaned up
    client = _mlflow.MlflowClient(setup())
    assert client.get_run(find_run_id("f" * 64)).info.status == "RUNNING"
    others = {"of another machine": "elsewhere 1 2 3", "of this process": process_identity()}
    for name, process in others.items():
        _mlflow.create_run(client, name, {PROCESS: process})
    _mlflow.create_run(client, "of a person", {})
    assert reconcile() == ["train-ffffffff"]
    assert client.get_run(find_run_id("f" * 64)).info.status == "KILLED"
    assert reconcile() == []
    assert sync_store()[0].startswith("0 records sent to sqlite:///")
