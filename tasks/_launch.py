"""Start training under torchrun and look after it: its output, its metrics, its end."""

import fcntl
import json
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ovis_model.errors import StageError, StageStopped
from ovis_model.training import exit_codes
from tasks import _processes
from tasks._nodes import LOOPBACK, Node
from tasks.masking import masked_bytes

#: How long a trainer whose parent was killed may take to end before we give up on its lock.
LOCK_SECONDS = 45.0
#: What training has to save its step: the 30 s that torchrun gives its workers, and its own end.
GRACE_SECONDS = 35.0
ALONE = Node()
#: How torchrun begins to tell of a worker that failed, and ends when it was itself stopped.
VERDICT = re.compile(rb"failed \(exitcode: (-?\d+)\)(?: local_rank: (\d+))?")
STOPPED = re.compile(rb"SignalException: Process \d+ got signal: (\d+)")


def run_training(  # noqa: PLR0913 - all by name
    job: Path,
    *,
    nproc_per_node: int,
    metrics_log: Path,
    on_metrics: Callable[[dict[str, float]], None],
    lock: Path,
    node: Node = ALONE,
) -> None:
    """Train in processes of their own and return when they have ended.

    Args:
        job: JSON file that `python -m ovis_model.training` takes as its only argument:
            torchrun swallows options that begin like its own.
        nproc_per_node: Processes to start on this machine.
        metrics_log: File to which training appends one JSON object per logged step.
        on_metrics: Called with each of them while training runs.
        lock: File held while anything may write the outputs of this training.
        node: This machine among those that train together.

    Raises:
        StageError: If training ends with an error or another one holds the lock.
        StageStopped: If it was asked to stop, and has saved its step.
    """
    metrics_log.parent.mkdir(parents=True, exist_ok=True)
    # What an attempt that was killed said last, and nobody heard.
    Tail(metrics_log, on_metrics).poll()
    metrics_log.unlink(missing_ok=True)  # a live channel, not a record
    metrics, screen = Tail(metrics_log, on_metrics), Screen()
    with exclusive(lock) as descriptor:
        try:
            _processes.run(
                torchrun(job, nproc_per_node=nproc_per_node, node=node),
                on_output=screen.show,
                on_tick=metrics.poll,
                env=environment(nproc_per_node, node=node),
                # An orphan keeps the lock: nobody else writes while it still might.
                keep_open=[descriptor],
                grace_seconds=GRACE_SECONDS,
            )
        except StageError as error:
            raise screen.explain(error) from error
        finally:
            screen.finish()


def torchrun(job: Path, *, nproc_per_node: int, node: Node = ALONE) -> list[str]:
    """Return the command; workers die with torchrun, also when it is killed."""
    port = free_port() if node.port is None else node.port
    worker = [sys.executable, "-m", "ovis_model.training", str(job)]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", str(node.count), "--node-rank", str(node.number)),
        *("--nproc-per-node", str(nproc_per_node)),
        *("--master-addr", node.address, "--master-port", str(port)),
        "--no-python",
        *_processes.tied(worker, on_death=signal.SIGKILL),
    ]


def environment(nproc_per_node: int, *, node: Node = ALONE) -> dict[str, str]:
    """Return the environment of the processes; what the user exported wins."""
    cores = len(os.sched_getaffinity(0))
    defaults = {
        # torchrun would set 1, and two threads that spin while they wait take each other's core.
        "OMP_NUM_THREADS": str(max(1, cores // nproc_per_node)),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if node.is_alone:
        # Gloo need not look for a network, nor resolve this machine's name.
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    return {**defaults, **os.environ}


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Screen:
    """Shows what training says, and leaves out what torchrun adds when a worker fails.

    That is some thirty lines of traceback, of torchrun's own code, below the one that matters.

    Attributes:
        tail: The end of what was shown.
        exit_code: Of the first worker that failed, or None.
        process: Which one that was, or None.
    """

    def __init__(self) -> None:
        self.tail: deque[bytes] = deque()
        self.exit_code: int | None = None
        self.process: int | None = None
        self._rest = b""

    def show(self, piece: bytes) -> None:
        """Pass on the next piece of output."""
        if self.exit_code is not None:
            return
        if verdict := VERDICT.search(piece):
            self.exit_code = int(verdict[1])
            self.process = None if verdict[2] is None else int(verdict[2])
            piece = piece[: piece.rfind(b"\n", 0, verdict.start()) + 1]
        _processes.keep_end(self.tail, piece)
        self._rest += piece
        # Whole lines and states of a progress bar: half a secret could not be masked.
        end = 1 + max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r"))
        whole, self._rest = self._rest[:end], self._rest[end:]
        self._write(whole)

    def finish(self) -> None:
        """Show what came after the last line end."""
        self._write(self._rest)
        self._rest = b""

    @staticmethod
    def _write(output: bytes) -> None:
        sys.stdout.buffer.write(masked_bytes(output))
        sys.stdout.buffer.flush()

    def explain(self, error: StageError) -> StageError:
        """Say how training ended, from what was shown; of what tells nothing, the error itself."""
        stopped = STOPPED.search(b"".join(self.tail))
        if stopped or self.exit_code == exit_codes.STOPPED:
            by = f" by {signal.Signals(int(stopped[1])).name}" if stopped else ""
            return StageStopped(
                f"training was stopped{by}; run it again, and it goes on from its last checkpoint"
            )
        if self.exit_code is None:
            return error
        who = "training" if self.process is None else f"process {self.process} of the training"
        how = _processes.describe_exit(self.exit_code)
        return StageError(f"{who} {how}. Its last lines:\n{_processes.last_lines(self.tail)}")


class Tail:
    """Reads the objects appended to a JSONL file since the last look."""

    def __init__(self, path: Path, on_record: Callable[[dict[str, float]], None]) -> None:
        self._path = path
        self._on_record = on_record
        self._offset = 0

    def poll(self) -> None:
        """Hand on every complete new line."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._offset += len(line)
                self._on_record(json.loads(line))


@contextmanager
def exclusive(path: Path, *, wait_seconds: float = LOCK_SECONDS) -> Iterator[int]:
    """Hold a file's lock, and write into it who does.

    Yields:
        The descriptor; a process that inherits it shares the lock.

    Raises:
        StageError: If somebody else holds it for longer than `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        _acquire(file.fileno(), path, time.monotonic() + wait_seconds)
        file.truncate(0)
        file.write(f"process {os.getpid()} ({' '.join(sys.argv)})")
        file.flush()
        yield file.fileno()


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                holder = path.read_text(encoding="utf-8").strip() or "an unknown process"
                raise StageError(
                    f"{path} is held by {holder}: another training writes here. Wait for it, or "
                    "stop it, and run again"
                ) from error
            time.sleep(_processes.POLL_SECONDS)
        else:
            return
