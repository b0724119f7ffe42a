"""Predictions on disk survive a kill, and nothing else in the file is forgiven."""

import json

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.predictions import (
    BenchmarkRecord,
    PredictionRow,
    PredictionWriter,
    RunRecord,
    SeenMedium,
    read_predictions,
    read_run,
)
from tests.support.predictions import row


def write(path, *rows):
    with PredictionWriter(path) as writer:
        writer.write(rows)


def test_a_row_reads_back_as_it_was_written(tmp_path):
    long = "thought \u2028\n" * 5000
    seen = SeenMedium(sha256="0", width=640, height=480, grid=(1, 34, 46))
    first, second = row("1", thinking=long, media=(seen,), slices={"category": "a"}), row("2")
    write(tmp_path / "x.jsonl", first)
    write(tmp_path / "x.jsonl", second)
    found = read_predictions(tmp_path / "x.jsonl")
    assert found.rows == (first, second)
    assert found.num_torn == 0


def test_a_file_that_is_not_there_yet_holds_no_rows(tmp_path):
    assert read_predictions(tmp_path / "x.jsonl").rows == ()


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b'{"model": "m", "ind', id="half a line"),
        pytest.param(row("2").model_dump_json().encode(), id="a line without its end"),
        pytest.param(b"\0" * 80 + b"\n", id="a line that never reached the disk"),
    ],
)
def test_a_torn_last_line_is_counted_and_the_next_writer_cuts_it_off(tmp_path, tail):
    path = tmp_path / "x.jsonl"
    write(path, row("1"))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    found = read_predictions(path)
    assert ([one.index for one in found.rows], found.num_torn) == (["1"], 1)
    write(path, row("2"))
    assert path.read_bytes() == whole + row("2").model_dump_json().encode() + b"\n"
    assert read_predictions(path).num_torn == 0


def test_a_file_that_is_all_torn_is_empty(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"mod')
    found = read_predictions(tmp_path / "x.jsonl")
    assert (found.rows, found.num_torn) == ((), 1)


def test_a_broken_line_before_the_last_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.jsonl"
    good = row("1").model_dump_json() + "\n"
    path.write_text(good + "{\n" + good, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl, line 2 is no prediction: : Invalid JSON"):
        read_predictions(path)


def test_an_unknown_key_is_an_error_even_in_the_last_line(tmp_path):
    line = {**json.loads(row("1").model_dump_json()), "scroe": 1}
    (tmp_path / "x.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1 is no prediction: scroe: Extra inputs"):
        read_predictions(tmp_path / "x.jsonl")


def test_an_item_answered_twice_is_an_error_and_another_seed_is_not(tmp_path):
    write(tmp_path / "x.jsonl", row("1"), row("1", seed=1))
    assert len(read_predictions(tmp_path / "x.jsonl").rows) == 2
    write(tmp_path / "x.jsonl", row("1", seed=1))
    with pytest.raises(DataError, match="answered more than once: 1 with seed 1"):
        read_predictions(tmp_path / "x.jsonl")


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="finite number"):
        row("1", score=float("nan"))


def test_a_run_is_its_record_and_its_rows(tmp_path):
    record = RunRecord(
        model="m",
        benchmarks={
            name: BenchmarkRecord(fingerprint="f", metric="exact", num_items=1) for name in "xy"
        },
    )
    record.write(tmp_path / "run.json")
    write(tmp_path / "x.jsonl", row("1"))
    run = read_run(tmp_path)
    assert run.record == record
    assert run.rows == {"x": (row("1"),), "y": ()}


def test_a_folder_without_a_record_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"holds no run\.json, so it is no run"):
        read_run(tmp_path)


def test_a_record_of_another_kind_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"run\.json is no record of a run: model: Field required"):
        read_run(tmp_path)


def test_a_row_is_right_only_with_full_marks():
    assert row("1", score=1.0).right
    assert not row("1", score=0.9).right
    assert PredictionRow.model_validate(row("1").model_dump()) == row("1")
