"""What a piece of work costs, and how busy the machine is meanwhile.

    cost.wall_seconds      of this attempt
    cost.cpu_seconds       of this process and of its children that have ended
    cost.gpu_seconds       wall time, times the GPUs of this machine that it may use
    cost.cpu_joules        what the processor packages took, whoever used them (RAPL)
    cost.gpu_joules        what those GPUs took, whoever used them (NVML)
    system/...             load, memory, disk, network and GPUs, every ten seconds

The step of all of them is a time, in seconds since 1970: attempts stand beside each other.
What cannot be read is not logged, and tag `ovis.not_measured` says why.
"""

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks._mlflow import BaseMetricsMonitor, CPUMonitor, DiskMonitor, GPUMonitor, NetworkMonitor
from tasks.tracking.gpus import Gpus
from tasks.tracking.session import RunLogger

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 10.0
NOT_MEASURED, GPUS = "ovis.not_measured", "ovis.gpus"


@contextmanager
def metered(run: RunLogger, *, sample_seconds: float = SAMPLE_SECONDS) -> Iterator[None]:
    """Log what the block costs, also if it fails, and the load of the machine meanwhile."""
    start = int(time.time())
    meter, done = Meter(), threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(run, meter, done, sample_seconds), name="load", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        run.log_metrics(meter.read(), step=start, once=False)
        missing = [one for one in (meter.gpus.problem, *meter.missing) if one]
        tags = {NOT_MEASURED: "; ".join(missing) or "nothing"}
        if meter.gpus.names:
            tags[GPUS] = ", ".join(meter.gpus.names)
        run.set_tags(tags)


def _watch(run: RunLogger, meter: "Meter", done: threading.Event, seconds: float) -> None:
    kinds: list[type[BaseMetricsMonitor]] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    if meter.gpus.joules() is not None:
        kinds.append(GPUMonitor)
    monitors = {kind: kind() for kind in kinds}
    while not done.wait(seconds):
        load: dict[str, float] = {}
        for kind, monitor in list(monitors.items()):
            try:
                monitor.collect_metrics()
            except OSError as error:
                meter.missing.append(f"{kind.__name__}: {error}")
                del monitors[kind]
                continue
            load |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        meter.read()  # a counter that begins anew between two looks would be misread
        named = {f"system/{name}": value for name, value in load.items()}
        run.log_metrics(named, step=int(time.time()), once=False)


class Meter:
    """Counts from the moment it is made."""

    def __init__(self) -> None:
        self._packages = Rapl.packages(POWERCAP)
        self.gpus = Gpus()
        self._wall, self._cpu = time.monotonic(), cpu_seconds()
        self._gpu_joules = self.gpus.joules()
        self.missing: list[str] = []
        if not self._packages:
            self.missing.append(f"CPU energy: nothing can be read in {POWERCAP}")

    def read(self) -> dict[str, float]:
        """Return what was used since; what cannot be read any more is left out for good."""
        wall = time.monotonic() - self._wall
        cost = {"wall_seconds": wall, "cpu_seconds": cpu_seconds() - self._cpu}
        if self._packages:
            try:
                cost["cpu_joules"] = sum(package.joules() for package in self._packages)
            except OSError as error:
                self._packages = []
                self.missing.append(f"CPU energy: {error}")
        cost["gpu_seconds"] = wall * self.gpus.count
        joules = self.gpus.joules()
        if self._gpu_joules is not None and joules is not None:
            cost["gpu_joules"] = joules - self._gpu_joules
        return {f"cost.{name}": value for name, value in cost.items()}


def cpu_seconds() -> float:
    """Return CPU time, user and system, of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Rapl:
    """The energy counter of one processor package, which begins anew when it is full."""

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        self._first = self._last = self._read()
        self._turns = 0

    @classmethod
    def packages(cls, root: Path) -> list["Rapl"]:
        """Return the counters that this user may read: on most machines only root may."""
        folders = sorted(root.glob("intel-rapl:[0-9]"))
        return [cls(folder) for folder in folders if os.access(folder / "energy_uj", os.R_OK)]

    def _read(self) -> int:
        return int(self._counter.read_text(encoding="ascii"))

    def joules(self) -> float:
        """Return the energy since this was made; to be asked once per turn of the counter."""
        now = self._read()
        if now < self._last:
            self._turns += 1
        self._last = now
        return (now - self._first + self._turns * self._range) / 1e6
