import multiprocessing
import pickle
from pathlib import Path

import pytest

from ovis_model.data.sample_file import SampleFile
from ovis_model.data.schema import Sample, parse_sample, write_samples
from ovis_model.errors import DataError
from tests.support.raw_data import sample


def write(path: Path, count: int = 5) -> list[Sample]:
    # Longer than a block altogether, with letters of several bytes.
    samples = [parse_sample(sample(f"s{n}", "ü" * 300_000, str(n))) for n in range(count)]
    write_samples(path, samples)
    return samples


def test_any_sample_can_be_read_in_any_order(tmp_path: Path) -> None:
    samples = write(tmp_path / "a.jsonl")
    file = SampleFile(tmp_path / "a.jsonl")
    assert len(file) == 5
    assert [file[n] for n in (3, 0, -1)] == [samples[3], samples[0], samples[4]]
    assert file[1:3] == samples[1:3]
    assert list(file) == samples
    file.close()
    assert file[2] == samples[2]


def test_an_index_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1)
    with pytest.raises(IndexError, match="has 1 samples, there is no number 1"):
        SampleFile(tmp_path / "a.jsonl")[1]


def test_a_last_line_without_an_end_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    samples = write(path, 2)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert list(SampleFile(path)) == samples
    assert SampleFile(path)[1] == samples[1]
    path.write_bytes(b"")
    assert len(SampleFile(path)) == 0


def test_a_copy_in_another_process_reads_for_itself(tmp_path: Path) -> None:
    samples = write(tmp_path / "a.jsonl", 2)
    file = SampleFile(tmp_path / "a.jsonl")
    assert file[0] == samples[0]  # open here
    assert pickle.loads(pickle.dumps(file))[1] == samples[1]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(file.__getitem__, (1,)) == samples[1]


def test_a_line_that_is_no_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, 1)
    with path.open("a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: .*`dvc repro`"):
        SampleFile(path)[1]
    with pytest.raises(DataError, match=r"none\.jsonl is missing; `dvc repro` writes it"):
        SampleFile(tmp_path / "none.jsonl")
