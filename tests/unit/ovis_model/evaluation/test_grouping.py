"""A score of stored rows is the score of the items they are about."""

import random

import pytest

from ovis_model.evaluation.aggregation import share_rows
from ovis_model.evaluation.grouping import cluster_name, groups_of, parts_of, slices_of
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.aggregates import AGGREGATES, REFCOCO_SPLITS
from tests.support.predictions import row


def item(index, **fields):
    return BenchmarkItem(id=index, question="?", answer="yes", **fields)


ITEMS = {
    "mean": [item(str(n)) for n in range(12)],
    "circular": [item(str(n % 4 + n // 4 * 1_000_000)) for n in range(12)],
    "hallusionbench": [
        item(f"VD_figure_{place}_1_{figure}_{question}")
        for place in range(2)
        for figure in range(2)
        for question in range(3)
    ],
    "refcoco": [item(str(n), columns={"split": REFCOCO_SPLITS[n % 5 // 2]}) for n in range(12)],
    "ocrbench": [item(str(n), columns={"category": "ab"[n % 2]}) for n in range(12)],
}


@pytest.mark.parametrize("aggregate", ITEMS)
def test_rows_score_as_their_items_do(aggregate):
    items = ITEMS[aggregate]
    generator = random.Random(1)
    for _ in range(5):
        marks = [float(generator.random() < 0.8) for _ in items]
        rows = [
            row(
                one.id,
                credit,
                cluster=cluster_name(one, aggregate, []),
                groups=groups_of(one, aggregate),
                slices=slices_of(one, (), ()),
            )
            for one, credit in zip(items, marks, strict=True)
        ]
        expected = AGGREGATES[aggregate].compute(items, marks)["score"]
        found = share_rows(rows, parts_of(aggregate, items)).score
        assert 100 * found == pytest.approx(expected)


def test_a_split_that_is_none_of_refcoco_is_no_part_of_its_score():
    assert parts_of("refcoco", [item("1", columns={"split": "mine"})]) == ("rows",)


def test_equal_pictures_are_one_cluster_whatever_they_are_called():
    one, other = item("1", image=("a.png",)), item("2", image=("b.png",))
    assert cluster_name(one, "mean", ["00"]) == cluster_name(other, "mean", ["00"])
    assert cluster_name(one, "mean", ["00"]) != cluster_name(one, "mean", ["00", "01"])
    assert cluster_name(item("3"), "mean", []) == "3"


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ([(448, 448)], "up to 448 px square"),
        ([(449, 448)], "up to 1024 px square"),
        ([(10, 10), (2000, 2000)], "over 1024 px square"),
    ],
)
def test_the_largest_picture_decides_the_size_slice(sizes, name):
    assert slices_of(item("1"), (), sizes)["image size"] == name


def test_slices_are_the_benchmarks_columns_and_what_was_shown():
    charts = item("1", image=("a.png", "b.png"), columns={"category": "charts", "empty": ""})
    assert slices_of(charts, ("category", "empty"), ()) == {
        "category": "charts",
        "media": "several images",
    }
    assert slices_of(item("2"), (), ())["media"] == "text"
    assert slices_of(item("3", video="a.mp4"), (), ())["media"] == "video"
