"""Decoding strangers' files on a Dask cluster: the same children, one per worker thread.

The cluster spreads the work and replaces workers that die; the children protect the workers from
the files, so a hostile file costs a child, not a worker.  Workers need this project installed
and the data under the same path.
"""

import atexit
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Self

from ovis_model.config import MediaLimits
from ovis_model.data.decoding.pool import TASKS, DecoderPool, Reply
from ovis_model.errors import ConfigError, OvisError

#: Files sent at once: enough that Dask's work for a task (about a millisecond) does not matter,
#: little enough that a worker that dies takes little with it.
_CHUNK_SECONDS = 0.5
_MIN_CHUNK, _MAX_CHUNK = 1, 64
_FIRST_CHUNK = 8
#: Chunks under way for each thread of the cluster.
_CHUNKS_PER_THREAD = 3
#: How often a cluster is asked how large it is.
_RECOUNT_SECONDS = 5.0
_CONNECT_SECONDS = 30.0

#: What one chunk came to: (value, problem, detail) of each file, and how long it all took.
_Outcome = tuple[list[tuple[dict[str, Any] | None, str | None, str | None]], float]
#: What Dask can connect to; "host" and "host:port" alone are taken for other things.
_ADDRESS = re.compile(r"(?:tcp|tls|ucx|ws|wss)://[^/]+:\d+")


class DaskDecoders:
    """The workers of a Dask scheduler as decoders; a context manager.

    Attributes:
        address: Of the scheduler, such as "tcp://10.0.0.1:8786".
        limits: What one file may cost.
    """

    def __init__(
        self,
        address: str,
        limits: MediaLimits,
        *,
        tasks: Mapping[str, str] = TASKS,
        connect_seconds: float = _CONNECT_SECONDS,
    ) -> None:
        self.address = address
        self.limits = limits
        self._tasks = tasks
        self._connect_seconds = connect_seconds
        self._client: Any = None  # distributed has no types

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ConfigError: If Dask is not installed, no scheduler answers or it has no workers.
        """
        try:
            from distributed import Client  # noqa: PLC0415 - an extra, and takes a second
        except ImportError as error:
            raise ConfigError(
                f"dask_scheduler is {self.address!r}, but Dask is not installed here ({error}); "
                "install the extra: pip install -e .[dask]"
            ) from error
        if not _ADDRESS.fullmatch(self.address):
            # Dask would try for a minute.
            raise ConfigError(
                f"dask_scheduler is {self.address!r}; an address is written tcp://HOST:PORT"
            )
        try:
            connect: Any = Client
            client = connect(self.address, timeout=self._connect_seconds, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {self.address!r} ({error}); start one, fix "
                "dask_scheduler, or set it to null"
            ) from error
        try:
            client.wait_for_workers(1, timeout=self._connect_seconds)
        except TimeoutError as error:
            client.close()
            raise ConfigError(
                f"the Dask scheduler at {self.address!r} has no workers; start some with "
                "`dask worker ADDRESS`, or set dask_scheduler to null"
            ) from error
        self._client = client
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def run(self, task: str, requests: Iterable[Mapping[str, Any]]) -> Iterator[Reply]:
        """Do a task for each request; see `ovis_model.data.decoding.pool.Decoders.run`.

        Raises:
            ValueError: If there is no such task, or the cluster is not connected.
            OvisError: If the cluster gives up.
        """
        if task not in self._tasks:
            raise ValueError(f"no decoder task {task!r}; there are {', '.join(self._tasks)}")
        if self._client is None:
            raise ValueError("not connected; use `with DaskDecoders(...) as decoders:`")
        return self._run(self._client, task, iter(requests))

    def _run(
        self, client: Any, task: str, requests: Iterator[Mapping[str, Any]]
    ) -> Iterator[Reply]:
        under_way: deque[Any] = deque()
        size, room, counted = _FIRST_CHUNK, 0, -_RECOUNT_SECONDS
        limits, tasks = self.limits.model_dump_json(), dict(self._tasks)
        try:
            while True:
                if time.monotonic() - counted > _RECOUNT_SECONDS:
                    room = _CHUNKS_PER_THREAD * max(1, sum(client.nthreads().values()))
                    counted = time.monotonic()
                while len(under_way) < room and (chunk := list(islice(requests, size))):
                    # Not pure: a file may have changed since the same question was asked.
                    under_way.append(
                        client.submit(_decode_chunk, task, chunk, limits, tasks, pure=False)
                    )
                if not under_way:
                    return
                replies, seconds = self._result(under_way.popleft())
                pace = seconds / len(replies)
                size = max(_MIN_CHUNK, min(_MAX_CHUNK, round(_CHUNK_SECONDS / max(pace, 1e-6))))
                for reply in replies:
                    yield Reply(*reply)
        finally:
            client.cancel(list(under_way))

    def _result(self, future: Any) -> _Outcome:
        from distributed import CancelledError, KilledWorker  # noqa: PLC0415 - see above

        try:
            outcome: _Outcome = future.result()
        except (KilledWorker, CancelledError, OSError) as error:
            raise OvisError(
                f"the Dask cluster at {self.address!r} gave up: {error}. Look at the logs of its "
                "workers, or set dask_scheduler to null"
            ) from error
        return outcome


# ---- on a worker ----------------------------------------------------------------------------

#: Pools nobody uses at the moment, by limits and tasks.  One per thread comes to be, and stays.
_idle: dict[str, list[DecoderPool]] = {}
_idle_lock = threading.Lock()


def _decode_chunk(
    task: str, requests: list[Mapping[str, Any]], limits: str, tasks: Mapping[str, str]
) -> _Outcome:
    began = time.monotonic()
    key = json.dumps([limits, tasks], sort_keys=True)
    with _idle_lock:
        pools = _idle.setdefault(key, [])
        pool = pools.pop() if pools else None
    if pool is None:
        pool = DecoderPool(MediaLimits.model_validate_json(limits), workers=1, tasks=tasks)
        # The kernel ends the children of a worker that is killed; this is for one that leaves.
        atexit.register(pool.close)
    try:
        replies = [
            (reply.value, reply.problem, reply.detail) for reply in pool.run(task, requests)
        ]
    finally:
        with _idle_lock:
            pools.append(pool)
    return replies, time.monotonic() - began
