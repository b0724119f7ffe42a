"""A case: equality before time, verdicts by the lower quartile, seeds that are fair."""

import dataclasses
import json
import operator
from functools import partial

import pytest

from benchmarks.machine import Machine
from benchmarks.measure import Quartiles, Times
from benchmarks.report import json_lines, table
from benchmarks.suite import (
    Agreement,
    Case,
    Row,
    Settings,
    Target,
    Trial,
    UnusableWorkloadError,
    run_case,
)

PRELOAD = ("benchmarks.suite",)
QUICK = Settings(rounds=2, min_seconds=0.0, memory=False)


def same(expected, found):
    return Agreement(expected == found, "same" if expected == found else "another number")


def build(seed, *, answers, fair_seed=0):
    """Variants that return numbers; the workload is fair for one seed."""
    return Trial(
        variants={name: partial(operator.add, answer, 0) for name, answer in answers.items()},
        compare=same,
        sha256=f"digest of seed {seed}",
        usable=lambda _: seed == fair_seed,
    )


def case_of(answers, *, target=None, fair_seed=0):
    make = partial(build, answers=answers, fair_seed=fair_seed)
    return Case("X1", "a sum", make, make, target or Target(time=1.5))


def row_of(*, cpu, base, target, peak_ratio=None, equal=True):
    times, base_times = Times(1, cpu, cpu), Times(1, base, base)
    ratios = [before / after for before, after in zip(base, cpu, strict=True)]
    assert len(base_times.cpu_seconds) == len(cpu)
    return Row(
        goal="X1",
        workload="a sum",
        workload_sha256="00" * 32,
        seed=0,
        dtype="float32",
        variant="ours",
        is_ours=True,
        agreement=Agreement(equal, "same" if equal else "another number"),
        times=times,
        ratio=Quartiles.of(ratios),
        peak=3 * 2**20,
        peak_ratio=peak_ratio,
        target=target,
    )


MACHINE = Machine("today", "a CPU", 2, 0.5, "3.11", "2.13", "5.23", "abc", 1, 70.0, 9.0, 15.0)


# ---- equality -------------------------------------------------------------------------------


def test_a_wrong_variant_is_reported_and_never_timed():
    rows = list(run_case(case_of({"stock": 3, "plain": 4, "ours": 3}), QUICK))
    assert [row.variant for row in rows] == ["stock", "plain", "ours"]
    assert [row.agreement.equal for row in rows] == [True, False, True]
    assert rows[1].times is None
    assert rows[1].ratio is None
    assert rows[1].verdict == "WRONG"
    assert rows[2].times is not None


def test_a_base_that_fails_its_own_check_leaves_ours_without_a_ratio():
    def make(seed):
        return Trial(
            {"stock": lambda: 1, "ours": lambda: 2},
            compare=lambda _, found: Agreement(found == 2, "against the exact value"),
            sha256="",
        )

    base, ours = run_case(Case("X1", "a sum", make, make, Target(time=1.0)), QUICK)
    assert base.verdict == "WRONG"
    assert ours.ratio is None
    assert ours.verdict == "MISS time"


# ---- verdicts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "verdict"),
    [
        pytest.param([2.0, 2.0, 2.0], "PASS", id="just reached"),
        pytest.param([1.0, 2.0, 4.0], "MISS time", id="median reached, lower quartile not"),
        pytest.param([1.9, 1.9, 9.0], "MISS time", id="reached once"),
    ],
)
def test_the_lower_quartile_must_reach_the_target(base, verdict):
    row = row_of(cpu=[1.0, 1.0, 1.0], base=base, target=Target(time=2.0))
    assert row.verdict == verdict


@pytest.mark.parametrize(
    ("peak_ratio", "verdict"),
    [
        pytest.param(8.0, "PASS", id="reached"),
        pytest.param(7.9, "MISS peak", id="missed"),
        pytest.param(None, "MISS peak", id="not measured"),
    ],
)
def test_a_peak_that_was_not_measured_does_not_pass(peak_ratio, verdict):
    row = row_of(cpu=[1.0], base=[3.0], target=Target(2.0, 8.0), peak_ratio=peak_ratio)
    assert row.verdict == verdict


def test_time_and_peak_can_both_be_missed():
    row = row_of(cpu=[1.0], base=[1.0], target=Target(2.0, 8.0), peak_ratio=1.0)
    assert row.verdict == "MISS time+peak"


def test_no_target_gives_no_verdict():
    assert row_of(cpu=[1.0], base=[1.0], target=Target()).verdict == ""


def test_a_wrong_result_is_wrong_however_quick():
    row = row_of(cpu=[1.0], base=[9.0], target=Target(time=2.0), equal=False)
    assert row.verdict == "WRONG"


# ---- seeds ----------------------------------------------------------------------------------


def test_the_first_fair_seed_is_taken():
    rows = list(run_case(case_of({"stock": 1, "ours": 1}, fair_seed=3), QUICK))
    assert {row.seed for row in rows} == {3}
    assert rows[0].workload_sha256 == "digest of seed 3"


def test_a_case_without_a_fair_seed_says_so():
    with pytest.raises(UnusableWorkloadError, match="X1 a sum: none of the seeds 0 to 7 gave"):
        list(run_case(case_of({"stock": 1, "ours": 1}, fair_seed=99), QUICK))


# ---- memory ---------------------------------------------------------------------------------


def fill(megabytes):
    return (bytearray(b"\1") * (megabytes * 2**20))[-1]


def build_blocks(seed, *, base, ours):
    return Trial(
        {"stock": partial(fill, base), "ours": partial(fill, ours)}, same, "", result_bytes=2**20
    )


def test_peaks_come_from_a_process_each_and_without_the_result_itself():
    make = partial(build_blocks, base=33, ours=9)
    case = Case("X1", "blocks", make, partial(build_blocks, base=1, ours=1), Target(peak=3.5))
    base, ours = run_case(case, dataclasses.replace(QUICK, memory=True, preload=PRELOAD))
    assert base.peak == pytest.approx(32 * 2**20, rel=0.05)
    assert ours.peak == pytest.approx(8 * 2**20, rel=0.1)
    assert ours.peak_ratio == pytest.approx(4.0, rel=0.1)
    assert ours.verdict == "PASS"


# ---- what people and programs read ----------------------------------------------------------


def test_the_table_names_a_case_once_and_shows_what_is_missing_as_a_dash():
    rows = list(run_case(case_of({"stock": 3, "plain": 4, "ours": 3}), QUICK))
    head, rule, stock, plain, ours = table(rows).splitlines()
    assert [cell.strip() for cell in head.split("|")][1:4] == ["goal", "workload", "variant"]
    assert set(rule) == {"|", "-"}
    assert stock.startswith("| X1   | a sum")
    assert plain.startswith("|      |      ")
    assert [cell.strip() for cell in plain.split("|")][4:] == [
        *["-"] * 4,
        "another number",
        "",
        "WRONG",
        "",
    ]
    assert "time >= 1.5x" in ours
    assert len({len(line) for line in (head, rule, stock, plain, ours)}) == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        pytest.param(0.0000314, "0.031", id="far below a millisecond"),
        pytest.param(0.0031415, "3.14", id="milliseconds"),
        pytest.param(0.0314159, "31.4", id="tens"),
        pytest.param(31.41592, "31,416", id="half a minute"),
    ],
)
def test_times_are_written_with_the_digits_they_deserve(seconds, shown):
    row = row_of(cpu=[seconds] * 2, base=[seconds] * 2, target=Target())
    assert f"| {shown} ({shown}-{shown}) |" in table([row])


def test_each_row_becomes_one_line_of_json_with_its_machine():
    row = row_of(cpu=[0.002, 0.001], base=[0.004, 0.004], target=Target(2.0, 8.0), peak_ratio=9.0)
    (line,) = json_lines([row], MACHINE).splitlines()
    values = json.loads(line)
    assert values["cpu_ms_median"] == pytest.approx(1.5)
    assert values["ratio_q1"] == pytest.approx(2.5)
    assert values["peak_bytes"] == 3 * 2**20
    assert values["verdict"] == "PASS"
    assert values["rounds"] == 2
    assert values["git_sha"] == "abc"
