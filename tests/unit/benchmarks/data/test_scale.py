"""Validation by size and extraction: parts that add up, growth, goals, and what is printed."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks.__main__ import exit_code, main
from benchmarks.data.annotations import annotation_lines
from benchmarks.data.cases import cases
from benchmarks.data.scale import PARTS, ScaleRow, measure_validation
from benchmarks.data.scale_report import goals_of, json_lines, steps, text
from benchmarks.data.throughput import SMALL, WAYS, Rate, extract_clips, measure_rate
from benchmarks.data.video import generated_clip
from benchmarks.goals import Goal
from benchmarks.machine import Machine
from benchmarks.measure import Quartiles, Times
from benchmarks.suite import Agreement, Row, Target
from ovis_model.data.validation import validate

MACHINE = Machine("today", "a CPU", 2, 0.5, "3.11", "2.13", "5.23", "abc", 1, 70.0, 9.0, 15.0)
SECONDS = {"read": 1.0, "inspect": 0.5, "measure": 2.0, "expectations": 1.0, "write": 0.25}


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # what `main` sets


def scale_row(rows, cpu_seconds, *, peak_bytes=2_000_000_000):
    return ScaleRow(
        rows=rows,
        sha256="00" * 32,
        cpu_seconds=cpu_seconds,
        wall_seconds=5.0,
        part_seconds={**SECONDS, "other": 0.25},
        peak_bytes=peak_bytes,
        decoder_bytes=100_000_000,
    )


def look_row(seconds, kind="headers"):
    return Row(
        goal="D2",
        workload=f"100,000 pictures of 0.12 Mpx, {kind}",
        workload_sha256="",
        seed=0,
        dtype="jpeg",
        variant="ours",
        is_ours=True,
        agreement=Agreement(True, "same facts"),
        times=Times(1, [seconds] * 3, [seconds] * 3),
        ratio=Quartiles.of([9.0]),
        peak=0,
        peak_ratio=None,
        target=Target(time=9.0),
    )


# ---- measuring ------------------------------------------------------------------------------


def test_the_parts_of_a_validation_add_up_to_the_whole():
    module = vars(sys.modules[validate.__module__])
    before = [module[name] for name in PARTS.values()]
    row = measure_validation(60)
    assert row.rows == 60
    assert set(row.part_seconds) == {*PARTS, "other"}
    assert sum(row.part_seconds.values()) == pytest.approx(row.wall_seconds)
    assert min(row.part_seconds.values()) > 0
    assert row.cpu_seconds > 0
    assert row.peak_bytes > row.decoder_bytes > 10_000_000
    assert row.memory_bytes == row.peak_bytes + row.decoder_bytes
    assert [module[name] for name in PARTS.values()] == before


def test_annotations_that_do_not_all_come_through_are_no_measurement():
    path = annotation_lines(7, 20)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[0]]))
    with pytest.raises(RuntimeError, match=r"20 annotations, all good, but .*20.*19 ok"):
        measure_validation(20, 7)


def test_extraction_that_did_not_decode_every_file_is_no_measurement():
    """Equal files are decoded once."""
    sizes = replace(SMALL, clip_seconds=0.5)
    first, second = (generated_clip(seed, seconds=0.5, size=sizes.clip_size) for seed in (0, 1))
    second.write_bytes(first.read_bytes())
    with pytest.raises(RuntimeError, match="1 of 2 files were decoded and 0 samples set aside"):
        extract_clips(sizes)


def test_extraction_and_decoding_alone_make_as_many_pictures_and_frames():
    rates = [measure(SMALL)[0] for measure in WAYS.values()]
    assert rates == [SMALL.images, SMALL.images, SMALL.num_frames, SMALL.num_frames]


def test_a_rate_is_measured_in_a_process_of_its_own():
    rate = measure_rate("images", "Pillow, decoding alone", SMALL)
    assert (rate.what, rate.way, rate.items) == ("images", "Pillow, decoding alone", 10)
    assert rate.per_second == pytest.approx(10 / rate.cpu_seconds)


# ---- goals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        pytest.param(2.0, "PASS", id="just reached"),
        pytest.param(1.9, "MISS", id="missed"),
    ],
)
def test_a_goal_is_reached_up_to_its_limit(limit, verdict):
    assert Goal("X1", "a sum", 2.0, limit, "s").verdict == verdict
    assert Goal("X1", "a sum", 2.0, limit, "s", applies=False).verdict == ""


def test_memory_is_judged_at_a_million_rows_and_counts_the_decoders():
    (few,) = goals_of([], [scale_row(100_000, 9.0)], small=False)
    assert few.verdict == ""
    (many,) = goals_of([], [scale_row(1_000_000, 9.0, peak_bytes=7_950_000_000)], small=False)
    assert many.measured == pytest.approx(8.05)
    assert many.verdict == "MISS"
    assert goals_of([], [scale_row(1_000_000, 9.0, peak_bytes=None)], small=False) == []


def test_growth_is_judged_by_a_row_and_more_strictly_by_a_further_one():
    """What a run costs however few rows there are makes a row of a small run dear."""
    sizes = [scale_row(10_000, 10.0), scale_row(100_000, 19.0), scale_row(1_000_000, 199.0)]
    _, of_a_row, of_a_further_one = goals_of([], sizes, small=False)
    assert of_a_row.measured == pytest.approx(0.199)
    assert of_a_row.verdict == "PASS"
    assert of_a_further_one.measured == pytest.approx(2.0)
    assert of_a_further_one.verdict == "MISS"


def test_growth_needs_two_sizes():
    goals = goals_of([], [scale_row(10, 1.0), scale_row(20, 2.0)], small=False)
    assert [goal.what for goal in goals][1:] == ["time of a row, 20 rows over 10"]


def test_looks_are_judged_by_microseconds_a_row():
    rows = [look_row(4.0), look_row(0.51, "unchanged")]
    headers, unchanged = goals_of(rows, [], small=False)
    assert (headers.measured, headers.limit, headers.verdict) == (
        pytest.approx(40.0),
        40.0,
        "PASS",
    )
    assert (unchanged.measured, unchanged.verdict) == (pytest.approx(5.1), "MISS")
    assert goals_of(rows, [], small=True) == []


def test_every_look_case_has_a_limit_in_microseconds():
    rows = [
        replace(look_row(1.0), workload=case.workload) for case in cases() if case.goal == "D2"
    ]
    assert len(goals_of(rows, [], small=False)) == 2


# ---- what people and programs read ----------------------------------------------------------


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_show_rates_shares_and_what_a_further_row_costs():
    found = [
        scale_row(1000, 2.0),
        scale_row(3000, 8.0, peak_bytes=None),
        Rate("images", "alone", 100, 2.0),
        Rate("images", "extract", 100, 4.0),
    ]
    scale, rates, goals = text(found, [Goal("X1", "a sum", 2.0, 1.0, "s")]).split("\n\n")
    first, second = map(cells, scale.splitlines()[3:])
    assert first == [
        *("1,000", "200", "1,000", "2,000", "500", "4,000"),
        *("20.0", "5.0", "2,000", "-", "2,000", "100"),
    ]
    assert second[-4:] == ["2,667", "3,000", "-", "100"]
    assert [cells(line)[-2:] for line in rates.splitlines()[3:]] == [
        ["50.0", "100 %"],
        ["25.0", "50 %"],
    ]
    assert cells(goals.splitlines()[-1]) == ["X1", "a sum", "2.00 s", "<= 1 s", "MISS"]


def test_the_columns_of_a_table_line_up():
    _, *table = text([scale_row(10, 1.0), scale_row(1_000_000, 2.0)], []).splitlines()
    assert len({len(line) for line in table}) == 1


def test_each_measurement_and_goal_becomes_one_line_of_json_with_its_machine():
    found = [scale_row(10, 1.0), Rate("images", "extract", 100, 4.0)]
    lines = json_lines(found, [Goal("X1", "a sum", 2.0, 1.0, "s")], MACHINE).splitlines()
    scale, rate, goal = map(json.loads, lines)
    assert (scale["table"], scale["rows"], scale["part_seconds"]["read"]) == ("scale", 10, 1.0)
    assert (rate["table"], rate["items"]) == ("throughput", 100)
    assert (goal["table"], goal["verdict"], goal["git_sha"]) == ("goals", "MISS", "abc")


# ---- the command ----------------------------------------------------------------------------


def test_the_usual_sizes_are_ten_thousand_to_a_million_rows():
    names = list(steps(["scale", "extract"], None, small=False))
    assert [name for name in names if name.startswith("validate")] == [
        "validate 10,000 rows",
        "validate 100,000 rows",
        "validate 1,000,000 rows",
    ]
    assert len(names) == 3 + len(WAYS)


@pytest.mark.slow
def test_a_small_run_prints_tables_that_agree_with_its_lines_of_json(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    asked = ["data", "--smoke", "--only", "D1,scale", "--rows", "90,30", "--json", str(path)]
    assert main(asked) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_size = [line for line in lines if line.get("table") == "scale"]
    assert [line["goal"] for line in lines if "table" not in line] == ["D1", "D1"]
    assert [line["rows"] for line in by_size] == [30, 90]
    for line in by_size:
        rate = line["rows"] / line["wall_seconds"]
        assert f"| {line['rows']} " in printed.out
        assert f" {rate:,.0f} " in printed.out
        assert sum(line["part_seconds"].values()) == pytest.approx(line["wall_seconds"])
    assert "| D1   | 1,000,000 annotations" in printed.out
    assert "validate 30 rows ..." in printed.err


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(["--only", "D1"], id="other goals were asked for"),
        pytest.param(["--no-scale", "--only", "D1,scale"], id="asked not to"),
    ],
)
def test_nothing_is_validated_by_size_if(asked, capsys):
    assert main(["data", "--smoke", *asked]) == 0
    printed = capsys.readouterr()
    assert "D1" in printed.out
    assert "validate" not in printed.out + printed.err


def test_what_was_asked_for_is_measured():
    assert len(steps(["extract"], None, small=True)) == len(WAYS)
    assert list(steps(["scale"], [5], small=True)) == ["validate 5 rows"]
    assert not steps([], None, small=True)


def test_only_the_suite_of_data_has_sizes():
    with pytest.raises(SystemExit, match="--only: no goal scale; there are C1"):
        main(["model", "--only", "scale"])


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_a_missed_goal_is_an_error_if_asked(strict, code):
    assert exit_code([], [Goal("X1", "a sum", 2.0, 1.0, "s")], strict=strict) == code
