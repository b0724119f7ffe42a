"""What a benchmark case is, and how one is run: equality first, then time, then memory.

A case belongs to a goal of the suite.  It builds, from a seed, a trial: one workload and several
variants that do the same work.  The first variant is what ours is measured against, the last is
ours.  A variant that gives another result than it should is never timed.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure import (
    Call,
    Quartiles,
    Times,
    paired_ratio,
    peak_bytes,
    run_timed,
    time_variants,
)

#: Seeds tried before a case is given up.
MAX_SEEDS = 8
#: Bytes below which two peaks are not told apart.
PEAK_RESOLUTION = 2**20
#: Every larger block then comes from the system and goes back to it when it is freed: a
#: process's peak is that of its live blocks, not of what the allocator kept.
CHILD_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


class UnusableWorkloadError(Exception):
    """No seed gave a workload that exercises what the case is about."""


@dataclass(frozen=True)
class Agreement:
    """Whether a variant's result is the one it should be."""

    equal: bool
    how: str
    """In a few words: 'bitwise', 'same ids', or an error beside its tolerance."""


@dataclass(frozen=True)
class Trial:
    """One workload with the variants that do its work."""

    variants: dict[str, Call]
    """By name; the first is the base of all ratios, the last is ours."""
    compare: Callable[[Any, Any], Agreement]
    """Judges a variant's result; takes the base's result and the variant's."""
    sha256: str
    """Digest of the generated workload: equal digests, comparable runs."""
    result_bytes: int = 0
    """Size of what every variant must return, which is no overhead of any."""
    usable: Callable[[Any], bool] = lambda _: True
    """Whether the base's result shows that the workload is a fair one; else the next seed."""


@dataclass(frozen=True)
class Target:
    """How much better than the base ours must be."""

    time: float | None = None
    peak: float | None = None

    def __str__(self) -> str:
        parts = []
        if self.time is not None:
            parts.append(f"time >= {self.time:g}x")
        if self.peak is not None:
            parts.append(f"peak >= {self.peak:g}x")
        return ", ".join(parts) or "none"


@dataclass(frozen=True)
class Case:
    """A goal on one workload."""

    goal: str
    workload: str
    build: Callable[[int], Trial]
    """Makes the trial of a seed: a function of a module or a partial of one, to be pickled."""
    build_small: Callable[[int], Trial]
    """The same in a size for warming up and for a quick look."""
    target: Target = Target()
    dtype: str = "float32"
    timed: bool = True
    """False for a case that is about memory alone."""


@dataclass(frozen=True)
class Settings:
    """How much to measure."""

    rounds: int = 5
    min_seconds: float = 0.2
    """A turn of a quick variant lasts at least this long."""
    small: bool = False
    memory: bool = True
    preload: tuple[str, ...] = ()
    """Modules that a fresh process should find imported."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a variant of a case."""

    goal: str
    workload: str
    workload_sha256: str
    seed: int
    dtype: str
    variant: str
    is_ours: bool
    agreement: Agreement
    times: Times | None
    """None for a variant whose result was wrong, and in a case about memory alone."""
    ratio: Quartiles | None
    peak: int | None
    """Bytes above the resident set before, without the result itself; None if unknown."""
    peak_ratio: float | None
    """The base's peak over this one; None where the base has none worth the name."""
    target: Target

    @property
    def verdict(self) -> str:
        """PASS or MISS for ours, WRONG for any variant that gave another result."""
        if not self.agreement.equal:
            return "WRONG"
        if not self.is_ours or self.target == Target():
            return ""
        missed = []
        if self.target.time is not None and (
            self.ratio is None or self.ratio.q1 < self.target.time
        ):
            missed.append("time")
        if self.target.peak is not None and (self.peak_ratio or 0.0) < self.target.peak:
            missed.append("peak")
        return f"MISS {'+'.join(missed)}" if missed else "PASS"


def run_case(case: Case, settings: Settings) -> Iterator[Row]:
    """Check, time and weigh the variants of a case.

    Yields:
        One row per variant, in order.

    Raises:
        UnusableWorkloadError: If the first seeds all gave an unfair workload.
    """
    seed, trial, *first = _first_usable(case, settings)
    base, *_, ours = trial.variants
    agreements, seconds = _check(trial, *first)
    sound = {name: call for name, call in trial.variants.items() if agreements[name].equal}
    times: dict[str, Times] = {}
    if case.timed:
        times = time_variants(
            sound, seconds, rounds=settings.rounds, min_seconds=settings.min_seconds
        )
    peaks = _peaks(case, seed, list(sound), trial.result_bytes, settings)
    for name, agreement in agreements.items():
        yield Row(
            goal=case.goal,
            workload=case.workload,
            workload_sha256=trial.sha256,
            seed=seed,
            dtype=case.dtype,
            variant=name,
            is_ours=name == ours,
            agreement=agreement,
            times=times.get(name),
            ratio=paired_ratio(times[base], times[name]) if {base, name} <= set(times) else None,
            peak=peaks.get(name),
            peak_ratio=_ratio(peaks.get(base), peaks.get(name)),
            target=case.target,
        )


def _builder(case: Case, settings: Settings) -> Callable[[int], Trial]:
    return case.build_small if settings.small else case.build


def _first_usable(case: Case, settings: Settings) -> tuple[int, Trial, Any, float]:
    """Return seed and trial, and the base's result and seconds."""
    for seed in range(MAX_SEEDS):
        trial = _builder(case, settings)(seed)
        result, seconds = run_timed(next(iter(trial.variants.values())))
        if trial.usable(result):
            return seed, trial, result, seconds
    raise UnusableWorkloadError(
        f"{case.goal} {case.workload}: none of the seeds 0 to {MAX_SEEDS - 1} gave a usable "
        "workload; look at the trial's `usable`"
    )


def _check(
    trial: Trial, base_result: Any, base_seconds: float
) -> tuple[dict[str, Agreement], dict[str, float]]:
    """Run every variant once, its warm-up, and judge what it returns."""
    base, *others = trial.variants
    agreements = {base: trial.compare(base_result, base_result)}
    seconds = {base: base_seconds}
    for name in others:
        result, seconds[name] = run_timed(trial.variants[name])
        agreements[name] = trial.compare(base_result, result)
    return agreements, seconds


def _ratio(base: int | None, peak: int | None) -> float | None:
    if base is None or peak is None or base < PEAK_RESOLUTION:
        return None
    return base / max(peak, PEAK_RESOLUTION)


def _peaks(
    case: Case, seed: int, names: Sequence[str], result_bytes: int, settings: Settings
) -> dict[str, int]:
    if not settings.memory:
        return {}
    measured = in_fresh_processes(
        {name: (peak_of_variant, case, seed, name, settings.small) for name in names},
        settings.preload,
    )
    return {
        name: max(0, peak - result_bytes) for name, peak in measured.items() if peak is not None
    }


def peak_of_variant(case: Case, seed: int, name: str, small: bool) -> int | None:
    """Measure a variant's peak in this process, after a small one has loaded all code."""
    torch.set_num_threads(1)
    case.build_small(seed).variants[name]()
    trial = (case.build_small if small else case.build)(seed)
    return peak_bytes(trial.variants[name])


def in_fresh_processes(
    calls: Mapping[str, tuple[Any, ...]], preload: Sequence[str]
) -> dict[str, Any]:
    """Run each call (function, *arguments) in a process of its own, two at a time.

    The processes are forked from one that has imported modules and done nothing else, so that a
    start costs little and brings no memory of earlier work.
    """
    before = {key: os.environ.get(key) for key in CHILD_ENVIRONMENT}
    os.environ.update(CHILD_ENVIRONMENT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    try:
        with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as pool:
            futures: dict[str, Future[Any]] = {
                name: pool.submit(*call) for name, call in calls.items()
            }
            return {name: future.result() for name, future in futures.items()}
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value
