"""Marks become a score the official way, between two bounds where a judge is missing."""

import pytest

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.aggregates import cluster_of, question_of
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.metrics import METRICS
from ovis_model.evaluation.scoring.score import compute_score

RIGHT, WRONG = Mark(correct=True, value=1.0), Mark(correct=False, value=0.0)
OPEN = Mark(correct=False, value=0.0, needs_judge=True)
EMPTY = Mark(correct=False, value=0.0, invalid=True)
CHOICE = METRICS["multiple_choice"]


def items(*ids, **columns):
    return [
        BenchmarkItem(
            id=name,
            question="?",
            answer="A",
            columns={key: values[index] for key, values in columns.items()},
        )
        for index, name in enumerate(ids)
    ]


def test_unresolved_answers_bound_the_score_from_both_sides():
    score = compute_score(items(*"abcd"), [RIGHT, WRONG, OPEN, EMPTY], CHOICE, "mean")
    assert (score.value, score.upper) == (25.0, 50.0)
    assert (score.unresolved, score.invalid, score.num_items, score.num_units) == (1, 1, 4, 4)


def test_an_answer_that_is_right_is_not_unresolved():
    mark = Mark(correct=True, value=1.0, needs_judge=True)
    assert (mark.status, OPEN.status, EMPTY.status, WRONG.status) == (
        "scored",
        "unresolved",
        "invalid",
        "scored",
    )


def test_graded_metrics_count_the_value_and_others_the_hit():
    half = [Mark(correct=True, value=0.6), WRONG]
    assert compute_score(items("a", "b"), half, METRICS["anls"], "mean").value == 30.0
    assert compute_score(items("a", "b"), half, METRICS["iou"], "mean").value == 50.0


def test_a_question_of_mmbench_is_open_only_if_no_roll_is_wrong():
    asked = items("1", "1000001", "2", "1000002", "2000002", "3")
    marks = [RIGHT, OPEN, RIGHT, OPEN, WRONG, RIGHT]
    score = compute_score(asked, marks, CHOICE, "circular")
    assert score.value == pytest.approx(100 / 3)
    assert score.upper == pytest.approx(200 / 3)
    assert score.parts == {"single rolls": 50.0}
    assert score.num_units == 3


def test_refcoco_is_the_mean_of_its_splits():
    asked = items(*"abcd", split=["RefCOCO_val"] * 3 + ["RefCOCOg_test"])
    score = compute_score(asked, [RIGHT, WRONG, WRONG, RIGHT], METRICS["grounding"], "refcoco")
    assert score.value == pytest.approx((100 / 3 + 100) / 2)
    assert score.parts["RefCOCO_val"] == pytest.approx(100 / 3)
    others = items(*"abcd", split=["mine"] * 3 + ["yours"])
    score = compute_score(others, [RIGHT, WRONG, WRONG, RIGHT], METRICS["grounding"], "refcoco")
    assert (score.value, score.parts["yours"]) == (50.0, 100.0)  # no official split among them


def test_ocrbench_counts_hits_of_what_was_asked():
    asked = items(*"abc", category=["X", "X", "Y"])
    score = compute_score(asked, [RIGHT, WRONG, RIGHT], METRICS["ocrbench"], "ocrbench")
    assert score.value == pytest.approx(200 / 3)
    assert score.parts == {"hits of 3": 2, "X": 1, "Y": 1}


def test_questions_of_a_set_and_about_a_picture_are_clusters():
    asked = items("VD_figure_1_0_1_2", "VD_figure_1_0_0_0", "VS_map_1_0_0_0")
    sets = [cluster_of(item, "hallusionbench") for item in asked]
    assert sets == [("VD_figure", "0"), ("VD_figure", "0"), ("VS_map", "0")]
    shown = BenchmarkItem(id="x", question="?", answer="A", image=("1#0",))
    assert cluster_of(shown, "mean") == ("1#0",)
    assert cluster_of(asked[0], "mean") == "VD_figure_1_0_1_2"
    assert question_of(items("3000007")[0]) == 7


@pytest.mark.parametrize("marks", [[], [RIGHT]])
def test_there_is_one_mark_per_item(marks):
    with pytest.raises(ValueError, match=r"marks for 2 items; one of each is needed"):
        compute_score(items("a", "b"), marks, CHOICE, "mean")
