import datetime
import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovis_model.data.annotations import files, json_text
from ovis_model.data.annotations.formats import Record, read_records
from ovis_model.data.annotations.parquet_files import SCHEMA
from ovis_model.errors import ConfigError, DataError

SAMPLE = {"id": "a", "conversations": [{"from": "gpt", "value": "7"}]}
OTHER = {"id": "b", "conversations": [{"from": "gpt", "value": "8"}]}
LINES = (json.dumps(SAMPLE) + "\n" + json.dumps(OTHER) + "\n").encode()


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
        "\ufeff" + json.dumps(SAMPLE) + "\n" + json.dumps(OTHER),
    ],
    ids=["seed", "list", "list-with-bom", "json-lines", "json-lines-windows", "lines-with-bom"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_shape_gives_the_same_samples(tmp_path: Path, text: str, packed: bool) -> None:
    content = gzip.compress(text.encode()) if packed else text
    assert [record.parse().id for record in read(tmp_path, content)] == ["a", "b"]


def test_the_readme_of_the_seed_is_read_to_the_letter(tmp_path: Path) -> None:
    samples = [record.parse() for record in read(tmp_path, README)]
    assert [(s.id, s.image, s.video) for s in samples] == [
        ("sample_001", ("cat_on_table.jpg",), None),
        ("sample_002_thinking", ("math_equation.jpg",), None),
        ("sample_003_multi_image", ("image1.jpg", "image2.jpg", "image3.jpg"), None),
        ("sample_004_video", (), ("frame1.jpg", "frame2.jpg", "frame3.jpg", "frame4.jpg")),
    ]
    assert [[turn.role for turn in s.conversations] for s in samples] == [["human", "gpt"]] * 4
    assert samples[1].conversations[1].value == (
        "<think>\nLet me analyze this equation carefully...\n</think>\n\n"
        "To solve this equation: [solution steps]"
    )
    assert samples[2].conversations[0].value == (
        "<image>\n<image>\n<image>\nCompare these images."
    )


def test_all_encodings_give_the_same_content_and_the_same_made_up_ids(tmp_path: Path) -> None:
    values = [
        {**SAMPLE, "image": ["이미지 1.jpg"], "source": "한국어"},
        {"image": ["a.png"], "conversations": [{"from": "human", "value": "Ä?\n"}]},
        {**OTHER, "video": "v.mp4", "video_start": 1.5, "video_end": 2.0},
        {"id": "d", "video": ["1.png", "2.png"], "conversations": SAMPLE["conversations"]},
    ]
    lines = "".join(json.dumps(value) + "\n" for value in values)
    rows = [
        {**v, "video": None, "video_frames": v["video"]} if isinstance(v.get("video"), list) else v
        for v in values
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "d.parquet")
    encoded = {
        "a.json": json.dumps({"conversations": values}, ensure_ascii=False).encode(),
        "b.json": json.dumps(values).encode(),
        "c.jsonl": lines.encode(),
        "c.jsonl.gz": gzip.compress(lines.encode()),
        "d.parquet": (tmp_path / "d.parquet").read_bytes(),
    }
    read_back = [
        [r.parse().to_json() for r in read(tmp_path, data, name)] for name, data in encoded.items()
    ]
    assert len(read_back[0]) == 4
    assert all(samples == read_back[0] for samples in read_back)


def test_one_object_alone_is_one_sample(tmp_path: Path) -> None:
    assert [record.id for record in read(tmp_path, json.dumps(SAMPLE, indent=1))] == ["a"]
    assert [record.id for record in read(tmp_path, json.dumps(SAMPLE), "one.jsonl")] == ["a"]


def test_a_path_with_spaces_and_letters_of_any_script_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "내 데이터 ü"
    folder.mkdir()
    assert len(read(folder, LINES, "주석 파일.jsonl")) == 2


def test_a_broken_line_does_not_hide_the_others(tmp_path: Path) -> None:
    records = read(tmp_path, json.dumps(SAMPLE) + "\n{oops\n" + json.dumps(OTHER), "x.jsonl")
    assert [record.place for record in records] == ["line 1", "line 2", "line 3"]
    assert [record.problem is None for record in records] == [True, False, True]
    with pytest.raises(DataError, match=r"line 2 is not JSON: Expecting property name"):
        records[1].parse()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "x", "text": "\xff"}', r"^line 2 is not JSON: 'utf-8' codec can't decode"),
        (b'{"id": "x", "score": NaN}', r"^NaN is not a JSON value$"),
        (b'{"id": "x", "score": [-Infinity]}', r"^-Infinity is not a JSON value$"),
        (b'{"id": "x", "text": "\\ud83d"}', r"^a text holds half a character"),
        (b'{"id": "x", "a": {"b": 1, "b" :1}}', r"^the key 'b' is given twice in one object$"),
        (b'{"id": "x", "a": 1, "a":"\\u003a"}', r"^the key 'a' is given twice in one object$"),
        (b'{"id": ' + b"[" * 300 + b"]" * 300 + b"}", r"nested deeper than 254 levels$"),
        (b'{"id": ' + b"[" * 9000 + b"]" * 9000 + b"}", r"nested deeper than 254 levels$"),
        (b"\0" * 20, r"^line 2 is not JSON: Expecting value"),
    ],
    ids=["utf-8", "nan", "infinity", "half", "twice", "escaped", "deep", "deeper", "nul"],
)
def test_text_that_is_no_strict_json_is_a_problem_of_its_record(
    tmp_path: Path, line: bytes, message: str
) -> None:
    good, bad, after = read(tmp_path, b"%s\n%s\n%s" % (LINES[:-1].split(b"\n")[0], line, LINES))[
        :3
    ]
    assert (good.problem, after.problem) == (None, None)
    assert (bad.place, bad.code) == ("line 2", "not_json")
    assert bad.id
    with pytest.raises(DataError, match=message):
        bad.parse()


def test_a_problem_of_one_record_in_a_document_spares_the_others(tmp_path: Path) -> None:
    bad = '{"id": "n", "score": NaN}, {"id": "t", "id": "u"}, {"id": "h", "x": "\\udc00"}'
    records = read(tmp_path, f"[{json.dumps(SAMPLE)}, {bad}]")
    assert [record.code for record in records] == ["schema", "not_json", "not_json", "not_json"]
    assert [record.problem for record in records] == [
        None,
        "NaN is not a JSON value",
        "the key 'id' is given twice in one object",
        "a text holds half a character (a lone surrogate)",
    ]
    assert [record.id for record in records[2:]] == ["u", "h"]


def test_a_line_too_long_for_a_sample_is_never_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2**20)
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(LINES)
        file.truncate(file.tell() + 2**25)  # a hole: a line of NULs
        file.seek(0, 2)
        file.write(b"\n" + LINES)
    tracemalloc.start()
    records = list(read_records(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.place for record in records] == [f"line {n}" for n in range(1, 6)]
    assert records[2].problem == "line 3 is longer than 1 MB; it is no sample"
    assert (records[2].code, records[3].parse().id) == ("not_json", "a")
    assert peak < 2**24


def test_json_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("wb") as file:
        for _ in range(20_000):
            file.write(LINES)
    tracemalloc.start()
    count = sum(record.problem is None for record in read_records(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 2**20 < path.stat().st_size


def test_a_document_above_the_limit_is_advised_to_become_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(DataError, match=r"more than 0 GB.*write one sample per line \(\.jsonl\)"):
        read(tmp_path, json.dumps([SAMPLE] * 10))


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


def test_a_list_given_twice_at_the_top_loses_no_sample_in_silence(tmp_path: Path) -> None:
    text = f'{{"conversations": [{json.dumps(SAMPLE)}], "conversations": []}}'
    with pytest.raises(DataError, match=r"the key 'conversations' is given twice.*keep one"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a" :2}',
        '{"a":{"b:":":"},"a":{}}',
        '{"a":"\\u003a","a":1}',
        '{"a":[{"b":1},{"b":1,"b":2}]}',
        '{"\\u0061":1,"a":2}',
    ],
)
def test_no_repeated_key_escapes_the_quick_reader(text: str) -> None:
    assert json_text.decode(text.encode())[1] is not None


@pytest.mark.parametrize(
    "value",
    [
        {"a": 'say ":" or \\":\\"', "b:": [":", {"c": ":::"}]},
        {"id": 123456789012345678901234567890, "score": 1.5, "n": None, "t": True},
        {"text": "\u003a < \U0001f600 \x7f", "empty": {}, "list": [[], ""]},
    ],
    ids=["colons", "large-number", "escapes"],
)
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf-8"])
def test_the_quick_reader_reads_as_python_does(value: object, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert json_text.decode(data) == (value, None)


def test_the_quick_reader_never_disagrees_with_the_slow_one() -> None:
    generator = random.Random(7)
    names = ('"a"', '"b:"', '"\\u0061"', '"\\u003a"', '"c\\":"')
    spaces = ("", " ", "\n ")

    def make(depth: int) -> str:
        kind = generator.randrange(5 if depth < 4 else 3)
        if kind < 3:
            large = "1" if depth else str(10**25)  # of more than 64 bits: an id, at the top
            return generator.choice((*names, "1.5", "null", large, "[]", "{}", "NaN"))
        parts = [make(depth + 1) for _ in range(generator.randrange(4))]
        if kind == 3:
            return "[" + ",".join(parts) + "]"
        gap = generator.choice(spaces)
        return "{" + ",".join(f"{generator.choice(names)}{gap}:{part}" for part in parts) + "}"

    num_flaws = 0
    for _ in range(3000):
        text = "{" + f'"id":{make(0)},"x":{make(0)}' + "}"
        repeats, constants = [], []

        def note(pairs: list[tuple[str, object]], found: list[int] = repeats) -> dict[str, object]:
            found.append(len(pairs) - len(dict(pairs)))
            return dict(pairs)

        expected = json.loads(text, object_pairs_hook=note, parse_constant=constants.append)
        value, flaw = json_text.decode(text.encode())
        assert (flaw is not None) == (sum(repeats) > 0 or bool(constants)), text
        if not constants:
            assert value == expected, text
        num_flaws += flaw is not None
    assert 500 < num_flaws < 2500


def test_a_number_of_any_length_is_an_id(tmp_path: Path) -> None:
    many = json.dumps([{**SAMPLE, "id": 10**30}, OTHER])
    assert [record.parse().id for record in read(tmp_path, many)] == ["1" + "0" * 30, "b"]


def test_an_id_that_cannot_be_printed_is_escaped(tmp_path: Path) -> None:
    record = read(tmp_path, '{"id": "\\ud800", "conversations": []}', "x.jsonl")[0]
    assert record.id == "\\ud800"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"annotations\.json is empty; expected the seed's"),
        (" \n", r"annotations\.json \(2 bytes\) is not JSON: "),
        ("[1,", r"annotations\.json \(3 bytes\) is not JSON: .*line 1 column 4.* at byte 3"),
        ('["ä",}', r"line 1 column 6 \(char 5\) at byte 6"),
        (b"\xff\xfe", r"is not JSON: 'utf-8' codec can't decode"),
        ("[" * 100_000, r"is not JSON: it is nested deeper than 254 levels"),
        ('{"data": []}', r"holds a dict with the keys \['data'\] at the top"),
        ("3", r"holds a int at the top"),
        ("[]", r"annotations\.json holds no samples"),
        ('{"conversations": []}', r"annotations\.json holds no samples"),
        ('{"images": 3, "annotations": []}', r"'images' is not a list of objects, as COCO's"),
        ('{"images": [], "annotations": []}', r"annotations\.json holds no samples"),
        (gzip.compress(LINES * 9)[:-20], r"cannot be read to its end \(.*copy the file again"),
        (b"PAR1 and no more", r"cannot be read as Parquet \(.*copy it again"),
    ],
    ids=[
        *("empty", "blank", "cut", "letters-and-bytes", "not-utf8", "deep", "other-keys"),
        *("number", "no-list", "no-dict", "coco-images", "no-coco", "gzip", "parquet"),
    ],
)
def test_a_file_of_no_known_shape_is_an_error(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_a_damaged_gzip_file_is_refused_when_the_damage_is_reached(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINES * 9)[:-20])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz cannot be read to its end \("):
        list(read_records(tmp_path / "x.jsonl.gz"))


def test_a_missing_file_names_the_keys_to_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set validate\.raw_data and validate\.annotations"):
        list(read_records(tmp_path / "annotations.json"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"format": "coco"}, r"unknown format 'coco'; validate\.format is one of auto, ovis, "),
        ({"format": "datainfo"}, r"a datainfo file is an index, read by `read_annotations`"),
        ({"coordinates": "pixels"}, r"'pixels' is no way to write coordinates; .* absolute_xywh"),
    ],
    ids=["unknown", "index", "coordinates"],
)
def test_an_unknown_word_in_the_config_lists_the_known_ones(
    tmp_path: Path, how: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        list(read_records(tmp_path / "x", **how))  # type: ignore[arg-type]


def test_bytes_in_parquet_are_a_problem_of_their_row(tmp_path: Path) -> None:
    rows = [{"id": "a", "image": {"bytes": b"\x89PNG", "path": "a.png"}}, {"id": "b"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    records = list(read_records(tmp_path / "x.parquet"))
    assert [(record.place, record.id) for record in records] == [("row 1", "a"), ("row 2", "b")]
    assert records[0].code == "schema"
    with pytest.raises(DataError, match=r"^column 'image' holds bytes; write the media to files"):
        records[0].parse()


def test_a_value_that_json_has_not_is_written_out(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "made": [datetime.date(2026, 1, 2)], "none": [None]})
    pq.write_table(table, tmp_path / "x.parquet")
    (record,) = read_records(tmp_path / "x.parquet")
    assert record.value == {"id": "a", "made": "2026-01-02"}


def test_parquet_is_read_batch_by_batch(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([SAMPLE] * 50_000, schema=SCHEMA)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=5_000)
    tracemalloc.start()
    count = sum(record.problem is None for record in read_records(tmp_path / "x.parquet"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 8 * 2**20


def test_a_text_in_parquet_that_is_no_utf_8_costs_its_row_alone(tmp_path: Path) -> None:
    bad = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": bad}), tmp_path / "x.parquet")
    records = list(read_records(tmp_path / "x.parquet"))
    assert [record.id for record in records[::2]] == ["a", "c"]
    assert records[1].id.startswith("auto-")
    with pytest.raises(DataError, match=r"^a text is not UTF-8: 'utf-8' codec can't decode"):
        records[1].parse()


def test_what_is_no_object_is_left_to_the_schema(tmp_path: Path) -> None:
    records = read(tmp_path, '["text", 3, null, []]')
    for record in records:
        with pytest.raises(DataError, match=r"^a sample is a JSON object, this is a "):
            record.parse()


README = """{
  "conversations": [
    {
      "id": "sample_001",
      "image": "cat_on_table.jpg",
      "conversations": [
        {
          "from": "human",
          "value": "<image>\\nWhat do you see in this image?"
        },
        {
          "from": "gpt",
          "value": "I see a beautiful orange tabby cat sitting on a wooden table..."
        }
      ]
    },
    {
      "id": "sample_002_thinking",
      "image": "math_equation.jpg", 
      "conversations": [
        {
          "from": "human",
          "value": "<image>\\nSolve this equation step by step."
        },
        {
          "from": "gpt",
          "value": "<think>\\nLet me analyze this equation carefully...\\n</think>\\n\\nTo solve this equation: [solution steps]"
        }
      ]
    },
    {
      "id": "sample_003_multi_image",
      "image": ["image1.jpg", "image2.jpg", "image3.jpg"],
      "conversations": [
        {
          "from": "human", 
          "value": "<image>\\n<image>\\n<image>\\nCompare these images."
        },
        {
          "from": "gpt",
          "value": "Looking at these three images, I can see..."
        }
      ]
    },
    {
      "id": "sample_004_video",
      "video": ["frame1.jpg", "frame2.jpg", "frame3.jpg", "frame4.jpg"],
      "conversations": [
        {
          "from": "human",
          "value": "<video>\\nDescribe what happens in this video."
        },
        {
          "from": "gpt", 
          "value": "This video sequence shows..."
        }
      ]
    }
  ]
}
"""  # noqa: E501, W291 - to the letter, spaces at the ends of lines included
