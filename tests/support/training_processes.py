"""Trainings in one or two processes, forked from one that has imported everything already.

    run = start(world.write_job(max_steps=8), ranks=2, fault="kill@step.before_forward:5")
    assert run.wait() == [-9, -9]

Importing torch and DeepSpeed takes longer than a tiny training; forked processes begin with both.
"""

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ovis_model.training import faults

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["ovis_model.training.training", "ovis_model.training.__main__"])
#: A training that takes longer hangs.
WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Training:
    """One training, running or ended."""

    processes: list[ForkServerProcess]
    log: Path

    @property
    def output(self) -> str:
        """What all its processes have said."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def wait(self) -> list[int]:
        """Wait for the end and return the exit codes, by rank."""
        deadline = time.monotonic() + WAIT_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [process for process in self.processes if process.is_alive()]
        for process in hanging:
            os.kill(process.pid, signal.SIGUSR2)  # their stacks, into the log
        time.sleep(bool(hanging))
        for process in hanging:
            process.kill()
        assert not hanging, f"still running after {WAIT_SECONDS} s:\n{self.output}"
        return [process.exitcode for process in self.processes]

    def wait_for(self, condition, what: str) -> None:
        """Wait until something is true of a training that runs."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert any(process.is_alive() for process in self.processes), self.output
            assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
            time.sleep(0.01)


def start(job: Path, *, ranks: int = 1, fault: str | None = None) -> Training:
    """Start `python -m ovis_model.training JOB` in so many processes."""
    log = job.with_suffix(".log")
    log.unlink(missing_ok=True)
    variables = {
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if fault is not None:
        variables[faults.VARIABLE] = fault
    processes = [
        FORK.Process(target=_train, args=(str(job), str(log), {**variables, "RANK": str(rank)}))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return Training(processes, log)


def _train(job: str, log: str, variables: Mapping[str, str]) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    os.environ.pop(faults.VARIABLE, None)
    os.environ.update(variables, LOCAL_RANK=variables["RANK"])
    import torch  # noqa: PLC0415 - imported before the fork

    from ovis_model.training.__main__ import main  # noqa: PLC0415

    # One thread each: the same sums in the same order, and no fight for two cores.
    torch.set_num_threads(1)
    sys.exit(main([job]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
