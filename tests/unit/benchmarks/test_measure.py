"""Clocks, rounds, quartiles and peaks: the arithmetic every table rests on."""

import subprocess
import sys
import time

import pytest

from benchmarks.measure import (
    Quartiles,
    Times,
    calls_for,
    cpu_seconds,
    order_of_round,
    paired_ratio,
    peak_bytes,
    time_variants,
)
from benchmarks.suite import in_fresh_processes

MEGABYTE = 2**20
PRELOAD = ("benchmarks.suite",)
SPIN = "import time\nwhile time.process_time() < 0.2: pass"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([7.0], (7.0, 7.0, 7.0), id="a single round"),
        pytest.param([1.0, 2.0], (1.25, 1.5, 1.75), id="two rounds"),
        pytest.param([5.0, 1.0, 4.0, 2.0, 3.0], (2.0, 3.0, 4.0), id="any order"),
    ],
)
def test_quartiles_lie_between_the_values(values, expected):
    quartiles = Quartiles.of(values)
    assert (quartiles.q1, quartiles.median, quartiles.q3) == expected


def test_variants_take_turns_forwards_and_backwards():
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = time_variants(variants, dict.fromkeys("abc", 1.0), rounds=3, min_seconds=0.0)
    assert "".join(calls) == "abc" + "cba" + "abc"
    assert all(len(taken.cpu_seconds) == len(taken.wall_seconds) == 3 for taken in times.values())
    assert order_of_round(["a", "b"], 4) == ["a", "b"]
    assert order_of_round(["a", "b"], 5) == ["b", "a"]


@pytest.mark.parametrize(
    ("seconds_per_call", "min_seconds", "calls"),
    [
        pytest.param(0.3, 0.2, 1, id="slow"),
        pytest.param(0.2, 0.2, 1, id="just long enough"),
        pytest.param(0.15, 0.2, 2, id="a little quick"),
        pytest.param(0.0, 0.0, 1, id="too quick for the clock"),
    ],
)
def test_a_quick_call_is_repeated_until_a_round_is_long_enough(
    seconds_per_call, min_seconds, calls
):
    assert calls_for(seconds_per_call, min_seconds) == calls


def test_the_ratio_is_taken_round_by_round():
    """The machine was slow in the second round: medians of each alone would say 3."""
    base = Times(1, cpu_seconds=[2.0, 8.0, 6.0])
    ours = Times(1, cpu_seconds=[1.0, 4.0, 2.0])
    assert paired_ratio(base, ours) == Quartiles(2.0, 2.0, 2.5)


def test_time_is_processor_time_and_waiting_is_not_counted():
    sleep = {"sleep": lambda: time.sleep(0.05)}
    times = time_variants(sleep, {"sleep": 0.0}, rounds=1, min_seconds=0.0)
    assert times["sleep"].cpu_seconds[0] < 0.04
    assert times["sleep"].wall_seconds[0] >= 0.05


def test_time_of_finished_children_is_counted():
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert cpu_seconds() - before > 0.2


def allocate(megabytes):
    return bytes(bytearray(b"x") * (megabytes * MEGABYTE))


def peak_of(megabytes):
    return peak_bytes(lambda: len(allocate(megabytes)))


def test_the_peak_of_a_fresh_process_is_that_of_its_blocks_though_they_are_freed():
    peaks = in_fresh_processes({"small": (peak_of, 8), "large": (peak_of, 64)}, PRELOAD)
    # `allocate` holds its block twice for a moment: once as bytearray, once as bytes.
    assert peaks["small"] == pytest.approx(16 * MEGABYTE, abs=2 * MEGABYTE)
    assert peaks["large"] == pytest.approx(128 * MEGABYTE, abs=2 * MEGABYTE)


def test_an_error_in_a_fresh_process_is_not_lost():
    with pytest.raises(ZeroDivisionError):
        in_fresh_processes({"broken": (divmod, 1, 0)}, PRELOAD)
