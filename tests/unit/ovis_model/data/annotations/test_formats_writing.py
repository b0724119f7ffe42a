import gzip
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ovis_model.data.annotations.formats import read_records
from ovis_model.data.annotations.json_schema import build_schema, write_schema
from ovis_model.data.annotations.writing import WRITERS, write_records
from ovis_model.data.schema import Sample, parse_sample
from ovis_model.errors import ConfigError, DataError

SCHEMA = Path(__file__).parents[5] / "data" / "conversation.schema.json"
WORDS = ("the left cat", "Ä 고양이", "<b>", 'say "a:b"', "5 < 6 & 7", "\n", "a\tb")


def sample(name: str, *texts: str, **more: Any) -> Sample:
    turns = [{"from": "gpt" if n % 2 else "human", "value": t} for n, t in enumerate(texts)]
    return parse_sample({"id": name, **more, "conversations": turns})


SAMPLES = [
    sample("text", "Hi", "Hello"),
    sample("image", "<image>\nWhat?", "A cat.", image="이미지 1.jpg"),
    sample("images", "Compare <image>\nwith\n<image>\nnow.", "Same.", image=["b.png", "a.png"]),
    sample("turns", "<image>\nA?", "B", "And this:<image>", "D", image=["1.png", "2.png"]),
    sample("file", "<video>\nWhat?", "Rain.", video="v 1.mp4", video_start=1.5, video_end=9),
    sample("frames", "<video>\nWhat?", "Snow.", video=["1.png", "2.png"], source="web"),
    sample(
        "boxes",
        "<image>\nFind the <ref>left cat</ref> in the image.",
        "<ref>left cat</ref><box>(0.100,0.200),(0.300,0.999)</box> near <point>(0.500,0.250)"
        "</point>",
        image="a.png",
    ),
    parse_sample(
        {
            "id": "roles",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "A?"},
                {"from": "ignored_gpt", "value": "No"},
                {"from": "human", "value": "B?"},
                {"from": "gpt", "value": "<think>\nx\n</think>\n\nYes"},
            ],
        }
    ),
]
ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def read(path: Path, name: str = "auto") -> list[Sample]:
    return [record.parse() for record in read_records(path, format=name)]


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("how", ["named", "detected"])
def test_what_is_written_reads_back_the_same(
    tmp_path: Path, name: str, ending: str, how: str
) -> None:
    path = tmp_path / f"new folder/x{ending}"
    assert write_records(iter(SAMPLES), path, format=name) == len(SAMPLES)
    assert read(path, name if how == "named" else "auto") == SAMPLES
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_parquet_reads_back_the_same(tmp_path: Path) -> None:
    fitted = parse_sample({**json.loads(SAMPLES[1].to_json()), "fit": {"max_pixels": 9}})
    write_records([*SAMPLES, fitted], tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [*SAMPLES, fitted]


def make_swift(generator: random.Random, number: int) -> dict[str, Any]:
    """Make a grounded conversation as ms-swift has it, about a picture of 1000 x 500 px."""
    refs, boxes, messages = [], [], []
    for turn in range(generator.randint(1, 3)):
        text = "<image>\n" if turn == 0 else ""
        for _ in range(generator.randint(0, 2)):
            text += generator.choice(WORDS) + "<ref-object>"
            refs.append(generator.choice(WORDS))
        messages.append({"role": "user", "content": text + "?"})
        text = generator.choice(WORDS)
        for _ in range(generator.randint(0, 3)):
            x1, x2 = sorted(generator.sample(range(1001), 2))
            y1, y2 = sorted(generator.sample(range(501), 2))
            boxes.append([x1, y1, x2, y2] if generator.random() < 0.7 else [x1, y1])
            text += "<bbox>" + generator.choice(WORDS)
        messages.append({"role": "assistant", "content": text})
    value: dict[str, Any] = {"id": str(number), "messages": messages, "images": ["a.png"]}
    if refs or boxes:
        value["objects"] = {"ref": refs, "bbox": boxes, "bbox_type": "real"}
    return value


def test_ms_swift_to_ours_and_back_keeps_text_media_and_boxes(tmp_path: Path) -> None:
    generator = random.Random(4)
    given = [make_swift(generator, number) for number in range(200)]
    source, back = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text("".join(json.dumps(value) + "\n" for value in given), encoding="utf-8")
    records = read_records(source, size_of=lambda _: (1000, 500))
    write_records((record.parse() for record in records), back, format="ms_swift")
    found = [json.loads(line) for line in back.read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(given)
    for before, after in zip(given, found, strict=True):
        assert after["messages"] == before["messages"]
        assert after["images"] == before["images"]
        if "objects" not in before:
            assert "objects" not in after
            continue
        assert after["objects"]["ref"] == before["objects"]["ref"]
        for old, new in zip(before["objects"]["bbox"], after["objects"]["bbox"], strict=True):
            pixels = [value * (1000, 500)[i % 2] for i, value in enumerate(new)]
            assert all(abs(a - b) <= 1 + 1e-9 for a, b in zip(old, pixels, strict=True))


def make_openai(generator: random.Random, number: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for _ in range(generator.randint(1, 3)):
        content: list[dict[str, Any]] = []
        for _ in range(generator.randint(1, 4)):
            if (content and content[-1]["type"] == "text") or generator.random() < 0.5:
                url = f"p {generator.randint(0, 99)}.png"
                content.append({"type": "image_url", "image_url": {"url": url}})
            else:
                content.append({"type": "text", "text": generator.choice(WORDS)})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": generator.choice(WORDS)})
    return {"id": str(number), "messages": messages}


def test_openai_to_ours_and_back_keeps_every_part_in_its_place(tmp_path: Path) -> None:
    generator = random.Random(5)
    given = [make_openai(generator, number) for number in range(200)]
    source, back = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json.dumps(given), encoding="utf-8")
    write_records(read(source), back, format="openai")
    found = json.loads(back.read_text(encoding="utf-8"))
    for before, after in zip(given, found, strict=True):
        for message in before["messages"]:  # a text alone need not be a part
            content = message["content"]
            if len(content) == 1 and isinstance(content, list) and "text" in content[0]:
                message["content"] = content[0]["text"]
        assert after == before


@pytest.mark.parametrize("name", ["sharegpt", "llava"])
def test_sharegpt_to_ours_and_back_keeps_every_record(tmp_path: Path, name: str) -> None:
    given = [
        {
            "id": "1",
            "image": "a b.png",
            "conversations": [
                {"from": "human", "value": "x <image>\ny"},
                {"from": "gpt", "value": "z"},
            ],
        },
        {
            "id": "2",
            "image": ["1.png", "2.png"],
            "conversations": [
                {"from": "human", "value": "<image><image>"},
                {"from": "gpt", "value": "z", "loss": False},
            ],
        },
        {"id": "3", "video": "v.mp4", "conversations": [{"from": "human", "value": "<video>"}]},
    ]
    source, back = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json.dumps(given), encoding="utf-8")
    write_records(read(source, name), back, format=name)
    assert json.loads(back.read_text(encoding="utf-8")) == given


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_records(SAMPLES, tmp_path / f"{name}.jsonl.gz")
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress(packed).decode() == "".join(s.to_json() + "\n" for s in SAMPLES)


def test_texts_that_speak_of_openings_are_left_alone(tmp_path: Path) -> None:
    talk = sample("s", "What is <bbox>?", "<ref>a</ref><box>(0.100,0.200),(0.300,0.400)</box>")
    write_records([talk], tmp_path / "x.jsonl", format="ms_swift")
    assert read(tmp_path / "x.jsonl") == [talk]


@pytest.mark.parametrize(
    ("name", "format_name", "message"),
    [
        (
            "x.json",
            "alpaca",
            r"^format 'alpaca' is not written; ovis, sharegpt, llava, openai, ms",
        ),
        (
            "x.csv",
            "ovis",
            r"x\.csv: ovis is written to files that end in .*\.jsonl\.gz, \.parquet$",
        ),
        ("x.parquet", "llava", r"llava is written to files that end in .*, \.jsonl\.gz$"),
    ],
)
def test_what_is_not_written_is_told_before_anything_is(
    tmp_path: Path, name: str, format_name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_records(SAMPLES, tmp_path / name, format=format_name)
    assert list(tmp_path.iterdir()) == []


def test_media_that_no_placeholder_shows_are_not_lost_in_openai_messages(tmp_path: Path) -> None:
    lost = sample("s", "<image>\nHi", "Hello", image=["a.png", "b.png"])
    with pytest.raises(
        DataError, match=r"^sample 's': it has more media than <image> in its text"
    ):
        write_records([lost], tmp_path / "x.json", format="openai")
    assert not (tmp_path / "x.json").exists()


def test_the_published_schema_is_that_of_the_class(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.json")
    published = SCHEMA.read_text(encoding="utf-8")
    assert published == (tmp_path / "schema.json").read_text(encoding="utf-8"), (
        "run: python -c 'from pathlib import Path; "
        "from ovis_model.data.annotations.json_schema import write_schema; "
        'write_schema(Path("data/conversation.schema.json"))\''
    )


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(build_schema())
    validator = jsonschema.Draft202012Validator(build_schema())
    seeds = [json.loads(each.to_json()) for each in SAMPLES]
    for good in (seeds, {"conversations": seeds}, *seeds, {**seeds[1], "image": "a.png", "id": 7}):
        validator.validate(good)
    nameless = {key: value for key, value in seeds[0].items() if key != "id"}
    validator.validate([nameless])
    turn = seeds[0]["conversations"][0]
    for bad in (
        {"id": "a"},
        {"id": "a", "conversations": [{**turn, "from": "user"}]},
        {"id": "a", "conversations": [{**turn, "value": 3}]},
        {"id": "a", "conversations": [{**turn, "mood": "x"}]},
        {"id": "a", "image": [["a.png"]], "conversations": [turn]},
        [{"id": True, "conversations": [turn]}],
        "text",
    ):
        assert not validator.is_valid(bad), bad
