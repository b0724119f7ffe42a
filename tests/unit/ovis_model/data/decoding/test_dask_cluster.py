"""A real scheduler and real workers, each a process of its own, on the loopback interface."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovis_model.config import MediaLimits
from ovis_model.data.decoding.pool import open_decoders
from ovis_model.errors import ConfigError
from tests.support.dask_cluster import Cluster
from tests.support.decoder_tasks import TASKS

pytest.importorskip("distributed", reason="the extra `dask` is not installed")

from ovis_model.data.decoding.dask_cluster import DaskDecoders

LIMITS = MediaLimits(decode_seconds=20, decode_memory_gb=0.5)


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
