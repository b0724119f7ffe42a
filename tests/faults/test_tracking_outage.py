"""A store that is away, slow, failing or forgetful: work goes on, nothing is lost or doubled."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import _mlflow
from tasks._launch import free_port
from tasks._mlflow import StoreUnavailable, find_run_id
from tasks.params import Params
from tasks.tracking import session, steps
from tasks.tracking.replay import sync_store
from tasks.tracking.runs import log_results, start_or_find_run
from tasks.tracking.spool import SPOOL, left_behind
from tests.support.stores import serving
from tests.support.unreliable_network import (
    FAILING,
    LOSING,
    REFUSING,
    SILENT,
    WHOLE,
    unreliable_network,
)

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 120


def wait_until(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of a real MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving(command, folder / "log", f"http://127.0.0.1:{port}/health", **quiet):
        yield port


@pytest.fixture
def network(server, tmp_path, monkeypatch):
    """A working tree whose store is the server, behind a network that can break."""
    with unreliable_network(server) as way:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", way.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setattr(session, "FIRST_PAUSE", 0.2)
        yield way


def history(network, digest, key="loss"):
    network.state = WHOLE
    client = _mlflow.MlflowClient(network.url)
    return [(p.step, p.value) for p in client.get_metric_history(find_run_id(digest), key)]


def number_of_runs(network, digest):
    client = _mlflow.MlflowClient(network.url)
    experiment = client.get_experiment_by_name(_mlflow.EXPERIMENT).experiment_id
    return len(client.search_runs([experiment], f"tags.`ovis.inputs_digest` = '{digest}'"))


def test_a_server_that_is_away_from_the_start_gets_everything_later(network, caplog):
    network.state = REFUSING
    Path("report.json").write_text('{"loss": 1}', encoding="utf-8")
    with start_or_find_run("a" * 64, params={"seed": 1}) as run:
        for step in range(1, 4):
            run.log_metrics({"loss": 1 / step}, step=step)
        run.log_dataset_digest("extracted", "ab" * 32)
        run.log_artifact(Path("report.json"))
    Path("report.json").unlink()
    log_results("a" * 64, {"score": 90.0}, [])
    assert "Work goes on; its record waits in .mlflow/spool" in caplog.text
    assert "records wait in .mlflow/spool: the next step sends them, or `ovis sync`" in caplog.text
    assert len(left_behind()) == 2

    network.state = WHOLE
    said = sync_store()
    assert said[0].endswith(f" records sent to {network.url}")
    assert list(SPOOL.iterdir()) == []
    assert history(network, "a" * 64) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    client = _mlflow.MlflowClient(network.url)
    found = client.get_run(find_run_id("a" * 64))
    assert (found.info.status, found.data.params) == ("FINISHED", {"seed": "1"})
    assert found.data.metrics["score"] == 90.0
    assert found.inputs.dataset_inputs[0].dataset.name == "extracted"
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["report.json"]
    assert sync_store() == [f"0 records sent to {network.url}"]


@pytest.mark.parametrize("state", [REFUSING, FAILING, SILENT, LOSING])
def test_an_outage_amid_a_training_loses_and_doubles_nothing(network, state):
    digest = f"outage-{state}".ljust(64, "0")
    with start_or_find_run(digest, params={"seed": 1}) as run:
        run.log_metrics({"loss": 3.0}, step=1)
        wait_until(lambda: run._session.spool.count() == 0, "the first metrics at the server")
        network.state = state
        for step in range(2, 6):
            run.log_metrics({"loss": 3.0 / step}, step=step)
            time.sleep(0.3)  # some requests meet the outage
        network.state = WHOLE
        run.log_metrics({"loss": 0.5}, step=6)
    sync_store()
    steps = [1, 2, 3, 4, 5, 6]
    assert history(network, digest) == [(s, 0.5 if s == 6 else 3.0 / s) for s in steps]
    assert number_of_runs(network, digest) == 1


def test_a_run_that_the_server_began_without_our_hearing_of_it_is_not_begun_twice(network):
    network.state = LOSING
    with start_or_find_run("b" * 64) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert run.run_id is None
    for state in (LOSING, WHOLE):
        network.state = state
        try:
            sync_store()
        except StoreUnavailable:
            assert state == LOSING
    assert history(network, "b" * 64) == [(1, 1.0)]
    assert number_of_runs(network, "b" * 64) == 1


KILLED = """
import os, signal
from tasks.tracking.runs import start_or_find_run
with start_or_find_run("k" * 64) as run:
    for step in range(1, 4):
        run.log_metrics({"loss": float(step)}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_said_is_sent_and_its_run_continued_by_the_next(network):
    network.state = REFUSING
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    (spool,) = left_behind()
    with (spool.folder / "records.jsonl").open("a", encoding="utf-8") as records:
        records.write('{"do": "metrics", "run": "kk')  # as a power cut tears a line
    network.state = WHOLE
    sync_store()
    client = _mlflow.MlflowClient(network.url)
    first = client.get_run(find_run_id("k" * 64))
    assert first.info.status == "KILLED"

    with start_or_find_run("k" * 64) as run:
        for step in range(3, 5):  # resumed from the checkpoint of step 2
            run.log_metrics({"loss": float(step)}, step=step)
    assert run.run_id == first.info.run_id
    assert history(network, "k" * 64) == [(step, float(step)) for step in range(1, 5)]
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_what_waits_for_another_store_is_not_sent_here(network, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with start_or_find_run("c" * 64):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", network.url)
    said = sync_store()
    assert said[-1] == "still in .mlflow/spool: 1 of running processes or for another store"
    assert find_run_id("c" * 64) is None


def test_settings_beyond_mlflows_limits_and_numbers_that_are_none_reach_a_server(network):
    params = {f"key_{n}": n for n in range(300)} | {"long": "x" * 7000, "odd name!": 1}
    with start_or_find_run("d" * 64, params=params) as run:
        run.log_metrics({"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")})
    client = _mlflow.MlflowClient(network.url)
    found = client.get_run(run.run_id)
    assert len(found.data.params) == 302
    assert found.data.params["long"].endswith("... (cut; the whole is in settings.json)")
    whole = client.download_artifacts(run.run_id, "settings.json", str(Path.cwd()))
    assert "x" * 7000 in Path(whole).read_text(encoding="utf-8")
    metrics = found.data.metrics
    assert metrics["nan"] != metrics["nan"]
    assert (metrics["inf"], metrics["-inf"]) == (sys.float_info.max, -sys.float_info.max)


def test_registering_waits_for_the_store_and_then_says_so(network, monkeypatch):
    monkeypatch.setattr(steps, "WAIT_SECONDS", 1.5)
    network.state = FAILING
    params = Params.read(ROOT / "params.yaml")
    began = []
    with (
        pytest.raises(StoreUnavailable, match=r"store http://127.* cannot be used: .*500"),
        steps.track("register", params),
    ):
        began.append("work")
    assert began == []
    assert left_behind() == []


def test_a_record_the_server_will_never_take_is_put_aside_and_the_rest_sent(network):
    with start_or_find_run("e" * 64) as run:
        wait_until(lambda: run.run_id, "the run")
        run.log_metrics({"loss": 1.0}, step=1)
        client = _mlflow.MlflowClient(network.url)
        client.delete_run(run.run_id)
        run.log_metrics({"loss": 2.0}, step=2)
    assert "must be in the 'active' state" in (SPOOL / "refused.jsonl").read_text()
    assert left_behind() == []
