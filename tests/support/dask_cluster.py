"""A Dask cluster for tests: a real scheduler and real workers, each a process, on loopback."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
