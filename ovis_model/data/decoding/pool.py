"""Decoding strangers' files in processes that may hang, crash or eat memory without harm.

Not `multiprocessing`: its results are pickles, made by a process that decodes hostile files,
and unpickling runs code.  Here a child (`ovis_model.data.decoding.child`) answers in JSON, one
line per file, so that its parent knows which file it hangs or dies at; that file is given a
reason code, a new child takes over the rest.  Needs Linux.
"""

import json
import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from ovis_model.config import MediaLimits
from ovis_model.data.decoding.process import DecoderProcess, Reply, Work
from ovis_model.errors import ConfigError, OvisError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["TASKS", "DecoderPool", "Decoders", "Reply", "open_decoders"]

#: What a child can be asked to do, as "module:function"; each takes and returns a JSON object.
TASKS: Mapping[str, str] = {
    "inspect": "ovis_model.data.checks.inspection:inspect",
    "extract": "ovis_model.data.picture_store:extract_file",
}
#: Work a child has ahead of it, in seconds and in files: enough not to wait for its parent,
#: little enough that no child is left with a queue when the others are done.
_QUEUE_SECONDS = 0.05
_MAX_QUEUE = 256
#: Files that may be under way or answered before the first of them is: one file that hangs must
#: not hold up the others, and a million answers must not pile up.
_WINDOW = 8192
#: Answers come in this often, together, instead of waking this process for each.
_GATHER_SECONDS = 0.002
#: Weight of each new observation of how long a file takes, and how many kinds are told apart.
_SMOOTHING = 0.2
_MAX_KINDS = 100
#: Starting and importing, on a machine that is busy with other things.
_START_SECONDS = 120.0


class Decoders(Protocol):
    """Something that does a task for each of many files, elsewhere."""

    def run(self, task: str, requests: Iterable[Mapping[str, Any]]) -> Iterator[Reply]:
        """Do a task for each request.

        Args:
            task: One of `TASKS`.
            requests: JSON objects; read as they are needed. "path" names the file in messages.

        Returns:
            One reply per request, lazily and in their order.
        """
        ...


def open_decoders(
    limits: MediaLimits, *, workers: int, dask_scheduler: str | None = None
) -> "AbstractContextManager[Decoders]":
    """Choose where files are decoded: in child processes here, or by a Dask cluster.

    Args:
        limits: What one file may cost.
        workers: Child processes; on a cluster each worker has one, however many there are.
        dask_scheduler: Address of a scheduler, or None.

    Raises:
        ConfigError: If Dask is not installed or the scheduler does not answer.
    """
    if dask_scheduler is None:
        return DecoderPool(limits, workers=workers)
    from ovis_model.data.decoding.dask_cluster import DaskDecoders  # noqa: PLC0415 - most need no Dask

    return DaskDecoders(dask_scheduler, limits)


class DecoderPool:
    """A few child processes that decode files; a context manager.

    Attributes:
        limits: What one file may cost.
        workers: How many children there may be; they start as there is work.
        children: Those there are.
    """

    def __init__(
        self, limits: MediaLimits, *, workers: int, tasks: Mapping[str, str] = TASKS
    ) -> None:
        self.limits = limits
        self.workers = workers
        self.children: list[DecoderProcess] = []
        self._tasks = tasks
        self.pace = _Pace()
        self._is_running = False
        self._selector = selectors.DefaultSelector()
        # The kernel ends a child when the thread that started it ends, so one thread of the
        # pool's own starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all children."""
        self._end_children()
        self._starter.shutdown()
        self._selector.close()

    def run(self, task: str, requests: Iterable[Mapping[str, Any]]) -> Iterator[Reply]:
        """Do a task for each request; see `Decoders.run`.

        A file that hangs gets "decoder_timeout", one that ends its child "decoder_crash" or
        "decoder_memory"; neither is tried again.  Closing the iterator ends what is under way.

        Raises:
            ValueError: If there is no such task, or an earlier run is not over.
            ConfigError: If the children do not start.
            OvisError: If this machine is in trouble (a full disk, say), not a file.
        """
        if task not in self._tasks:
            raise ValueError(f"no decoder task {task!r}; there are {', '.join(self._tasks)}")
        return self._run(self._tasks[task], requests)

    def _run(self, task: str, requests: Iterable[Mapping[str, Any]]) -> Iterator[Reply]:
        if self._is_running:
            raise ValueError("a pool does one run at a time; finish or close the earlier one")
        self._is_running = True
        run = _Run(self, task, requests)
        try:
            yield from run.replies()
        finally:
            self._is_running = False
            if not run.is_over:  # what the children still do is of no use
                self._end_children()

    def start_child(self) -> DecoderProcess:
        """Start one more child."""
        memory = int(self.limits.decode_memory_gb * 2**30)
        started = self._starter.submit(DecoderProcess, self._selector, memory_bytes=memory)
        self.children.append(started.result())
        return self.children[-1]

    def end_child(self, child: DecoderProcess) -> None:
        """End one child, whatever it is doing."""
        self.children.remove(child)
        child.end()

    def _end_children(self) -> None:
        for child in tuple(self.children):
            self.end_child(child)

    def wait(self, seconds: float) -> None:
        """Wait until a child has something to say or to take, or the time is over."""
        if any(len(child.queue) > 1 for child in self.children):
            time.sleep(_GATHER_SECONDS)
        self._selector.select(max(0.0, seconds))


class _Pace:
    """How long a file of each kind takes, of late; its name's ending tells the kind."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def of(self, work: Iterable[Work]) -> float:
        """Estimate how long some work takes, in seconds."""
        return sum(self._seconds.get(each.kind, _QUEUE_SECONDS) for each in work)

    def note(self, done: Sequence[Work], seconds: float) -> None:
        """Learn from work that was done in so many seconds together."""
        kind = done[0].kind
        if all(each.kind == kind for each in done):
            old = self._seconds.get(kind, _QUEUE_SECONDS)
            if kind in self._seconds or len(self._seconds) < _MAX_KINDS:
                self._seconds[kind] = old + _SMOOTHING * (seconds / len(done) - old)


class _Run:
    """One pass over many requests: who does what, and what came of it."""

    def __init__(
        self, pool: DecoderPool, task: str, requests: Iterable[Mapping[str, Any]]
    ) -> None:
        self._pool = pool
        self._task = task
        self._requests = iter(requests)
        self._again: deque[Work] = deque()  # what a dead child had before it
        self._replies: dict[int, Reply] = {}  # those that wait for an earlier one
        self._is_exhausted = False
        self._num_taken = 0
        self._num_given = 0

    @property
    def is_over(self) -> bool:
        """Whether every request has its reply."""
        return self._is_exhausted and self._num_taken == self._num_given

    def replies(self) -> Iterator[Reply]:
        """Yield the replies in the order of the requests."""
        while True:
            self._hand_out()
            while self._num_given in self._replies:
                reply = self._replies.pop(self._num_given)
                self._num_given += 1
                yield reply
            if self.is_over:
                return
            if self._num_taken == self._num_given:
                continue
            self._pool.wait(self._seconds_left())
            for child in tuple(self._pool.children):
                self._attend(child)

    def _hand_out(self) -> None:
        """Fill the children's queues, and start children while there is more to do."""
        pool = self._pool
        for child in pool.children:
            self._fill(child)
        while len(pool.children) < pool.workers and (work := self._next()):
            self._again.appendleft(work)
            self._fill(pool.start_child())

    def _fill(self, child: DecoderProcess) -> None:
        child.prepare(self._task)
        pace = self._pool.pace
        seconds = pace.of(child.queue)
        while len(child.queue) < _MAX_QUEUE and (work := self._next()):
            seconds += pace.of((work,))
            if child.queue and seconds > _QUEUE_SECONDS:
                self._again.appendleft(work)
                break
            child.give(work)
        child.send()

    def _next(self) -> Work | None:
        if self._again:
            return self._again.popleft()
        if self._num_taken - self._num_given >= _WINDOW:
            return None
        for request in self._requests:
            self._num_taken += 1
            return Work.of(self._num_taken - 1, request)
        self._is_exhausted = True
        return None

    def _seconds_left(self) -> float:
        """Tell how long the child that is nearest to its limit still has."""
        now = time.monotonic()
        return min((self._limit(child) - now for child in self._pool.children), default=0.0)

    def _limit(self, child: DecoderProcess) -> float:
        """Tell when a child will have taken too long."""
        if not child.ready:
            return child.since + _START_SECONDS
        return child.since + self._pool.limits.decode_seconds if child.queue else float("inf")

    def _attend(self, child: DecoderProcess) -> None:
        """Take a child's answers, and replace it if it is dead, hangs or talks nonsense."""
        began, queue = child.since, tuple(child.queue)
        try:
            for line in child.receive():
                self._take(child, line)
                if child not in self._pool.children:
                    return
        except (ValueError, RecursionError) as error:
            self._blame(child, "decoder_crash", f"made its decoder answer nonsense: {error}")
            return
        if num_done := len(queue) - len(child.queue):
            child.since = time.monotonic()
            self._pool.pace.note(queue[:num_done], child.since - began)
        if child.ended:
            problem, words = child.cause_of_death()
            self._blame(child, problem, f"was too much for its decoder, which {words}")
        elif self._limit(child) < time.monotonic():
            seconds = self._pool.limits.decode_seconds
            words = f"was not decoded within {seconds:g} s; convert it, or raise decode_seconds"
            self._blame(child, "decoder_timeout", words)

    def _take(self, child: DecoderProcess, line: bytes) -> None:
        """Take one answer.

        Raises:
            ValueError: If it is none.
        """
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("not an object")  # noqa: TRY004 - of the child's type, not ours
        if isinstance(answer.get("fatal"), str):
            self._stop(child, answer["fatal"])
        if not child.ready:
            if answer.get("ready") == self._task:  # not the one an earlier run had it load
                child.ready, child.since = True, time.monotonic()
            return
        if not child.queue:
            raise ValueError("an answer that nobody asked for")
        reply = _reply(child.queue[0], answer)
        if reply.problem == "decoder_memory":  # who knows what it left half done
            self._blame(child, reply.problem, "needs more memory than decode_memory_gb allows")
            return
        self._replies[child.queue.popleft().index] = reply

    def _blame(self, child: DecoderProcess, problem: str, words: str) -> None:
        """Give up the file a child is at, and the child; the rest of its queue is kept."""
        if not child.ready:
            self._stop(child, child.last_words or words)
        if child.queue:
            work = child.queue.popleft()
            detail = work.without_root(f"{work.subject} {words}")
            self._replies[work.index] = Reply(None, problem, detail)
        self._again.extendleft(reversed(child.queue))
        self._pool.end_child(child)

    @staticmethod
    def _stop(child: DecoderProcess, words: str) -> NoReturn:
        """Stop the run: no file is to blame.

        Raises:
            ConfigError: If the child cannot start.
            OvisError: If it got into trouble at a file.
        """
        if not child.ready:
            raise ConfigError(
                f"the decoding process does not start: {words}. If memory is short, raise "
                "decode_memory_gb"
            )
        raise OvisError(f"decoding {child.queue[0].subject if child.queue else ''}: {words}")


def _reply(work: Work, answer: Mapping[str, Any]) -> Reply:
    value, problem, detail = (answer.get(key) for key in ("value", "problem", "detail"))
    if isinstance(value, dict) and problem is None:
        return Reply(value)
    if not isinstance(problem, str) or not isinstance(detail, str | None):
        raise ValueError("neither a value nor a problem")  # noqa: TRY004 - as above
    return Reply(None, problem, None if detail is None else work.without_root(detail))
