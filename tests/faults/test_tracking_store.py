"""A store in a file that is locked, damaged, not writable or not ours to read; dead writers."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import traceback
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ovis_model.errors import ConfigError, UnavailableError
from tasks import _mlflow
from tasks._mlflow import StoreUnavailable, find_run_id, setup
from tasks._process_identity import process_identity
from tasks.tracking.attachments import attach
from tasks.tracking.delivery import OPENED_BY, Delivery
from tasks.tracking.facts import PROCESS
from tasks.tracking.replay import reconcile, sync_store
from tasks.tracking.runs import start_or_find_run
from tasks.tracking.session import RunLogger, Session
from tasks.tracking.spool import REFUSED, SPOOL, Spool, left_behind

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


@contextmanager
def delivering(what="dead"):
    """A session and what sends it, step by step; it ends as if its process died."""
    uri = setup()
    client = _mlflow.MlflowClient(uri)
    with Spool.begin(what) as spool:
        yield Session(spool), Delivery(client, spool, uri), client


def refused():
    return REFUSED.read_text(encoding="utf-8").splitlines()


def test_a_run_that_was_deleted_after_its_process_died_blocks_nobody():
    with delivering() as (session, delivery, client):
        run = session.open("a" * 64, name="dead", how="continue")
        delivery.advance()
        client.delete_run(run.run_id)
    assert sync_store()[0].startswith("0 records sent")
    (line,) = refused()
    assert "must be in the 'active' state" in line
    assert left_behind() == []


def test_a_run_that_was_refused_blocks_nobody_either():
    with delivering() as (session, _, _):
        lost = RunLogger(session, "0" * 64)
        session.open("b" * 64, name="child of none", how="continue", parent=lost)
    sync_store()
    assert len(refused()) == 2
    assert left_behind() == []


def test_refused_numbers_are_refused_once():
    with delivering() as (session, delivery, _):
        RunLogger(session, "0" * 64).log_metrics({"loss": 1.0})
        delivery.advance()
        delivery.advance()
        assert session.spool.count() == 0
    assert len(refused()) == 1


def test_a_run_made_for_results_is_ended_also_when_its_making_was_interrupted():
    with delivering() as (session, delivery, client):
        run = session.open("c" * 64, name="results", how="attach")
        (record,) = session.spool.all()
        made = _mlflow.create_run(client, "results", {OPENED_BY: record["key"]})
        delivery.advance()
        assert run.run_id == made.info.run_id
        assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_file_that_cannot_be_sent_now_does_not_keep_others_from_the_store(tmp_path, caplog):
    with delivering("first") as (session, delivery, client):
        run = session.open("d" * 64, name="first", how="continue")
        delivery.advance()
        place = Path(client.get_run(run.run_id).info.artifact_uri.removeprefix("file://")).parent
        place.parent.mkdir(exist_ok=True)
        place.touch()  # where its folder would be
        run.log_text("a report", "report.txt")
    with delivering("second") as (session, _, _):
        session.open("e" * 64, name="second", how="continue").close("FINISHED")
    with pytest.raises(StoreUnavailable):
        sync_store()
    assert find_run_id("e" * 64)
    assert [spool.folder.name.split("-")[1] for spool in left_behind()] == ["first"]
    assert "-first-" in caplog.text
    assert "stays for now" in caplog.text
    with start_or_find_run("f" * 64) as run:  # nor a step that begins
        pass
    assert run.run_id
    place.unlink()
    sync_store()
    assert left_behind() == []


def test_a_file_that_is_refused_is_kept():
    with delivering() as (session, _, _):
        RunLogger(session, "0" * 64).log_text("a report", "report.txt")
    sync_store()
    place = json.loads(refused()[0])["place"]
    assert Path(place).read_text(encoding="utf-8") == "a report"
    assert left_behind() == []


@pytest.fixture
def answering():
    """An HTTP server that answers what `server.status` says to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["server", "bucket"])
def test_a_store_of_files_refuses_or_is_away(answering, kind, monkeypatch):
    address = f"http://127.0.0.1:{answering.server_port}"
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = _mlflow.MlflowClient(setup())
    place = "s3://bucket/files" if kind == "bucket" else f"{address}/files"
    run_id = client.create_run(client.create_experiment("elsewhere", place)).info.run_id
    path = Path("report.txt")
    path.write_text("a report", encoding="utf-8")
    for status in (400, 403, 413):
        answering.status = status
        with pytest.raises(_mlflow.MlflowException, match=r"report.txt was not taken") as error:
            attach(client, run_id, path, None)
        assert error.value.error_code in _mlflow.REFUSALS
    answering.status = 503
    with pytest.raises(OSError, match=r"report.txt was not taken"):
        attach(client, run_id, path, None)
    answering.shutdown()
    answering.server_close()
    with pytest.raises(OSError, match=r"report.txt was not taken"):
        attach(client, run_id, path, None)
    path.unlink()
    with pytest.raises(_mlflow.MlflowException, match=r"report.txt, is gone"):
        attach(client, run_id, path, None)


def test_requests_are_hurried_only_while_records_are_sent(monkeypatch):
    for name in _mlflow.IMPATIENCE:
        monkeypatch.delenv(name, raising=False)
    with start_or_find_run("a" * 64) as run, _mlflow.patient():
        run.log_metrics({"loss": 1.0})
        assert not set(_mlflow.IMPATIENCE) & set(os.environ)


def test_a_database_that_accepts_and_hangs_up_is_away(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"postgresql+psycopg2://me:secret@127.0.0.1:{listener.getsockname()[1]}/x"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        hang_up = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in "ab"])
        hang_up.start()
        with pytest.raises(StoreUnavailable, match=r"store postgresql.*\*\*\*@.*cannot be used"):
            setup()
        hang_up.join()


@pytest.mark.parametrize("password", ["hid#den", "hid/den", "hid?den"])
def test_an_address_that_cannot_be_read_is_told_without_the_password(monkeypatch, password):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://me:{password}@db/x")
    with pytest.raises(ConfigError, match=r"is no address\. .* write # as %23") as error:
        setup()
    assert "hid" not in "".join(traceback.format_exception(error.value))
