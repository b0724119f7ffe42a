from pathlib import Path

from ovis_model.data.checks.spool import SampleSpool
from ovis_model.data.schema import parse_sample
from tests.support.raw_data import sample


def test_samples_come_back_by_row_and_rows_without_one_hold_nothing(tmp_path: Path) -> None:
    first = parse_sample(sample("ä", "<image>?", "7", image="a.png"))
    last = parse_sample(sample("z", "Hi", "Hello"))
    with SampleSpool(tmp_path / "folder/spool") as spool:
        for entry in (first, None, last):
            spool.append(entry)
        assert len(spool) == 3
        assert list(spool) == [(0, first), (2, last)]
        assert spool.read(2) == last
        assert spool.read(0) == first
    assert not (tmp_path / "folder/spool").exists()


def test_the_line_is_canonical(tmp_path: Path) -> None:
    one = parse_sample(sample("s", "Hi", "Hello"))
    with SampleSpool(tmp_path / "spool") as spool:
        assert spool.append(one).decode() == one.to_json() + "\n"
        assert spool.append(None) == b""
