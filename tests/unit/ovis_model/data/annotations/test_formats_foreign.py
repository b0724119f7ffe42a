import json
from pathlib import Path
from typing import Any

import pytest

from ovis_model.data.annotations.foreign_formats import (
    CONVERTERS,
    detect_format,
    most_common_format,
)
from ovis_model.data.annotations.foreign_pictures import CAPTION_QUESTIONS
from ovis_model.data.annotations.formats import Record, read_records
from ovis_model.errors import DataError


def read(folder: Path, *values: Any, **how: Any) -> list[Record]:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return list(read_records(path, **how))


def sizes(path: str) -> tuple[int, int]:
    return {"a.jpg": (1200, 1600), "b.jpg": (100, 200)}[path]


def lines(record: Record) -> list[tuple[str, str]]:
    return [(turn.role, turn.value) for turn in record.parse().conversations]


USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
SAID = [("human", "Hi"), ("gpt", "Hello")]

#: name: (format, record, turns, image, video)
CASES: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]], tuple[str, ...], Any]] = {
    "seed": (
        "ovis",
        {
            "image": "a.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nHi"},
                {"from": "gpt", "value": "Hello"},
            ],
        },
        [("human", "<image>\nHi"), ("gpt", "Hello")],
        ("a.jpg",),
        None,
    ),
    "seed with peers' roles": (
        "ovis",
        {
            "conversations": [
                {"from": "user", "value": "Hi"},
                {"from": "assistant", "value": "Hello"},
            ]
        },
        SAID,
        (),
        None,
    ),
    "official frames": (
        "ovis",
        {
            "video_frames": ["1.png", "2.png"],
            "conversations": [
                {"from": "human", "value": "<video>\nHi"},
                {"from": "gpt", "value": "Hello"},
            ],
        },
        [("human", "<video>\nHi"), ("gpt", "Hello")],
        (),
        ("1.png", "2.png"),
    ),
    "sharegpt": (
        "sharegpt",
        {
            "conversations": [
                {"role": "system", "value": "Be brief."},
                {"role": "Human", "text": "Hi"},
                {"role": "chatgpt", "text": "Hello", "markdown": "x"},
            ]
        },
        [("system", "Be brief."), *SAID],
        (),
        None,
    ),
    "sharegpt in pairs": (
        "sharegpt",
        {"system": "Be brief.", "conversation": [{"human": "Hi", "assistant": "Hello"}]},
        [("system", "Be brief."), *SAID],
        (),
        None,
    ),
    "llava, the image last": (
        "llava",
        {
            "image": "a.jpg",
            "conversations": [
                {"from": "human", "value": "Hi\n<image>"},
                {"from": "gpt", "value": "Hello"},
            ],
        },
        [("human", "Hi\n<image>"), ("gpt", "Hello")],
        ("a.jpg",),
        None,
    ),
    "openai text": ("openai", {"messages": [USER, ASSISTANT]}, SAID, (), None),
    "openai parts": (
        "openai",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Compare "},
                        {"type": "image_url", "image_url": {"url": "a.jpg", "detail": "low"}},
                        {"type": "image_url", "image_url": "b.jpg"},
                        {"type": "text", "text": "now, or "},
                        {"type": "text", "text": "later"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
                {"role": "user", "content": [{"type": "text", "text": "This:"}, {"image": "c"}]},
                ASSISTANT,
            ]
        },
        [
            ("human", "Compare <image>\n<image>\nnow, or later"),
            ("gpt", "Hello"),
            ("human", "This:<image>"),
            ("gpt", "Hello"),
        ],
        ("a.jpg", "b.jpg", "c"),
        None,
    ),
    "openai video": (
        "openai",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "video_url",
                            "video_url": {"url": "v.mp4"},
                            "video_start": 1,
                            "video_end": 2.5,
                        },
                        {"type": "text", "text": "Hi"},
                    ],
                },
                ASSISTANT,
            ]
        },
        [("human", "<video>\nHi"), ("gpt", "Hello")],
        (),
        "v.mp4",
    ),
    "parts without paths": (
        "openai",
        {
            "images": ["a.jpg"],
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]},
                ASSISTANT,
            ],
        },
        [("human", "<image>\nHi"), ("gpt", "Hello")],
        ("a.jpg",),
        None,
    ),
    "ms_swift": (
        "ms_swift",
        {
            "messages": [
                {"role": "user", "content": "<image>Find the <ref-object>."},
                {"role": "assistant", "content": "<bbox> and <ref-object> at <bbox>"},
            ],
            "images": ["a.jpg", "b.jpg"],
            "objects": {
                "ref": ["a dog", "<eye>"],
                "bbox": [[331.5, 761.4, 853.5, 1594.8], [50, 50]],
                "image_id": [0, 1],
            },
        },
        [
            ("human", "<image>Find the <ref>a dog</ref>."),
            (
                "gpt",
                (
                    "<box>(0.276,0.476),(0.711,0.997)</box> and <ref>&lt;eye></ref> at "
                    "<point>(0.500,0.250)</point>"
                ),
            ),
        ],
        ("a.jpg", "b.jpg"),
        None,
    ),
    "ms_swift fractions": (
        "ms_swift",
        {
            "messages": [
                {"role": "user", "content": "<video>Where?"},
                {"role": "assistant", "content": "<bbox>"},
            ],
            "videos": ["v.mp4"],
            "objects": {"bbox": [[0.1, 0.2, 0.3, 1.0]], "bbox_type": "norm1"},
        },
        [("human", "<video>Where?"), ("gpt", "<box>(0.100,0.200),(0.300,0.999)</box>")],
        (),
        "v.mp4",
    ),
    "ms_swift queries": (
        "ms_swift",
        {"query": "<image>Hi", "response": "Hello", "history": [["A?", "B"]], "images": ["a.jpg"]},
        [("human", "A?"), ("gpt", "B"), ("human", "<image>Hi"), ("gpt", "Hello")],
        ("a.jpg",),
        None,
    ),
    "llama_factory turns": (
        "llama_factory",
        {
            "conversations": [
                {"from": "human", "value": "<image>Hi"},
                {"from": "gpt", "value": "Hello"},
            ],
            "system": "Be brief.",
            "images": ["a.jpg"],
        },
        [("system", "Be brief."), ("human", "<image>Hi"), ("gpt", "Hello")],
        ("a.jpg",),
        None,
    ),
    "llama_factory without placeholders": (
        "llama_factory",
        {"messages": [USER, ASSISTANT], "images": ["a.jpg", "b.jpg"]},
        [("human", "<image>\n<image>\nHi"), ("gpt", "Hello")],
        ("a.jpg", "b.jpg"),
        None,
    ),
    "llama_factory alpaca": (
        "llama_factory",
        {
            "instruction": "Say",
            "input": "Hi",
            "output": "Hello",
            "system": "",
            "history": [["A?", "B"]],
        },
        [("human", "A?"), ("gpt", "B"), ("human", "Say\nHi"), ("gpt", "Hello")],
        (),
        None,
    ),
    "caption with a template": (
        "caption",
        {"image": ["a.jpg"], "caption": "A cat.", "caption_template": "Look: <image>\nWhat?"},
        [("human", "Look: <image>\nWhat?"), ("gpt", "A cat.")],
        ("a.jpg",),
        None,
    ),
    "refcoco": (
        "refcoco",
        {
            "file_name": "a.jpg",
            "sent": "left cat",
            "bbox": [64, 48, 256, 192],
            "width": 640,
            "height": 480,
        },
        [
            ("human", "<image>\nFind the <ref>left cat</ref> in the image."),
            ("gpt", "<ref>left cat</ref><box>(0.100,0.100),(0.500,0.500)</box>"),
        ],
        ("a.jpg",),
        None,
    ),
    "refcoco question": (
        "refcoco",
        {"img": "b.jpg", "question": "Where is it?", "bbox": [10, 20, 40, 80]},
        [
            ("human", "<image>\nWhere is it?"),
            ("gpt", "<box>(0.100,0.100),(0.500,0.500)</box>"),
        ],
        ("b.jpg",),
        None,
    ),
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("how", ["named", "detected"])
def test_every_format_gives_turns_and_media_in_order(tmp_path: Path, name: str, how: str) -> None:
    format_name, value, said, image, video = CASES[name]
    chosen = format_name if how == "named" else "auto"
    (record,) = read(tmp_path, {"id": "s", **value}, format=chosen, size_of=sizes)
    sample = record.parse()
    assert lines(record) == said
    assert (sample.id, sample.image, sample.video) == ("s", image, video)


def test_every_format_has_a_case() -> None:
    covered = {case[0] for case in CASES.values()}
    assert covered | {"coco_captions"} == set(CONVERTERS)


@pytest.mark.parametrize(
    ("value", "notes"),
    [
        (CASES["seed"][1], ()),
        (
            CASES["seed with peers' roles"][1],
            ("role assistant read as gpt", "role user read as human"),
        ),
        (
            CASES["sharegpt"][1],
            (
                "key markdown of a turn ignored",
                "role Human read as human",
                "role chatgpt read as gpt",
            ),
        ),
        (
            {
                "system": "x",
                "conversations": [
                    {"from": "system", "value": "y"},
                    {"from": "gpt", "value": "Hi", "loss": False},
                ],
            },
            (
                "answer without loss read as ignored_gpt",
                "key system ignored: a turn is the system prompt",
            ),
        ),
        (
            {
                "video": "v.mp4",
                "start": 1,
                "end": 3,
                "conversations": [{"from": "human", "value": "<video>"}],
            },
            ("start and end read as video_start and video_end",),
        ),
        (
            {"images": ["a"], "conversations": [{"from": "human", "value": "Hi"}]},
            ("<image> put in front of the first question",),
        ),
        (CASES["refcoco"][1], ("question made around a box",)),
        ({"image": "a", "caption": "b"}, ("question made from a template",)),
    ],
)
def test_what_was_mapped_is_noted(
    tmp_path: Path, value: dict[str, Any], notes: tuple[str, ...]
) -> None:
    (record,) = read(tmp_path, value, size_of=sizes)
    assert record.notes == notes
    record.parse()


def test_answers_without_loss_are_read_but_not_learned(tmp_path: Path) -> None:
    answers = [{**ASSISTANT, "loss": False}, {**ASSISTANT, "weight": 0}, {**ASSISTANT, "loss": 1}]
    value = {"messages": [turn for answer in answers for turn in (USER, answer)]}
    roles = [turn.role for turn in read(tmp_path, value)[0].parse().conversations]
    assert roles[1::2] == ["ignored_gpt", "ignored_gpt", "gpt"]


def test_times_of_a_video_are_kept_wherever_they_stand(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<video>"}]
    given = [
        {"video": "v.mp4", "video_start": 1, "video_end": 2.5, "conversations": turns},
        {"video": "v.mp4", "start": 1, "end": 2.5, "conversations": turns},
        {"videos": ["v.mp4"], "video_start": 1, "video_end": 2.5, "conversations": turns},
        CASES["openai video"][1],
    ]
    for value in given:
        sample = read(tmp_path, value)[0].parse()
        assert (sample.video_start, sample.video_end) == (1.0, 2.5)


def test_keys_that_nobody_knows_stay_to_be_counted(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}]
    for value in (
        {"conversations": turns, "start": 3, "objects": ["cat"], "mood": 1},
        {"messages": [USER], "start": 3, "objects": ["cat"], "mood": 1},
    ):
        (record,) = read(tmp_path, value)
        assert record.value.keys() == {"conversations", "start", "objects", "mood"}


def test_placeholders_in_a_text_are_left_for_validation(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"image": "a.jpg", "caption": "the <image> tag"})
    assert lines(record)[1] == ("gpt", "the <image> tag")
    (record,) = read(tmp_path, {"messages": [{"role": "user", "content": "What is <image>?"}]})
    assert lines(record) == [("human", "What is <image>?")]


def test_media_of_a_talk_without_questions_are_not_put_anywhere(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"messages": [ASSISTANT], "images": ["a.jpg"]})
    assert (lines(record), record.parse().image) == ([("gpt", "Hello")], ("a.jpg",))
    (record,) = read(tmp_path, {"messages": [{"role": "user", "content": ["Hi ", "you"]}]})
    assert lines(record) == [("human", "Hi you")]


def test_coco_captions_are_joined_with_their_images(tmp_path: Path) -> None:
    path = tmp_path / "captions_val.json"
    document = {
        "info": {"year": 2014},
        "images": [{"id": 9, "file_name": "이미지 9.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": " A cat. "},
            {"id": 2, "image_id": 9, "caption": "A dog?"},
            {"id": 3, "image_id": 8, "caption": "Lost."},
            {"id": 4, "image_id": 9, "bbox": [1, 2, 3, 4], "category_id": 1},
            "text",
        ],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    for name in ("auto", "coco_captions"):
        records = list(read_records(path, format=name))
        assert [record.id for record in records[:4]] == ["1", "2", "3", "4"]
        first = records[0].parse()
        assert first.image == ("이미지 9.jpg",)
        question = first.conversations[0].value
        assert question.removeprefix("<image>\n") in CAPTION_QUESTIONS
        assert lines(records[1]) == [("human", question), ("gpt", "A dog?")]
        assert records[0].value.keys() == {"id", "image", "conversations"}
        assert records[2].problem == "no entry of 'images' has the id 8"
        assert records[3].problem is not None
        assert records[3].problem.startswith("there is no 'caption'; of COCO's files those with")
        with pytest.raises(DataError, match="a sample is a JSON object"):
            records[4].parse()


def test_captions_ask_one_of_several_questions_always_the_same(tmp_path: Path) -> None:
    values = [{"image": f"{n}.jpg", "caption": "x"} for n in range(60)]
    asked = [lines(record)[0][1] for record in read(tmp_path, *values)]
    again = [lines(record)[0][1] for record in read(tmp_path, *values[::-1])][::-1]
    assert asked == again
    assert set(asked) == {f"<image>\n{question}" for question in CAPTION_QUESTIONS}


def test_several_names_of_one_thing_are_several_samples(tmp_path: Path) -> None:
    value = {
        "id": 7,
        "image": "b.jpg",
        "sentences": ["left", {"sent": "grey one", "sent_id": 1}],
        "bbox": [10, 20, 40, 80],
        "split": "train",
    }
    records = read(tmp_path, value, size_of=sizes)
    assert [(r.place, r.parse().id) for r in records] == [
        ("line 1, text 1", "7_1"),
        ("line 1, text 2", "7_2"),
    ]
    assert "<ref>grey one</ref>" in lines(records[1])[0][1]
    assert records[0].value["split"] == "train"


def test_boxes_of_refcoco_follow_the_convention_that_is_named(tmp_path: Path) -> None:
    value = {"image": "b.jpg", "sent": "it", "bbox": [10, 20, 50, 100]}
    (record,) = read(tmp_path, value, size_of=sizes, coordinates="absolute")
    assert "<box>(0.100,0.100),(0.500,0.500)</box>" in lines(record)[1][1]


def test_boxes_in_texts_are_converted_in_every_format(tmp_path: Path) -> None:
    box = "<box>(10,20),(50,100)</box>"
    values: list[dict[str, Any]] = [
        {"image": "b.jpg", "conversations": [{"from": "gpt", "value": box}]},
        {"images": ["b.jpg"], "messages": [{"role": "assistant", "content": "<image>" + box}]},
        {
            "image": "c.jpg",
            "width": 100,
            "height": 200,
            "conversations": [{"from": "gpt", "value": box}],
        },
    ]
    for value in values:
        (record,) = read(tmp_path, value, coordinates="absolute", size_of=sizes)
        assert lines(record)[0][1].endswith("<box>(0.100,0.100),(0.500,0.500)</box>")


def test_objects_are_not_converted_twice(tmp_path: Path) -> None:
    (record,) = read(tmp_path, CASES["ms_swift"][1], coordinates="permille", size_of=sizes)
    assert lines(record) == CASES["ms_swift"][2]


def test_objects_bring_the_sizes_of_their_images(tmp_path: Path) -> None:
    value = json.loads(json.dumps(CASES["ms_swift"][1]))
    value["objects"] |= {"width": [1200, 100], "height": [1600, 200]}
    (record,) = read(tmp_path, value)
    assert lines(record) == CASES["ms_swift"][2]


def parts(*given: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(given)}]}


def objects(text: str, **given: Any) -> dict[str, Any]:
    messages = [{"role": "assistant", "content": text}]
    return {"messages": messages, "images": ["a.jpg"], "objects": given}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "openai",
            parts({"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}),
            "^turn 1: 'https://x.org/a.png' is no path; media must be files",
        ),
        (
            "openai",
            parts(
                {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99}}
            ),
            r"^turn 1: 'data:image/png;base64,A+\.\.\. is no path",
        ),
        (
            "openai",
            parts({"type": "video", "video": ["file:///a.png"]}),
            "'file:///a.png' is no path",
        ),
        (
            "openai",
            parts({"type": "input_audio"}),
            "^turn 1: a part of type 'input_audio' is not read; text, image, video are$",
        ),
        ("openai", parts(3), "^turn 1: a part of a message is a int$"),
        ("openai", {"messages": "Hi"}, "^'messages' is a str, not a list$"),
        ("openai", {"text": "Hi"}, "^'messages' is missing$"),
        ("openai", {"messages": ["Hi"]}, "^turn 1 is a str, not an object$"),
        (
            "openai",
            {"messages": [{"content": "Hi"}]},
            "^turn 1 does not say who speaks; expected 'from' or 'role'$",
        ),
        (
            "openai",
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            "^turn 2 is spoken by 'tool'; known are system, human, ",
        ),
        (
            "openai",
            {"messages": [{**ASSISTANT, "tool_calls": [{}]}]},
            "^turn 1 has 'tool_calls', which a sample has no place for$",
        ),
        (
            "openai",
            {"messages": [{"role": "user", "content": None}]},
            "^turn 1: what is said is a NoneType, not text$",
        ),
        (
            "openai",
            {**parts({"image": "a"}), "images": ["b"]},
            "^images are under 'images' and in the messages; keep one of them$",
        ),
        (
            "llava",
            {"image": "a", "images": ["b"], "conversations": []},
            "^images are under 'image' and in 'images'; keep one of them$",
        ),
        (
            "ms_swift",
            {"messages": [USER], "videos": ["a.mp4", "b.mp4"]},
            "^there are 2 videos, but a sample has one; split it$",
        ),
        (
            "ms_swift",
            {"messages": [USER], "images": [{"bytes": "AA", "path": "a"}]},
            "^an image is given as bytes; media must be files",
        ),
        ("sharegpt", {"conversation": [{"human": "Hi"}]}, "^'conversation' is not a list of"),
        (
            "llama_factory",
            {"instruction": "Hi"},
            "^there is no 'instruction' with 'output', nor 'query' with 'response'$",
        ),
        (
            "llama_factory",
            {"instruction": ["Hi"], "output": "Ho"},
            "^'instruction' should be texts$",
        ),
        (
            "llama_factory",
            {"instruction": "Hi", "output": "Ho", "history": ["x"]},
            r"^'history' is not a list of \[question, answer\]$",
        ),
        ("ms_swift", objects("<bbox>", bbox=[]), "^the texts have 1 <bbox>, objects has 0$"),
        (
            "ms_swift",
            objects("<bbox>", ref=["a"], bbox=[[1, 2]]),
            "^the texts have 0 <ref-object>, objects has 1$",
        ),
        (
            "ms_swift",
            objects("<bbox>", bbox=[["1", 2]]),
            r"^objects.bbox\[0\] is not a list of numbers$",
        ),
        (
            "ms_swift",
            objects("<bbox>", bbox=[[1, 2, 3]], bbox_type="norm1"),
            "a box has 4 finite numbers, a point 2$",
        ),
        ("ms_swift", objects("<bbox>", bbox={}), "^objects.bbox is a dict, not a list$"),
        ("ms_swift", objects("<ref-object>", ref=[3]), "^objects.ref is not a list of texts$"),
        (
            "ms_swift",
            objects("<bbox>", bbox=[[1, 2]], bbox_type="px"),
            "^objects.bbox_type is 'px'; read are real, norm1, norm1000$",
        ),
        (
            "ms_swift",
            objects("<bbox>", bbox=[[1, 2]], image_id=[1]),
            r"^objects.image_id\[0\] is 1; there are 1 images$",
        ),
        (
            "ms_swift",
            objects("<bbox>", bbox=[[1, 2]]),
            r"^objects.bbox\[0\] is in pixels, and the size of 'a.jpg' is not kn",
        ),
        (
            "caption",
            {"image": "a.jpg", "caption": 3},
            "^a caption needs 'image' and 'caption', both texts$",
        ),
        (
            "caption",
            {"image": "a", "caption": "b", "caption_template": "?"},
            "^'caption_template' is not a text with one <image>$",
        ),
        (
            "refcoco",
            {"bbox": [1, 2, 3, 4], "sent": "it"},
            "^there is no path of a picture under image, img, file_name, image_path$",
        ),
        ("refcoco", {"image": "a", "sent": "it", "bbox": [1, 2]}, "^bbox has 2 numbers, not 4$"),
        ("refcoco", {"image": "a", "sent": "it"}, "^bbox is not a list of numbers$"),
        (
            "refcoco",
            {"image": "a", "sent": "it", "bbox": [1, 2, 3, 4]},
            "pixels need the size of the picture$",
        ),
        (
            "refcoco",
            {"image": "a", "bbox": [1, 2, 3, 4], "width": 9, "height": 9},
            "^there are no words for the box under sentences, sent, ",
        ),
        (
            "refcoco",
            {"image": "a", "sentences": [3], "bbox": [1, 2, 3, 4], "width": 9, "height": 9},
            "^the words for the box are no text$",
        ),
    ],
)
def test_a_record_that_cannot_be_read_says_why_and_keeps_its_id(
    tmp_path: Path, name: str, value: dict[str, Any], message: str
) -> None:
    (record,) = read(tmp_path, {"id": "x", **value}, format=name)
    assert (record.id, record.code) == ("x", "schema")
    with pytest.raises(DataError, match=message):
        record.parse()


def test_pixels_in_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    value = {
        "image": ["a.jpg", "b.jpg"],
        "conversations": [{"from": "gpt", "value": "<point>(1,2)</point>"}],
    }
    (record,) = read(tmp_path, value, coordinates="absolute", size_of=sizes)
    assert record.problem is not None
    assert record.problem.startswith(
        "the text has coordinates in pixels, and its 2 images are of different sizes"
    )


def test_the_format_of_a_file_is_that_of_most_of_its_first_records(tmp_path: Path) -> None:
    seed = {"conversations": [{"from": "gpt", "value": "7"}]}
    records = read(tmp_path, {"image": "a", "caption": "lost its turns"}, seed, seed)
    assert [record.problem for record in records] == [None] * 3
    with pytest.raises(DataError, match=r"^conversations: missing$"):
        records[0].parse()
    assert most_common_format([{"a": 1}, 3, "x"]) == "ovis"
    assert detect_format(["x"]) is None


def test_what_is_wrong_with_seed_records_is_told_by_the_schema(tmp_path: Path) -> None:
    values = [
        {"id": "a", "conversations": [{"from": "gpt", "value": 3}]},
        {"id": "b", "conversations": "Hi"},
        {"id": "c", "conversations": [{"from": "gpt", "value": "7", "mood": "x"}]},
        {"id": "d", "image": [["a.png"]], "conversations": [{"from": "user", "value": "x"}]},
    ]
    for record, place in zip(
        read(tmp_path, *values), ("0.value", "s", "0.mood", "image"), strict=True
    ):
        with pytest.raises(DataError, match=place):
            record.parse()
