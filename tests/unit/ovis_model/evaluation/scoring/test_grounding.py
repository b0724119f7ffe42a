"""An answer is right or wrong, and an answer without anything to mark is invalid."""

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.scoring.grounding import iou, mark_box, to_pixels, true_box
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.grounding import Box
from tests.support.official_rows import needs_official_rows, read_official

TRUTH = "<box>(0.100,0.100),(0.500,0.500)</box>"


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        pytest.param(TRUTH, True, id="the same box"),
        pytest.param("<ref>7</ref>" + TRUTH, True, id="with a ref"),
        pytest.param("<box>(0.100,0.100),(0.500,0.300)</box>", True, id="IoU 0.5, just"),
        pytest.param("<box>(0.100,0.100),(0.500,0.299)</box>", False, id="IoU 0.4975"),
        pytest.param("<box>(0.6,0.6),(0.9,0.9)</box>" + TRUTH, False, id="the first box counts"),
        pytest.param("<box>(100,100),(500,500)</box>", False, id="not fractions"),
    ],
)
def test_iou(answer, correct):
    assert iou(answer, TRUTH).correct is correct
    assert not iou(answer, TRUTH).invalid


@pytest.mark.parametrize("answer", ["", "nowhere", "<point>(0.3,0.3)</point>"])
def test_an_answer_without_a_box_is_invalid(answer):
    assert iou(answer, TRUTH) == Mark(correct=False, value=0.0, invalid=True)


def test_a_true_answer_must_be_a_box_of_fractions():
    with pytest.raises(DataError, match="write fractions of the image"):
        true_box("<box>(10,10),(50,50)</box>")


@needs_official_rows
def test_boxes_of_ones_own_are_marked_as_the_official_rows_are():
    for row in read_official("grounding")["rows"]:
        if not row["conforms_to_ovis_format"]:
            continue
        x1, y1, x2, y2 = row["answer"]
        width, height = row["width"], row["height"]
        truth = Box(x1 / width, y1 / height, x2 / width, y2 / height)
        text = f"<box>({truth.x1},{truth.y1}),({truth.x2},{truth.y2})</box>"
        mark = iou(row["prediction"], text)
        assert mark.correct == row["expected_score"], row["id"]
        assert mark.value == pytest.approx(row["expected_iou"], abs=1e-6), row["id"]


TRUTH_PIXELS, SIZE = Box(64, 48, 320, 240), (640, 480)


@pytest.mark.parametrize(
    ("answer", "correct", "strict", "conforms"),
    [
        pytest.param("[64 48 320 240]", False, False, False, id="pixels read as per mille"),
        pytest.param("[100, 100, 500, 500]", True, False, False, id="per mille"),
        pytest.param("x [1,2,3] [.1,.1,.5,.5]", True, False, False, id="first list of four"),
        pytest.param("2 at 0.1 0.1 0.5", False, False, False, id="any four numbers"),
        pytest.param("1e-1, 1e-1, 5e-1, 5e-1", True, False, False, id="exponents"),
        pytest.param("<box>0.1,0.1,0.5,0.5</box>", True, False, False, id="no brackets inside"),
        pytest.param(
            "[0,0,1,1] <box>(0.1,0.1),(0.5,0.5)</box>", True, True, True, id="tag before list"
        ),
        pytest.param("<box>(-0.1,0.1),(0.5,0.5)</box>", True, False, False, id="below zero"),
        pytest.param("<box>(0.1,0.1),(0.1,0.5)</box>", False, False, True, id="no width"),
        pytest.param("<box>(0.5,0.1),(0.1,0.5)</box>", True, False, False, id="x reversed"),
        pytest.param("<box>(0.6,0.6),(1.6,0.9)</box>", False, False, False, id="one over 1.5"),
        pytest.param(
            "<box>(0.1,0.1),(0.5,0.5),(0.7,0.7),(0.9,0.9)</box>", True, True, True, id="two in one"
        ),
    ],
)
def test_a_box_is_read_leniently_and_judged_strictly_as_well(answer, correct, strict, conforms):
    found = mark_box(answer, TRUTH_PIXELS, SIZE)
    assert (found.correct, found.strict, found.conforms) == (correct, strict, conforms)
    assert not found.invalid


@pytest.mark.parametrize("answer", ["", "1 2 3", "<point>(0.1,0.2)</point>", "nowhere"])
def test_fewer_than_four_numbers_are_no_box(answer):
    found = mark_box(answer, TRUTH_PIXELS, SIZE)
    assert found == Mark(correct=False, value=0.0, invalid=True, strict=False, conforms=False)
    assert found.status == "invalid"


@pytest.mark.parametrize(
    ("numbers", "box"),
    [
        pytest.param([1200, 100, 64, 48], (64, 48, 640, 100), id="pixels, clipped and ordered"),
        pytest.param([1000, 0, 500, 1000], (320, 0, 640, 480), id="per mille up to 1000"),
        pytest.param([-1.5, 0, 1.5, 1], (0, 0, 640, 480), id="fractions up to 1.5"),
        pytest.param([1.51, 0, 1000, 500], (0.9664, 0, 640, 240), id="per mille from there"),
        pytest.param([-2000, 0, 100, 100], (0, 0, 100, 100), id="pixels by the largest size"),
    ],
)
def test_the_scale_of_four_numbers_is_told_by_the_largest(numbers, box):
    found = to_pixels(numbers, SIZE)
    assert (found.x1, found.y1, found.x2, found.y2) == pytest.approx(box)
