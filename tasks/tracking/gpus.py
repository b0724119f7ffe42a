"""The GPUs of this machine that a process may use, and the energy they took, without torch."""

import os
from collections.abc import Mapping
from pathlib import Path

try:
    import pynvml
except ModuleNotFoundError:  # an optional package, for machines with GPUs: nvidia-ml-py
    pynvml = None

DEVICES = Path("/dev")


def visible(devices: Path = DEVICES, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the numbers or UUIDs of the GPUs that CUDA shows to this process.

    Example:
        >>> visible(environment={"CUDA_VISIBLE_DEVICES": "1,3"})
        ['1', '3']
        >>> visible(environment={"CUDA_VISIBLE_DEVICES": ""})
        []
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(len(list(devices.glob("nvidia[0-9]*"))))]
    names = [name.strip() for name in chosen.split(",")]
    return [name for name in names if name and not name.startswith("-")]


class Gpus:
    """The counters of those GPUs.

    Attributes:
        count: How many there are.
        names: What they are called.
        problem: Why their energy is not read; "" if it is, or if there are none.
    """

    def __init__(self) -> None:
        numbers = visible()
        self.count = len(numbers)
        self.names: list[str] = []
        self.problem = ""
        self._handles: list[object] = []
        if not numbers:
            return
        if pynvml is None:
            self.problem = "GPU energy and load: nvidia-ml-py is not installed"
            return
        try:
            pynvml.nvmlInit()
            self._handles = [_handle(number) for number in numbers]
            self.names = [str(pynvml.nvmlDeviceGetName(one)) for one in self._handles]
            self.joules()
        except pynvml.NVMLError as error:
            self.problem = f"GPU energy: {error}"

    def joules(self) -> float | None:
        """Return the energy they took since their driver was loaded; None if it is not read."""
        if self.problem or not self._handles:
            return None
        try:
            used = [pynvml.nvmlDeviceGetTotalEnergyConsumption(one) for one in self._handles]  # mJ
        except pynvml.NVMLError as error:  # a GPU may also fall off its bus amid the work
            self.problem = f"GPU energy: {error}"
            return None
        return float(sum(used)) / 1000


def _handle(number: str) -> object:
    if number.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(number))
    return pynvml.nvmlDeviceGetHandleByUUID(number)
