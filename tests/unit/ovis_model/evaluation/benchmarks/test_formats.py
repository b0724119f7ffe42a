"""Items of one's own and held-out conversations."""

import json

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmark

ITEM = {"id": "a", "image": "a.png", "question": "<image>\nWhich?", "answer": "7"}


def load(folder, lines, **header):
    values = {"name": "own", "version": 1, "items": "x.jsonl", "metric": "exact", **header}
    text = lines if isinstance(lines, str) else "".join(json.dumps(i) + "\n" for i in lines)
    (folder / values["items"]).write_text(text, encoding="utf-8")
    (folder / "x.yaml").write_text(json.dumps(values), encoding="utf-8")
    return load_benchmark(folder / "x.yaml")


def test_the_names_of_others_are_understood(tmp_path):
    line = {
        "index": 7,
        "images": ["a.png", "b.png"],
        "question": "Which?",
        "hint": "Look.",
        "A": "red",
        "B": "None",
        "answer": "B",
        "category": "colours",
        "l2-category": "plain",
        "page": 3,
    }
    benchmark = load(
        tmp_path, [line], metric="multiple_choice", prompt="multiple_choice", slices="page"
    )
    (item,) = benchmark.items
    assert (item.id, item.image, item.options) == (
        "7",
        ("a.png", "b.png"),
        {"A": "red", "B": "None"},
    )
    assert item.columns == {"category": "colours", "l2-category": "plain", "page": "3"}
    assert benchmark.prompt(item).text.startswith("<image>\n<image>\nLook.\nWhich?\nA. red")


def test_answers_and_options_may_be_lists(tmp_path):
    line = {**ITEM, "answer": ["7", 8], "options": ["x", "y"]}
    (item,) = load(tmp_path, [line]).items
    assert (item.answers, item.options) == (("7", "8"), {"A": "x", "B": "y"})


@pytest.mark.parametrize("box", [{"box": [1, 1, 3, 3]}, {"box_xywh": [1, 1, 2, 2]}])
def test_a_box_in_pixels_may_be_given_by_corners_or_as_coco_does(tmp_path, box):
    line = {**ITEM, **box, "size": [4, 4], "answer": "dog"}
    benchmark = load(tmp_path, [line], metric="grounding")
    assert benchmark.mark(benchmark.items[0], "<box>(0.25,0.25),(0.75,0.75)</box>").strict


def test_a_box_that_is_missing_is_found_before_any_model_runs(tmp_path):
    with pytest.raises(DataError, match="item 'a': a true box in pixels and the image's width"):
        load(tmp_path, [{**ITEM, "box": [1, 1, 3, 3]}], metric="grounding")


def test_a_split_may_be_chosen(tmp_path):
    lines = [{**ITEM, "split": "dev"}, {**ITEM, "id": "b", "split": "test"}]
    assert [item.id for item in load(tmp_path, lines, split="test").items] == ["b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": ""}, "answer: String should have at least 1|the list holds no answer"),
        ({"answer": []}, "the list holds no answer"),
        ({"options": {"a": "x"}}, "called by a letter A to Z, not 'a'"),
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"box_xywh": [1, 2, 3]}, r"box_xywh: four numbers x, y, width, height, not \[1, 2, 3\]"),
    ],
)
def test_a_broken_line_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"x\.jsonl, line 1: .*({message})"):
        load(tmp_path, [{**ITEM, **change}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]\n", "an item is a JSON object, this is a list"),
        ("[" * 100_000, "JSON nested too deeply"),
        ("{'id': 1}", "not JSON: Expecting property name"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"line 1: {message}"):
        load(tmp_path, text)


def test_a_file_of_unknown_ending_needs_its_format(tmp_path):
    with pytest.raises(DataError, match=r"'x\.txt' ends in none of \.jsonl, \.tsv, "):
        load(tmp_path, [ITEM], items="x.txt")
    assert len(load(tmp_path, [ITEM], items="x.txt", format="jsonl").items) == 1


def talk(*turns, **fields):
    roles = ("human", "gpt")
    said = [{"from": roles[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"id": "s1", "conversations": said, **fields}


@pytest.mark.parametrize("layout", ["seed", "list", "lines"])
def test_conversations_are_a_held_out_split(tmp_path, layout):
    samples = [
        talk("<image>\nWhich digit?", "<think>\nA loop.\n</think>\n\n8", image="a.png"),
        talk("Hello?", "Hi.", "And?", "Bye.", id="s2"),
    ]
    written = {
        "seed": json.dumps({"conversations": samples}),
        "list": json.dumps(samples),
        "lines": "".join(json.dumps(sample) + "\n" for sample in samples),
    }[layout]
    benchmark = load(tmp_path, written, items="x.json", format="conversations")
    (item,) = benchmark.items
    assert (item.id, item.image, item.answer) == ("s1", ("a.png",), "8")
    assert benchmark.dropped == {"not one question and one answer": 1}
    assert benchmark.prompt(item).text == "<image>\nWhich digit?"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (talk("<image>\nWhich?", "8"), r"1 <image> placeholder\(s\)"),
        (talk("Which?", "<think>\nHm.\n</think>\n\n"), "answer: String should have"),
        (talk("<image>\nWhich?", "8", image="../a.png"), "leaves the benchmark's folder"),
        ({"id": "s1"}, "conversations: missing"),
    ],
)
def test_a_conversation_that_cannot_be_asked_is_named(tmp_path, sample, message):
    with pytest.raises(DataError, match=rf"x\.json, .*{message}"):
        load(tmp_path, json.dumps([sample]), items="x.json")
