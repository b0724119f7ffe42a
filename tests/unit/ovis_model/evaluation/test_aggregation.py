"""Scores of groups and splits, and intervals that know what belongs together."""

import numpy as np
import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.aggregation import (
    best_worth,
    is_binary,
    score_interval,
    share_rows,
)
from ovis_model.evaluation.statistics import wilson_interval
from tests.support.predictions import row


def rotations(*scores, group, **fields):
    return [
        row(f"{group}-{turn}", float(score), cluster=group, groups={"group": group}, **fields)
        for turn, score in enumerate(scores)
    ]


def test_a_circular_group_counts_only_if_every_rotation_is_right():
    rows = [*rotations(1, 1, 0, group="a"), *rotations(1, 1, group="b")]
    assert share_rows(rows).score == pytest.approx(4 / 5)
    assert share_rows(rows, ("all:group",)).score == pytest.approx(1 / 2)


def test_each_seed_has_a_group_of_its_own():
    rows = [*rotations(1, 1, group="a"), *rotations(1, 0, group="a", seed=1)]
    assert share_rows(rows, ("all:group",)).score == 0.5


def test_hallusionbench_is_the_mean_of_three_parts():
    rows = [
        row(
            f"{figure}{question}",
            float(score),
            cluster="set",
            groups={"figure": figure, "question": question},
        )
        for figure, question, score in [("f", "p", 1), ("f", "q", 0), ("g", "p", 1), ("g", "q", 1)]
    ]
    parts = ("rows", "all:figure", "all:question")
    assert share_rows(rows, parts).score == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)


def test_splits_weigh_the_same_whatever_their_size():
    rows = [row("1", 1.0, slices={"split": "a"})]
    rows += [row(str(n), 0.0, slices={"split": "b"}) for n in range(2, 6)]
    assert share_rows(rows, ("each:split",)).score == 0.5


def test_a_split_that_a_resample_misses_does_not_count_there():
    rows = [row("1", 1.0, slices={"split": "a"}), row("2", 0.5, slices={"split": "b"})]
    shares = share_rows(rows, ("each:split",))
    assert shares.scores(np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])).tolist() == [
        1.0,
        0.5,
        0.75,
    ]


def test_an_unresolved_answer_may_be_worth_everything():
    rows = [row("1", 0.0, status="unresolved"), row("2", 0.0)]
    assert (share_rows(rows).score, share_rows(rows, of=best_worth).score) == (0.0, 0.5)


def test_independent_answers_have_wilsons_interval():
    rows = [row(str(n), float(n < 3)) for n in range(10)]
    assert is_binary(rows, ("rows",))
    assert score_interval(rows) == (0.3, *wilson_interval(3, 10))


def test_answers_about_one_picture_have_a_wider_interval():
    alone = [row(str(n), float(n % 2)) for n in range(80)]
    shared = [row(str(n), float(n // 8 % 2), cluster=str(n // 8)) for n in range(80)]
    _, low, high = score_interval(alone)
    score, shared_low, shared_high = score_interval(shared)
    assert score == 0.5
    assert shared_high - shared_low > 2 * (high - low)


def test_all_right_in_few_clusters_is_not_certain():
    rows = [row(str(n), 1.0, cluster=str(n // 4)) for n in range(20)]
    assert score_interval(rows) == (1.0, *wilson_interval(5, 5))


def test_an_unknown_part_is_refused():
    with pytest.raises(DataError, match="a score has no part 'mean'; write rows, all: and"):
        share_rows([row("1")], ("mean",))


def test_a_row_that_does_not_name_its_group_is_refused():
    with pytest.raises(DataError, match="benchmark 'x', index 1: the score needs 'figure'"):
        share_rows([row("1")], ("all:figure",))


def test_a_group_across_clusters_is_refused():
    rows = [row(str(n), groups={"g": "a"}) for n in range(2)]
    with pytest.raises(DataError, match="the g 'a' reaches into 2 clusters"):
        share_rows(rows, ("all:g",))
