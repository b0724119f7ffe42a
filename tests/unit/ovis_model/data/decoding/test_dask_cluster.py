"""A real scheduler and real workers, each a process of its own, on the loopback interface."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovis_model.config import MediaLimits
from ovis_model.data.decoding.pool import open_decoders
from ovis_model.errors import ConfigError
from tests.support.decoder_tasks import TASKS

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from ovis_model.data.decoding.dask_cluster import DaskDecoders

ROOT = Path(__file__).parents[5]
LIMITS = MediaLimits(decode_seconds=20, decode_memory_gb=0.5)


class Cluster:
    """A scheduler and some workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        log = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._wait_for(log, r"Scheduler at:\s+(tcp://\S+)")

    def add_worker(self) -> "subprocess.Popen[bytes]":
        log = self._start(
            "worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny",
            "--no-dashboard", "--memory-limit", "0",
        )  # fmt: skip
        self._wait_for(log, r"Registered to:\s+(\S+)")
        return self._processes[-1]

    def _start(self, role: str, *arguments: str) -> Path:
        number = len(self._processes)
        log = self._folder / f"{number}.log"
        local = ["--local-directory", str(self._folder)] if role == "worker" else []
        with log.open("wb") as file:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", role, *arguments, *local],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    start_new_session=True,
                )
            )
        return log

    def _wait_for(self, log: Path, pattern: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if found := re.search(pattern, log.read_text(encoding="utf-8")):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(f"never said {pattern}: {log.read_text(encoding='utf-8')}")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    try:
        yield started
    finally:
        started.stop()


def test_the_workers_of_a_cluster_decode_and_the_order_stays(cluster: Cluster) -> None:
    workers = {cluster.add_worker().pid, cluster.add_worker().pid}
    requests = [{"path": f"{n}.png", "seconds": 0.01} for n in range(200)]
    requests[50]["how"] = "crash"
    with DaskDecoders(cluster.address, LIMITS, tasks=TASKS) as decoders:
        replies = list(decoders.run("echo", iter(requests)))
        assert [reply.value["path"] for reply in replies] == [r["path"] for r in requests]
        children = {reply.value["pid"] for reply in replies}
        assert {parent_of(pid) for pid in children} == workers  # one each, and for its life
        assert len(children) == len(workers)
        [_, reply] = decoders.run("misbehave", requests[49:51])
        assert (reply.problem, reply.detail.split(",")[0]) == (
            "decoder_crash",
            "50.png was too much for its decoder",
        )


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"PPid:\s+(\d+)", status)[1])


def test_a_worker_that_is_killed_loses_nothing(cluster: Cluster) -> None:
    doomed = cluster.add_worker()
    cluster.add_worker()
    requests = [{"path": str(n), "seconds": 0.02} for n in range(300)]
    paths, orphans = [], set()
    with DaskDecoders(cluster.address, LIMITS, tasks=TASKS) as decoders:
        for reply in decoders.run("echo", requests):
            paths.append(reply.value["path"])
            if len(paths) <= 60 and parent_of(reply.value["pid"]) == doomed.pid:
                orphans.add(reply.value["pid"])
            if len(paths) == 60:
                os.kill(doomed.pid, signal.SIGKILL)
    assert paths == [str(n) for n in range(300)]
    assert orphans
    assert not any(is_alive(pid) for pid in orphans)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody waited for yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_run_that_is_given_up_leaves_the_cluster_usable(cluster: Cluster) -> None:
    cluster.add_worker()
    endless = ({"path": str(n)} for n in iter(int, 1))
    with DaskDecoders(cluster.address, LIMITS, tasks=TASKS) as decoders:
        assert next(decoders.run("echo", endless)).value["path"] == "0"
        assert len(list(decoders.run("echo", [{"path": "a"}] * 20))) == 20


def test_a_cluster_without_workers_is_named(cluster: Cluster) -> None:
    decoders = DaskDecoders(cluster.address, LIMITS, connect_seconds=2)
    with pytest.raises(ConfigError, match="has no workers; start some with"), decoders:
        pass


def test_an_address_where_nobody_answers_is_named() -> None:
    decoders = DaskDecoders("tcp://127.0.0.1:9", LIMITS, connect_seconds=1)
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"),
        decoders,
    ):
        pass


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:8786", "http://127.0.0.1:8786"])
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="an address is written tcp://HOST:PORT"):
        DaskDecoders(address, LIMITS).__enter__()


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    decoders = open_decoders(LIMITS, workers=1, dask_scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"Dask is not installed.*-e \.\[dask\]"), decoders:
        pass
