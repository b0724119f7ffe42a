import json
from pathlib import Path

import pytest

from ovis_model.data.formats import Record, read_records
from ovis_model.errors import DataError

SAMPLE = {"id": "a", "conversations": [{"from": "gpt", "value": "7"}]}
OTHER = {"id": "b", "conversations": [{"from": "gpt", "value": "8"}]}


def read(folder: Path, content: str | bytes, name: str = "annotations.json") -> list[Record]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(path))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"conversations": [SAMPLE, OTHER]}, indent=2),
        json.dumps([SAMPLE, OTHER]),
        "\ufeff" + json.dumps([SAMPLE, OTHER]),
        json.dumps(SAMPLE) + "\n" + json.dumps(OTHER) + "\n",
        json.dumps(SAMPLE) + "\r\n\r\n" + json.dumps(OTHER),
    ],
    ids=["seed", "list", "list-with-bom", "json-lines", "json-lines-windows"],
)
def test_every_shape_gives_the_same_samples(tmp_path: Path, text: str) -> None:
    assert [record.parse().id for record in read(tmp_path, text)] == ["a", "b"]


def test_one_object_alone_is_one_sample(tmp_path: Path) -> None:
    assert [record.id for record in read(tmp_path, json.dumps(SAMPLE, indent=1))] == ["a"]
    assert [record.id for record in read(tmp_path, json.dumps(SAMPLE), "one.jsonl")] == ["a"]


def test_a_broken_line_does_not_hide_the_others(tmp_path: Path) -> None:
    records = read(tmp_path, json.dumps(SAMPLE) + "\n{oops\n" + json.dumps(OTHER), "x.jsonl")
    assert [record.place for record in records] == ["line 1", "line 2", "line 3"]
    assert [record.problem is None for record in records] == [True, False, True]
    with pytest.raises(DataError, match=r"line 2 is not JSON: Expecting property name"):
        records[1].parse()


def test_a_missing_id_is_made_from_content_and_counted(tmp_path: Path) -> None:
    nameless = {"conversations": SAMPLE["conversations"]}
    alone = read(tmp_path, json.dumps([nameless]))
    after_another = read(tmp_path, json.dumps([OTHER, nameless]))
    assert alone[0].parse().id == after_another[1].parse().id == alone[0].id
    assert alone[0].id.startswith("auto-")
    assert [record.has_generated_id for record in after_another] == [False, True]


def test_a_key_given_twice_is_refused_instead_of_the_last_one_winning(tmp_path: Path) -> None:
    text = '[{"id": "a", "image": "x.png", "image": "y.png", "conversations": []}]'
    with pytest.raises(DataError, match=r"^the key 'image' is given twice in one object$"):
        read(tmp_path, text)[0].parse()


def test_a_key_given_twice_in_a_turn_is_refused(tmp_path: Path) -> None:
    text = '[{"id": "a", "conversations": [{"from": "gpt", "value": "1", "value": "2"}]}]'
    with pytest.raises(DataError, match=r"^the key 'value' is given twice in one object$"):
        read(tmp_path, text)[0].parse()


def test_an_id_that_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    record = read(tmp_path, '{"id": "\\ud800", "conversations": []}', "x.jsonl")[0]
    assert record.id == "\\ud800"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"annotations\.json is empty; expected the seed's"),
        ("[1,", r"annotations\.json \(3 bytes\) is not JSON: .*line 1 column 4"),
        (b"\xff\xfe", r"is not JSON: 'utf-8' codec can't decode"),
        ("[NaN]", r"is not JSON: NaN is not a JSON value"),
        ("[" * 100_000, r"is not JSON: maximum recursion depth"),
        ('{"data": []}', r"holds a dict with the keys \['data'\] at the top"),
        ("3", r"holds a int at the top"),
        ("[]", r"annotations\.json holds no samples"),
        ('{"conversations": []}', r"annotations\.json holds no samples"),
    ],
    ids=["empty", "cut", "not-utf8", "nan", "deep", "other-keys", "number", "no-list", "no-dict"],
)
def test_a_file_of_no_known_shape_is_an_error(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_missing_file_names_the_keys_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set validate\.raw_data and validate\.annotations"):
        list(read_records(tmp_path / "annotations.json"))
