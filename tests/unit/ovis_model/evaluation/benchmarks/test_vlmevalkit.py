"""Tables of VLMEvalKit: every way they show pictures, and every way they can be broken."""

import hashlib
import json
import os
import tracemalloc

import pytest

from ovis_model.config import FrameSampling
from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmark
from ovis_model.evaluation.item_media import load_media
from ovis_model.evaluation.scoring.aggregates import cluster_of
from tests.support.tables import as_cell, png, write_table

RED, BLUE = as_cell(png("red")), as_cell(png("blue"))
ROW = {"index": "1", "question": "Which colour?", "A": "red", "B": "blue", "answer": "A"}
CHOICE = {"name": "colours", "version": 1, "metric": "multiple_choice"}


def load(folder, rows, **header):
    if not isinstance(rows, str):
        write_table(folder / "x.tsv", rows)
    else:
        (folder / "x.tsv").write_text(rows, encoding="utf-8", newline="")
    values = {**CHOICE, "prompt": "multiple_choice", **header, "items": "x.tsv"}
    (folder / "x.yaml").write_text(json.dumps(values), encoding="utf-8")
    return load_benchmark(folder / "x.yaml")


def colour_of(benchmark, item):
    media = load_media(benchmark, item, FrameSampling())
    return [picture.getpixel((0, 0)) for picture in media.images]


def test_a_picture_is_read_from_its_cell_when_it_is_wanted(tmp_path):
    benchmark = load(tmp_path, [{**ROW, "image": RED}, {**ROW, "index": "2", "image": BLUE}])
    first, second = benchmark.items
    assert colour_of(benchmark, second) == [(0, 0, 255)]
    assert colour_of(benchmark, first) == [(255, 0, 0)]
    assert benchmark.source_of("1#0") == png("red")
    assert benchmark.media.sha256("1#0") == hashlib.sha256(png("red")).hexdigest()
    assert benchmark.prompt(first).text.startswith("<image>\nWhich colour?\nA. red\nB. blue\n")


def test_an_index_instead_of_a_picture_means_that_row_s_picture(tmp_path):
    rows = [
        {**ROW, "index": "1000001", "image": "1"},
        {**ROW, "index": "1", "image": RED},
        {**ROW, "index": "2", "image": BLUE},
    ]
    benchmark = load(tmp_path, rows)
    shared, own, other = benchmark.items
    assert shared.image == own.image == ("1#0",)
    assert colour_of(benchmark, shared) == [(255, 0, 0)]
    assert cluster_of(shared, "mean") == cluster_of(own, "mean") != cluster_of(other, "mean")
    assert cluster_of(shared, "circular") == cluster_of(own, "circular")


def test_a_row_that_is_not_asked_may_still_hold_another_s_picture(tmp_path):
    rows = [
        {**ROW, "index": "1", "image": RED, "split": "dev"},
        {**ROW, "index": "2", "image": "1", "split": "validation"},
    ]
    benchmark = load(tmp_path, rows, split="validation")
    assert [item.id for item in benchmark.items] == ["2"]
    assert colour_of(benchmark, benchmark.items[0]) == [(255, 0, 0)]
    assert benchmark.dropped == {"of another split": 1}


def test_a_list_holds_several_pictures_and_mmmu_puts_them_in_place(tmp_path):
    question = "Compare <image 2> with <image 1>, and <image 2> again."
    row = {**ROW, "question": question, "image": str([RED, BLUE])}
    benchmark = load(tmp_path, [row], prompt="interleaved_choice", metric="mmmu")
    (item,) = benchmark.items
    assert colour_of(benchmark, item) == [(255, 0, 0), (0, 0, 255)]
    prompt = benchmark.prompt(item)
    assert prompt.image == ("1#1", "1#0", "1#1")
    assert prompt.text.startswith("Compare \n<image>\n with \n<image>\n, and \n<image>\n again.\n")


def test_mmmu_without_a_place_shows_images_first(tmp_path):
    row = {**ROW, "image": str([RED, BLUE])}
    benchmark = load(tmp_path, [row], prompt="interleaved_choice", metric="mmmu")
    assert benchmark.prompt(benchmark.items[0]).text.startswith("<image>\n<image>\nWhich colour?")


def test_mmmu_that_speaks_of_a_missing_image_is_named(tmp_path):
    row = {**ROW, "question": "See <image 3>.", "image": str([RED, BLUE])}
    benchmark = load(tmp_path, [row], prompt="interleaved_choice", metric="mmmu")
    message = r"'colours', item '1': the text speaks of <image 3>, and there are 2 image\(s\)"
    with pytest.raises(DataError, match=message):
        benchmark.prompt(benchmark.items[0])


def test_paths_are_found_below_the_folder_of_media(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").write_bytes(png("blue"))
    rows = [
        {**ROW, "image_path": "a.png"},
        {**ROW, "index": "2", "image_path": "['a.png', 'b.png']"},
    ]
    benchmark = load(tmp_path, rows, media="images")
    assert [item.image for item in benchmark.items] == [("a.png",), ("a.png", "b.png")]
    assert colour_of(benchmark, benchmark.items[1]) == [(0, 0, 255)] * 2
    benchmark.fingerprint({})
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"'colours', item '2': b\.png cannot be read"):
        benchmark.fingerprint({})


def test_a_video_and_its_candidates(tmp_path):
    row = {
        "index": "7",
        "question": "What happens?",
        "candidates": "['A. Rain.', 'B. Snow.']",
        "answer": "B",
        "video_path": "./video/x.mp4",
        "duration": "short",
    }
    benchmark = load(tmp_path, [row], metric="videomme", prompt="video_choice")
    (item,) = benchmark.items
    assert (item.video, item.columns) == ("./video/x.mp4", {"duration": "short"})
    assert benchmark.prompt(item).text.startswith("<video>\n\nThese are the frames of a video.")
    assert benchmark.prompt(item).text.endswith(
        "\nQuestion: What happens?\nA. Rain.\nB. Snow.\nAnswer: "
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": RED, "video_path": "x.mp4"}, "a table has pictures in 'image' or files in"),
        ({"image_path": "a.png", "video_path": "x.mp4"}, "images or one video, not both"),
        ({"image_path": "../a.png"}, "'../a.png' leaves the benchmark's folder"),
        ({"image_path": "['a.png', '/b.png']"}, "'/b.png' leaves the benchmark's folder"),
        ({"video_path": ""}, "there is nothing in video_path"),
    ],
)
def test_a_row_shows_pictures_or_one_video_from_its_folder(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"line 2: .*{message}"):
        load(tmp_path, [{**ROW, **change}])


def test_a_table_of_texts_alone_is_one_too(tmp_path):
    benchmark = load(tmp_path, [ROW])
    assert benchmark.prompt(benchmark.items[0]).text.startswith("Which colour?\nA. red")


NA = {"A": "None", "B": "NA", "C": "null", "D": "N/A", "image": RED}


def test_options_that_look_like_nothing_stay_options(tmp_path):
    row = {**ROW, **NA, "hint": "nan"}
    (item,) = load(tmp_path, [row, {**ROW, "index": "0.50", "image": RED}]).items[:1]
    assert item.options == {"A": "None", "B": "NA", "C": "null", "D": "N/A"}
    assert item.hint == "nan"


def test_on_request_they_are_missing_as_in_vlmevalkit(tmp_path):
    rows = [{**ROW, **NA, "A": "red", "hint": "nan"}]
    (item,) = load(tmp_path, rows, na_compat="vlmevalkit").items
    assert (item.options, item.hint) == ({"A": "red"}, "")


def test_a_missing_answer_is_then_the_word_nan(tmp_path):
    rows = [{**ROW, "answer": "None", "image": RED}]
    (item,) = load(tmp_path, rows, na_compat="vlmevalkit", metric="chartqa").items
    assert item.answer == "nan"


def test_numbers_stay_as_they_are_written(tmp_path):
    rows = [
        {**ROW, "index": "007", "A": "0.50", "B": "14", "image": RED},
        {**ROW, "index": "8", "A": "1.0", "image": RED},
    ]
    first, second = load(tmp_path, rows).items
    assert (first.id, first.options, second.options["A"]) == (
        "007",
        {"A": "0.50", "B": "14"},
        "1.0",
    )


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("['Asia', 'Asia Pacific']", ("Asia", "Asia Pacific")),
        ("[2007, 8.5]", ("2007", "8.5")),
        ("['', 'x', '']", ("x", "", "")),
        ("[unclear]", ("[unclear]",)),
        ("plain", ("plain",)),
        (r"['\d']", (r"\d",)),
        ("{'a': 1}", ("{'a': 1}",)),
        ("[" * 5000 + "]" * 5000, ("[" * 5000 + "]" * 5000,)),
    ],
)
def test_a_list_of_answers_is_read_where_the_metric_takes_several(tmp_path, cell, answers):
    rows = [{**ROW, "answer": cell, "image": RED}]
    assert load(tmp_path, rows, metric="chartqa").items[0].answers == answers
    assert load(tmp_path, rows, metric="exact").items[0].answers == (cell,)


def test_code_in_a_cell_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "[__import__('os').mkdir('broken')]"
    rows = [{**ROW, "answer": code, "image": RED}]
    assert load(tmp_path, rows, metric="chartqa").items[0].answers == (code,)
    for column in ("choices", "candidates"):
        with pytest.raises(DataError, match=rf"line 2: the column '{column}' should hold a list"):
            load(tmp_path, [{**ROW, column: code, "image": RED}])
    with pytest.raises(DataError, match="line 2: the column 'image' should hold a list"):
        load(tmp_path, [{**ROW, "image": code}])
    assert not os.path.exists("broken")  # noqa: PTH110 - where the code would have run


BROKEN = [
    pytest.param({"index": ""}, "line 3: the index is empty", id="no index"),
    pytest.param({"index": "1"}, "line 3: the index '1' is also that of line 2", id="same index"),
    pytest.param({"question": ""}, "line 3: question: String should have at least 1", id="blank"),
    pytest.param({"answer": ""}, "line 3: answer: the list holds no answer", id="no answer"),
    pytest.param({"image": ""}, "line 3: there is nothing in image; write drop", id="no image"),
    pytest.param({"image": "9"}, "the image is that of row '9', and there is no such", id="gone"),
    pytest.param({"image": "2"}, "that of row '2', which holds none itself", id="of itself"),
    pytest.param({"image": "['9']"}, "row '9', and there is no such row", id="gone, in a list"),
    pytest.param({"answer": "C"}, "item '2': the answer 'C' is none of the options A, B", id="C"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_row_is_named(tmp_path, change, message):
    rows = [{**ROW, "image": RED}, {**ROW, "index": "2", "image": BLUE, **change}]
    with pytest.raises(DataError, match=rf"x\.tsv, .*{message}"):
        load(tmp_path, rows)


def test_rows_without_an_image_are_left_out_and_counted_on_request(tmp_path):
    rows = [{**ROW, "image": RED}, {**ROW, "index": "2"}, {**ROW, "index": "3"}]
    benchmark = load(tmp_path, rows, drop_without_image=True)
    assert (len(benchmark.items), benchmark.dropped) == (1, {"without an image": 2})
    with pytest.raises(DataError, match=r"x\.tsv: no item \(2 without an image\)"):
        load(tmp_path, [{**row, "image": ""} for row in rows[1:]], drop_without_image=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "x.tsv is empty", id="empty"),
        pytest.param("index\tquestion\n1\t?\n", "no column 'answer' among index, q", id="column"),
        pytest.param("index,question,answer\n1,?,A\n", "no column 'index', 'question'", id="csv"),
        pytest.param("index\tindex\n1\t1\n", "more than one column is called 'index'", id="twice"),
        pytest.param("index\tquestion\tanswer\n1\t?\n", "line 2: 2 cells for 3 columns", id="few"),
        pytest.param("index\tquestion\tanswer\n\n1\t?\tA\tB\n", "line 3: 4 cells", id="many"),
        pytest.param(
            'index\tquestion\tanswer\n1\t"?\n\n', "in line 2: unexpected end of data", id="quote"
        ),
        pytest.param(
            'index\tquestion\tanswer\n1\t"a" b\tA\n', "in line 2: .* a cell with a quote", id="mid"
        ),
    ],
)
def test_a_malformed_table_is_explained(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, text)


def test_a_table_that_is_not_utf8_is_explained(tmp_path):
    load(tmp_path, [{**ROW, "image": RED}])
    (tmp_path / "x.tsv").write_bytes(b"index\tquestion\tanswer\n1\t\xff\tA\n")
    with pytest.raises(DataError, match="in line 2: not UTF-8"):
        load_benchmark(tmp_path / "x.yaml")


def test_a_missing_table_is_named(tmp_path):
    load(tmp_path, [{**ROW, "image": RED}])
    (tmp_path / "x.tsv").unlink()
    with pytest.raises(DataError, match=r"x\.tsv cannot be read: No such file"):
        load_benchmark(tmp_path / "x.yaml")


def test_cells_may_hold_tabs_quotes_and_line_breaks(tmp_path):
    question = 'He said "no".\n\tWhy?\r\nSay.'
    rows = [{**ROW, "question": question, "image": RED}, {**ROW, "index": "2", "image": BLUE}]
    benchmark = load(tmp_path, rows)
    assert benchmark.items[0].question == question
    assert colour_of(benchmark, benchmark.items[1]) == [(0, 0, 255)]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path):
    load(tmp_path, [{**ROW, "image": RED}])
    text = (tmp_path / "x.tsv").read_text(encoding="utf-8").replace("\n", "\r\n")
    (tmp_path / "x.tsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    benchmark = load_benchmark(tmp_path / "x.yaml")
    assert colour_of(benchmark, benchmark.items[0]) == [(255, 0, 0)]


def test_a_picture_that_is_not_base64_is_named_when_it_is_read(tmp_path):
    benchmark = load(tmp_path, [{**ROW, "image": RED[:40] + "!" + RED[40:]}])
    with pytest.raises(DataError, match=r"item '1': .*picture '1#0' is not base64"):
        colour_of(benchmark, benchmark.items[0])


def test_a_cell_that_holds_no_picture_is_named_when_it_is_read(tmp_path):
    benchmark = load(tmp_path, [{**ROW, "image": as_cell(b"no picture" * 10)}])
    with pytest.raises(DataError, match=r"benchmark 'colours', item '1': 1#0"):
        colour_of(benchmark, benchmark.items[0])


def test_a_picture_that_the_table_does_not_hold_is_an_error(tmp_path):
    benchmark = load(tmp_path, [{**ROW, "image": RED}])
    with pytest.raises(DataError, match="holds no picture '9#0'"):
        benchmark.source_of("9#0")


def test_a_table_that_shrank_is_an_error(tmp_path):
    benchmark = load(tmp_path, [{**ROW, "image": RED}])
    (tmp_path / "x.tsv").write_text("index\n", encoding="utf-8")
    with pytest.raises(DataError, match="shorter than it was"):
        benchmark.source_of("1#0")


def test_pictures_stay_in_the_file(tmp_path):
    big = as_cell(os.urandom(300_000))
    rows = [{**ROW, "index": str(number), "image": big} for number in range(40)]
    load(tmp_path, rows)
    tracemalloc.start()
    try:
        benchmark = load_benchmark(tmp_path / "x.yaml")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(benchmark.items) == 40
    assert peak < 10 * len(big)  # one row at a time, at four bytes per letter


@pytest.mark.parametrize("change", ["picture", "cell", "nothing"])
def test_the_fingerprint_of_a_table_follows_its_content(tmp_path, change):
    rows = [{**ROW, "image": RED}]
    before = load(tmp_path, rows).fingerprint({})
    if change == "picture":
        rows[0]["image"] = BLUE
    elif change == "cell":
        rows[0]["hint"] = "Look."
    assert (load(tmp_path, rows).fingerprint({}) == before) is (change == "nothing")


BOX = {
    "index": "1",
    "question": "left dog",
    "width": "640",
    "height": "480",
    "image": RED,
    "answer": "[64, 48, 320, 240]",
}
CORNERS = {"bbox_x1": "64", "bbox_y1": "48", "bbox_x2": "320", "bbox_y2": "240"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="pixels in the answer"),
        pytest.param({"answer": "0.1 0.1 0.5 0.5"}, id="fractions in the answer"),
        pytest.param({**CORNERS, "answer": ""}, id="columns"),
    ],
)
def test_a_true_box_is_found_in_columns_or_in_the_answer(tmp_path, change):
    row = {**BOX, "category": "RefCOCO+ testA", **change}
    benchmark = load(tmp_path, [row], metric="grounding", prompt="grounding")
    (item,) = benchmark.items
    assert (item.id, item.box, item.size) == (
        "RefCOCO+_testA_1",
        (64.0, 48.0, 320.0, 240.0),
        (640.0, 480.0),
    )
    assert item.answer == "<box>(0.100,0.100),(0.500,0.500)</box>"
    assert benchmark.mark(item, item.answer).strict
    assert benchmark.prompt(item).text == (
        "<image>\nFind the <ref>left dog</ref> in the image. Please provide the bounding box "
        "coordinates."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": ""}, "the column 'width' is missing or empty"),
        ({"height": "tall"}, "the column 'height' should hold a number, not 'tall'"),
        ({"width": "0"}, "an image of 0 x 480 pixels"),
        ({"answer": "somewhere"}, "there is no true box, neither in bbox_x1"),
        ({**CORNERS, "bbox_x1": "left"}, "the column 'bbox_x1' should hold a number"),
    ],
)
def test_a_row_without_a_usable_box_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=rf"line 2: {message}"):
        load(tmp_path, [{**BOX, **change}], metric="grounding")


@pytest.mark.parametrize(
    ("metric", "row", "message"),
    [
        ("mathvista", {}, "the column 'question_type' is empty"),
        (
            "mathvista",
            {"question_type": "multi_choice", "answer_type": "text"},
            "needs the column 'answer_option'",
        ),
        ("ocrbench", {}, "the column 'category' is empty"),
        ("hallusionbench", {"answer": "Yes"}, "'1' is not category_subcategory_visual"),
        ("hallusionbench", {"index": "a_b_1_2_3_4"}, "the answer is Yes or No, not 'A'"),
        ("videomme", {"answer": "E"}, "the answer is a letter A to D, not 'E'"),
        ("number", {}, "'A' holds no number"),
        ("regex", {"answer": "("}, r"'\(' is no regular expression"),
        ("json_field", {}, "needs the key 'field'"),
        ("iou", {}, "the answer 'A' is not a box"),
    ],
)
def test_what_a_metric_cannot_judge_is_found_before_any_model_runs(tmp_path, metric, row, message):
    rows = [{**ROW, "image": RED, **row}]
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows, metric=metric)


def test_a_tolerance_below_zero_is_refused(tmp_path):
    rows = [{**ROW, "answer": "7", "image": RED}]
    with pytest.raises(DataError, match="must not be below 0"):
        load(tmp_path, rows, metric="number", tolerance=-1)


def test_rolls_need_numbers_as_indices(tmp_path):
    with pytest.raises(DataError, match="item 'x': the index 'x' is not a number"):
        load(tmp_path, [{**ROW, "index": "x", "image": RED}], aggregate="circular")
