import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ovis_model.config import SourceConfig, ValidateConfig
from ovis_model.data.annotations.formats import Record
from ovis_model.data.sources import annotation_files, read_annotations, read_source
from ovis_model.errors import ConfigError, DataError

ASKED = {"from": "human", "value": "<image>\nHi"}
ANSWERED = {"from": "gpt", "value": "Hello"}


def seed(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, **more, "conversations": [ASKED, ANSWERED]}


def write(path: Path, *values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def config(**values: Any) -> ValidateConfig:
    return ValidateConfig.parse({"raw_data": "raw", **values}, where="test")


def read(folder: Path, **values: Any) -> list[Record]:
    return list(read_annotations(folder, config(**values)))


def test_one_file_is_read_as_ever_and_names_no_source(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", seed("a", image="x.png"))
    (record,) = read(tmp_path, annotations="a.jsonl")
    assert (record.place, record.source, record.value) == (
        "line 1",
        None,
        seed("a", image="x.png"),
    )
    assert record.parse().source is None
    assert annotation_files(tmp_path, config(annotations="a.jsonl")) == [tmp_path / "a.jsonl"]


SOURCES = [
    {"name": "시드", "annotations": "b/b.jsonl"},
    {"name": "own", "annotations": "b/b.jsonl", "media": "b/이미지 모음/"},
    {"name": "swift", "annotations": "c.jsonl", "format": "ms_swift", "media": "c"},
]


def test_sources_come_in_order_each_with_its_name_folder_and_format(tmp_path: Path) -> None:
    lines = [seed("1", image=["x.png", "/etc/y.png", "http://z"]), seed("2", source="itself")]
    write(tmp_path / "b/b.jsonl", *lines, "no sample")
    swift = {"query": "Hi", "response": "Hello", "videos": ["v.mp4"]}
    write(tmp_path / "c.jsonl", {"id": "3", **swift}, {"id": "4", "query": 3})
    sources = [{**source, "name": source["name"].replace("시드", "seed")} for source in SOURCES]
    records = read(tmp_path, sources=sources)
    assert [(r.source, r.place) for r in records] == [
        ("seed", "b/b.jsonl, line 1"),
        ("seed", "b/b.jsonl, line 2"),
        ("seed", "b/b.jsonl, line 3"),
        ("own", "b/b.jsonl, line 1"),
        ("own", "b/b.jsonl, line 2"),
        ("own", "b/b.jsonl, line 3"),
        ("swift", "c.jsonl, line 1"),
        ("swift", "c.jsonl, line 2"),
    ]
    samples = [record.parse() for record in (*records[:2], *records[3:5], records[6])]
    assert [sample.source for sample in samples] == ["seed", "itself", "own", "itself", "swift"]
    assert samples[0].image == ("x.png", "/etc/y.png", "http://z")
    assert samples[2].image == ("b/이미지 모음/x.png", "/etc/y.png", "http://z")
    assert samples[4].video == "c/v.mp4"
    assert records[7].problem is not None
    files = annotation_files(tmp_path, config(sources=sources))
    assert files == [tmp_path / "b/b.jsonl", tmp_path / "c.jsonl"]
    only = SourceConfig.parse(sources[2], where="test")
    assert [r.place for r in read_source(tmp_path, only)] == ["line 1", "line 2"]


def datainfo(folder: Path, entries: Mapping[str, Any], name: str = "info.json") -> None:
    (folder / name).write_text(json.dumps(entries), encoding="utf-8")


def entry(meta_file: str, image_dir: str, **more: Any) -> dict[str, Any]:
    return {
        "meta_file": meta_file,
        "storage_type": "hybrid",
        "data_format": "conversation",
        "image_dir": image_dir,
        **more,
    }


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """An official index in a folder of its own, one entry with absolute paths."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/geometry.json").write_text(json.dumps([seed("g", image="1.png")]))
    write(tmp_path / "captions.jsonl", {"id": "c", "image": "2.png", "caption": "Two."})
    datainfo(
        tmp_path / "sets",
        {
            "geometry3k_local": entry("geometry.json", "pictures/"),
            "captions": entry(
                str(tmp_path / "captions.jsonl"), str(tmp_path), data_format="caption"
            ),
            "up": entry("../captions.jsonl", ".."),
        },
    )
    return tmp_path


def test_an_official_datainfo_is_read_as_it_is(official: Path) -> None:
    records = read(official, annotations="sets/info.json", data_name="captions|geometry3k_local")
    assert [(r.source, r.place) for r in records] == [
        ("captions", "captions.jsonl, line 1"),
        ("geometry3k_local", "sets/geometry.json, entry 1"),
    ]
    samples = [record.parse() for record in records]
    assert [sample.image for sample in samples] == [("2.png",), ("sets/pictures/1.png",)]
    assert [sample.source for sample in samples] == ["captions", "geometry3k_local"]


def test_all_data_sets_are_read_unless_some_are_named(official: Path) -> None:
    records = read(official, annotations="sets/info.json", format="datainfo")
    assert [record.source for record in records] == ["geometry3k_local", "captions", "up"]
    files = annotation_files(official, config(annotations="sets/info.json"))
    assert [file.relative_to(official).as_posix() for file in files] == [
        "sets/info.json",
        "sets/geometry.json",
        "captions.jsonl",
    ]


def test_a_datainfo_in_a_source_is_one_source(official: Path) -> None:
    sources = [{"name": "all", "annotations": "sets/info.json", "media": "more"}]
    records = read(official, sources=sources)
    assert {record.source for record in records} == {"all"}
    images = [record.parse().image for record in records]
    assert images == [("more/sets/pictures/1.png",), ("more/2.png",), ("more/2.png",)]


def test_absolute_coordinates_ask_the_pictures_for_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    picture = Image.new("RGB", (50, 100))
    exif = picture.getexif()
    exif[0x0112] = 6  # lies on its side: it is shown 100 px wide
    picture.save(tmp_path / "media/a b.jpg", exif=exif)
    box = {"from": "gpt", "value": "<box>(20,10),(80,40)</box>"}
    values = [
        {"id": name, "image": name, "conversations": [ASKED, box]}
        for name in ("a b.jpg", "none.jpg", "../out.jpg", "nul\0.jpg")
    ]
    write(tmp_path / "a.jsonl", *values)
    os.mkfifo(tmp_path / "media/none.jpg")
    source = {"name": "s", "annotations": "a.jsonl", "media": "media"}
    good, *bad = read(tmp_path, sources=[source], coordinates="absolute")
    assert good.parse().conversations[1].value == "<box>(0.200,0.200),(0.800,0.800)</box>"
    assert [record.problem for record in bad[:2]] == [
        "the size of 'media/none.jpg' cannot be read: no such file below the raw data",
        "the size of 'media/../out.jpg' cannot be read: no such file below the raw data",
    ]
    assert "embedded null" in str(bad[2].problem)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"annotations": "../a.json"}, r"^validate\.annotations is '\.\./a\.json'; give a path"),
        ({"annotations": "/etc/a.json"}, r"^validate\.annotations is '/etc/a\.json'; give a path"),
        ({"format": "coco"}, r"^validate\.format is 'coco'; known are auto, ovis, "),
        ({"coordinates": "px"}, r"^'px' is no way to write coordinates"),
        ({"data_name": "a"}, r"^validate\.data_name is 'a', but .* is no datainfo file"),
        (
            {"sources": [{"name": "s", "annotations": "a.json"}], "data_name": "a"},
            r"not read when there are validate\.sources; remove one of them$",
        ),
        (
            {"sources": [{"name": "s", "annotations": "x/../a.json"}]},
            r"^validate\.sources, s: annotations is 'x/\.\./a\.json'; give a path below",
        ),
        (
            {"sources": [{"name": "s", "annotations": "a.json", "media": "/m"}]},
            r"^validate\.sources, s: media is '/m'; give a path below",
        ),
        (
            {"sources": [{"name": "s", "annotations": "a.json", "format": "x"}]},
            r"^validate\.sources, s: format is 'x'; known are",
        ),
    ],
)
def test_a_config_that_cannot_be_followed_names_its_key(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.json", seed("a"))
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **{"annotations": "a.json", **values})


@pytest.mark.parametrize(
    ("document", "data_name", "message"),
    [
        ({"a": entry("x.json", ".")}, "b", r"has no data set 'b'; validate\.data_name can be a, "),
        ({"a": entry("x.json", ".")}, "a|a", r"names a data set twice: 'a\|a'$"),
        ({"a": {"image_dir": "."}}, None, r"data set 'a': 'meta_file' is missing; it names"),
        ({"a": entry("../x.json", ".")}, None, r"meta_file is '\.\./x\.json', which is not below"),
        ({"a": entry("x.json", "/etc")}, None, r"image_dir is '/etc', which is not below the raw"),
        ({"a": entry("x.json", ".", data_format="dpo")}, None, r"data_format is 'dpo'; known are"),
        ({"a": {**entry("x.json", "."), "image_dir": 3}}, None, r"image_dir is not a path$"),
        ([], None, r"is not an object of data sets, each with its own name$"),
    ],
)
def test_a_datainfo_that_cannot_be_followed_says_where(
    tmp_path: Path, document: Any, data_name: str | None, message: str
) -> None:
    datainfo(tmp_path, document)
    write(tmp_path / "x.json", seed("a"))
    with pytest.raises(DataError, match=message):
        read(tmp_path, annotations="info.json", format="datainfo", data_name=data_name)


def test_a_datainfo_that_is_missing_or_no_json_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is missing; set validate\.annotations$"):
        read(tmp_path, annotations="info.json", format="datainfo")
    (tmp_path / "info.json").write_text('{"meta_file": ')
    with pytest.raises(DataError, match=r"info\.json is not JSON: .* at byte 14$"):
        read(tmp_path, annotations="info.json", format="datainfo")


def test_a_file_is_no_datainfo_for_holding_one_of_its_words(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", seed("a", meta='say "meta_file"'), seed("b", meta_file=1))
    assert [record.id for record in read(tmp_path, annotations="a.jsonl")] == ["a", "b"]
    (tmp_path / "b.json").write_text('{"meta_file": oops')
    with pytest.raises(DataError, match=r"b\.json \(18 bytes\) is not JSON"):
        read(tmp_path, annotations="b.json")
