"""A benchmark is read strictly, and its fingerprint changes with anything that matters."""

import json

import pytest
from PIL import Image

from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmark, load_benchmarks

HEADER = {"name": "digits", "version": 1, "items": "digits.jsonl", "metric": "exact"}
ITEM = {"id": "a", "image": ["a.png"], "question": "<image>\nWhich digit?", "answer": "7"}
PROTOCOL = {"enable_thinking": True, "thinking_budget": 24}


def write(folder, rows=(ITEM,), **header):
    values = {**HEADER, **header}
    lines = "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in rows)
    (folder / "digits.jsonl").write_text(lines, encoding="utf-8")
    path = folder / f"{values['name']}.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    return path


def test_reads_items_in_order_and_skips_blank_lines(tmp_path):
    second = {"id": "b", "video": "b.mp4", "question": "<video>\nAnd?\u2028", "answer": "8"}
    benchmark = load_benchmark(write(tmp_path, [ITEM, "", json.dumps(second)]))
    assert [item.id for item in benchmark.items] == ["a", "b"]
    assert benchmark.items[0].prompt == "Which digit?"
    assert benchmark.items[1].media == ("b.mp4",)


def test_a_single_image_may_be_written_without_a_list(tmp_path):
    benchmark = load_benchmark(write(tmp_path, [{**ITEM, "image": "a.png"}]))
    assert benchmark.items[0].image == ("a.png",)


def test_a_limit_keeps_the_first_items(tmp_path):
    path = write(tmp_path, [{**ITEM, "id": name} for name in "abc"])
    assert [item.id for item in load_benchmark(path, limit=2).items] == ["a", "b"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param({"answer": None}, "answer", id="no answer"),
        pytest.param({"anwser": "7"}, "anwser: Extra inputs", id="misspelt key"),
        pytest.param({"question": "Which?"}, r"0 <image> placeholder", id="placeholder missing"),
        pytest.param({"image": ["/etc/a.png"]}, "leaves the benchmark's folder", id="absolute"),
        pytest.param({"image": ["../a.png"]}, "leaves the benchmark's folder", id="upwards"),
        pytest.param({"video": "v.mp4"}, "not both", id="image and video"),
        pytest.param(
            {"question": "Is <image> a digit?"}, "line of its own", id="placeholder in a line"
        ),
    ],
)
def test_a_broken_item_is_named_by_its_line(tmp_path, broken, message):
    path = write(tmp_path, [ITEM, {**ITEM, "id": "b", **broken}])
    with pytest.raises(DataError, match=rf"digits\.jsonl, line 2: .*{message}"):
        load_benchmark(path)


def test_a_missing_field_is_named_by_its_line(tmp_path):
    path = write(tmp_path, [ITEM, {"id": "b", "question": "?"}])
    with pytest.raises(DataError, match=r"line 2: answer: Field required"):
        load_benchmark(path)


def test_a_line_that_is_no_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"line 1: .*JSON"):
        load_benchmark(write(tmp_path, ["{"]))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"metric": "bleu"}, "metric: there is no metric 'bleu'; it is one of exact, contains"),
        ({"version": 0}, "version"),
        ({"items": "gone.jsonl"}, "gone.jsonl cannot be read"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_a_broken_header_is_explained(tmp_path, header, message):
    with pytest.raises(DataError, match=message):
        load_benchmark(write(tmp_path, **header))


def test_yaml_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(DataError, match="not valid YAML"):
        load_benchmark(path)


def test_no_item_and_the_same_id_twice_are_errors(tmp_path):
    with pytest.raises(DataError, match="no item"):
        load_benchmark(write(tmp_path, []))
    with pytest.raises(DataError, match="more than one item has the id 'a'"):
        load_benchmark(write(tmp_path, [ITEM, ITEM]))


def test_a_true_box_that_is_none_is_found_before_any_model_runs(tmp_path):
    with pytest.raises(DataError, match=r"item 'a': the answer '7' is not a box"):
        load_benchmark(write(tmp_path, metric="iou"))


def test_a_folder_without_benchmarks_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"holds no \*\.yaml"):
        load_benchmarks(tmp_path)


def test_two_benchmarks_of_one_name_are_an_error(tmp_path):
    path = write(tmp_path)
    (tmp_path / "copy.yaml").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DataError, match="more than one benchmark is named digits"):
        load_benchmarks(tmp_path)


def change_nothing(folder):
    return PROTOCOL


def change_answer(folder):
    write(folder, [{**ITEM, "answer": "8"}])
    return PROTOCOL


def change_pixels(folder):
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    return PROTOCOL


def change_version(folder):
    write(folder, version=2)
    return PROTOCOL


def change_protocol(folder):
    return {**PROTOCOL, "thinking_budget": 25}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (change_nothing, True),
        (change_answer, False),
        (change_pixels, False),
        (change_version, False),
        (change_protocol, False),
    ],
)
def test_the_fingerprint_follows_content(tmp_path, change, same):
    path = write(tmp_path)
    before = load_benchmark(path).fingerprint(PROTOCOL)
    protocol = change(tmp_path)
    assert (load_benchmark(path).fingerprint(protocol) == before) is same


def test_the_fingerprint_does_not_follow_the_place(tmp_path):
    prints = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        prints.add(load_benchmark(write(tmp_path / name)).fingerprint(PROTOCOL))
    assert len(prints) == 1


def test_a_missing_medium_is_named_with_its_item(tmp_path):
    path = write(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"benchmark 'digits', item 'a': a\.png cannot be read"):
        load_benchmark(path).fingerprint(PROTOCOL)
