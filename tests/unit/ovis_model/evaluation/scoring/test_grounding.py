"""An answer is right or wrong, and an answer without anything to mark is invalid."""

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.scoring.grounding import iou, true_box
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
