"""What belongs together in a benchmark, as stored rows name it.

`scoring.aggregates` says how a score comes from items; a row has no item, so it carries the names
of its groups, and the benchmark's record says which of them the score is made of.
"""

import hashlib
from collections.abc import Mapping, Sequence

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.aggregates import (
    AGGREGATES,
    REFCOCO_SPLITS,
    AggregateName,
    cluster_of,
    question_of,
    set_of,
)
from ovis_model.evaluation.scoring.hallusionbench import HallusionIndex

#: Bounds of the slice "image size", in pixels of the largest picture, and their names.
IMAGE_SIZES = (
    (448 * 448, "up to 448 px square"),
    (1024 * 1024, "up to 1024 px square"),
)
LARGEST = "over 1024 px square"


def parts_of(aggregate: AggregateName, items: Sequence[BenchmarkItem]) -> tuple[str, ...]:
    """Name the parts that a score is the mean of, as `aggregation` reads them.

    Args:
        aggregate: How marks become the score.
        items: Of the benchmark.
    """
    if aggregate == "circular":
        return ("all:question",)
    if aggregate == "hallusionbench":
        return ("rows", "all:figure", "all:question")
    if aggregate == "refcoco" and all(
        item.columns.get("split") in REFCOCO_SPLITS for item in items
    ):
        return ("each:split",)
    return ("rows",)


def groups_of(item: BenchmarkItem, aggregate: AggregateName) -> dict[str, str]:
    """Name the groups of an item in which every answer has to be right."""
    if aggregate == "circular":
        return {"question": str(question_of(item))}
    if aggregate == "hallusionbench":
        index = HallusionIndex.parse(item.id)
        place = "/".join(set_of(item))
        return {
            "figure": f"{place}/{index.figure_id}",
            "question": f"{place}/{index.question_id}",
        }
    return {}


def cluster_name(item: BenchmarkItem, aggregate: AggregateName, digests: Sequence[str]) -> str:
    """Name what an item shares with those that are not independent of it.

    Args:
        item: The item.
        aggregate: Groups that are scored together are one cluster.
        digests: sha256 of its media: questions about the same pictures are one cluster,
            whatever the pictures are called.
    """
    if AGGREGATES[aggregate].unit is not None:
        return str(cluster_of(item, aggregate))
    return hashlib.sha256(",".join(digests).encode()).hexdigest() if digests else item.id


def slices_of(
    item: BenchmarkItem, columns: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> Mapping[str, str]:
    """Name the properties that an item's score may depend on.

    Args:
        item: The item.
        columns: Columns of the benchmark to tell scores apart by.
        sizes: Width and height of its pictures.
    """
    found = {name: item.columns[name] for name in columns if item.columns.get(name)}
    if "split" in item.columns:
        found["split"] = item.columns["split"]
    if item.video is not None:
        found["media"] = "video"
    else:
        found["media"] = {0: "text", 1: "image"}.get(len(item.image), "several images")
    if sizes:
        largest = max(width * height for width, height in sizes)
        found["image size"] = next(
            (name for most, name in IMAGE_SIZES if largest <= most), LARGEST
        )
    return found
