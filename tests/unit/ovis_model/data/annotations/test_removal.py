import gzip
import json

import pytest

from ovis_model.data.annotations.removal import find_removal
from ovis_model.data.annotations.writing import write_records
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError


def remove_records(path, sample_id):
    """Remove them, and return what was removed."""
    removal = find_removal(path, sample_id)
    if removal is None:
        return []
    removal.apply()
    return removal.records


def record(name):
    return {"id": name, "conversations": [{"from": "human", "value": "é?"}]}


LINES = [json.dumps(record(name)).encode() + b"\n" for name in ("a", "b", "c")]


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def write(request, tmp_path):
    """Writes bytes, zipped or not, and reads them back."""

    class File:
        path = tmp_path / ("data.gz" if request.param else "data")

        def put(self, data):
            self.path.write_bytes(gzip.compress(data) if request.param else data)

        def get(self):
            data = self.path.read_bytes()
            return gzip.decompress(data) if request.param else data

    return File()


def test_json_lines_keep_every_other_byte(write):
    odd = b'{"id":   "d"}\n{"id": "b", broken\n'
    write.put(b"".join(LINES) + odd)
    assert remove_records(write.path, "b") == [record("b")]
    assert write.get() == LINES[0] + LINES[2] + odd


@pytest.mark.parametrize("is_seed", [True, False], ids=["the seed's file", "a list"])
def test_a_document_keeps_its_form_and_its_other_samples(write, is_seed):
    samples = [record("a"), {**record("b"), "n": 0.1}, record("a")]
    write.put(json.dumps({"conversations": samples} if is_seed else samples).encode())
    assert len(remove_records(write.path, "a")) == 2
    left = json.loads(write.get())
    assert left == ({"conversations": samples[1:2]} if is_seed else samples[1:2])


def test_a_number_is_an_id_as_its_text(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"id": 7, "conversations": []}\n' + LINES[0])
    assert len(remove_records(path, "7")) == 1
    assert path.read_bytes() == LINES[0]


def test_a_file_without_the_sample_stays_as_it_is(write):
    write.put(b"".join(LINES))
    before = write.path.stat()
    assert remove_records(write.path, "z") == []
    assert write.path.stat() == before


def test_a_copy_that_shares_its_bytes_keeps_them(tmp_path):
    path, cached = tmp_path / "data.jsonl", tmp_path / "cached"
    path.write_bytes(b"".join(LINES))
    cached.hardlink_to(path)
    remove_records(path, "a")
    assert cached.read_bytes() == b"".join(LINES)


def test_parquet_is_not_rewritten_and_says_what_to_do(tmp_path):
    path = tmp_path / "data.parquet"
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]
    write_records([Sample.model_validate({"id": "a", "conversations": turns})], path)
    assert remove_records(path, "z") == []
    with pytest.raises(DataError, match=r"is Parquet.*`ovis data convert .* data\.jsonl` first"):
        remove_records(path, "a")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"id": "a", "conversations": [{"from": "human", "value": "?"}]}', "neither a list"),
        ('{"conversations": [], "version": 2}', "neither a list"),
        ('[{"id": "a", "id": "a"}, {"id": "b", "id": "c"}]', "repeated keys"),
        ("[", "is not JSON"),
    ],
)
def test_a_file_that_would_lose_something_is_refused(tmp_path, content, complaint):
    path = tmp_path / "data.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        remove_records(path, "a")
    assert path.read_text(encoding="utf-8") == content
