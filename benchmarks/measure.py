"""Clocks and memory, read so that a busy machine does not decide.

Time is processor time of this process and its children: what else runs on the machine slows the
clock on the wall much and this one little.  Variants take turns in the order A B, B A, A B, ...,
so that a drift of the machine meets all of them alike, and their ratio is taken round by round.
"""

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
Call = Callable[[], Any]


@dataclass(frozen=True)
class Quartiles:
    """The middle of a sample and its spread."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Compute quartiles, interpolating between values.

        Example:
            >>> Quartiles.of([4.0, 1.0, 3.0, 2.0, 5.0])
            Quartiles(q1=2.0, median=3.0, q3=4.0)
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(q1, median, q3)


@dataclass
class Times:
    """What one call of a variant took, one value per round."""

    calls_per_round: int
    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)


def cpu_seconds() -> float:
    """Read the processor time of this process, its threads and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def order_of_round(names: Sequence[str], number: int) -> list[str]:
    """Return the turns of a round: forwards in even rounds, backwards in odd ones.

    Example:
        >>> [order_of_round(["a", "b"], number) for number in range(3)]
        [['a', 'b'], ['b', 'a'], ['a', 'b']]
    """
    return list(names) if number % 2 == 0 else list(reversed(names))


def calls_for(seconds_per_call: float, min_seconds: float) -> int:
    """Return how often to call in a round, so that it lasts at least `min_seconds`."""
    return max(1, math.ceil(min_seconds / max(seconds_per_call, 1e-7)))


def time_variants(
    variants: Mapping[str, Call],
    seconds_per_call: Mapping[str, float],
    *,
    rounds: int,
    min_seconds: float,
) -> dict[str, Times]:
    """Time variants by turns.

    Args:
        variants: What to call, by name; each must have run once already, as a warm-up.
        seconds_per_call: About how long a call takes.
        rounds: Rounds; every variant has one turn in each.
        min_seconds: A turn repeats a quick call until it lasts about this long.

    Returns:
        The times by name.
    """
    times = {name: Times(calls_for(seconds_per_call[name], min_seconds)) for name in variants}
    gc.collect()
    gc.freeze()  # the collections below then look at new objects only
    try:
        for number in range(rounds):
            for name in order_of_round(list(variants), number):
                cpu, wall = _time_calls(variants[name], times[name].calls_per_round)
                times[name].cpu_seconds.append(cpu)
                times[name].wall_seconds.append(wall)
    finally:
        gc.unfreeze()
    return times


def run_timed(call: Call) -> tuple[Any, float]:
    """Call once and return the result and the seconds of processor time."""
    start = cpu_seconds()
    result = call()
    return result, cpu_seconds() - start


def _time_calls(call: Call, count: int) -> tuple[float, float]:
    gc.collect()
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(count):
        call()
    return (cpu_seconds() - cpu) / count, (time.perf_counter() - wall) / count


def paired_ratio(base: Times, times: Times) -> Quartiles:
    """Compare two variants round by round: how many times less processor time `times` took."""
    pairs = zip(base.cpu_seconds, times.cpu_seconds, strict=True)
    return Quartiles.of([before / after for before, after in pairs])


def peak_bytes(call: Call) -> int | None:
    """Call once and return by how much the resident set of this process rose at its highest.

    The process should be a fresh one: memory that an earlier call left with the allocator would
    be used again without a trace.

    Returns:
        Bytes above the resident set before the call; None where the system cannot tell.
    """
    if not (PROCESS / "clear_refs").exists():
        return None
    gc.collect()
    (PROCESS / "clear_refs").write_text("5", encoding="ascii")  # forget the highest so far
    before = _status_bytes("VmRSS")
    kept = call()
    rise = _status_bytes("VmHWM") - before
    del kept
    return max(0, rise)


def _status_bytes(key: str) -> int:
    for line in (PROCESS / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(f"/proc/self/status has no {key}")
