"""How the credits of single answers become the score of a benchmark, in percent.

    mean             of all answers
    circular         MMBench: of questions; one counts if all its rolls are right
    hallusionbench   mean of aAcc, fAcc and qAcc: of answers, figures and questions
    ocrbench         hits; the official number is hits of 1000
    refcoco          mean of the splits' own scores

Each is a plain function of items and their points, 0 to 1 each, so that an interval can compute
it anew for every resample of the items.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.hallusionbench import HallusionIndex

AggregateName = Literal["mean", "circular", "hallusionbench", "ocrbench", "refcoco"]
#: Rolls of one MMBench question have indices this far apart.
ROLL_STEP = 1_000_000
NUM_OCRBENCH_ITEMS = 1000
REFCOCO_SPLITS = (
    "RefCOCO_val",
    "RefCOCO_testA",
    "RefCOCO_testB",
    "RefCOCO+_val",
    "RefCOCO+_testA",
    "RefCOCO+_testB",
    "RefCOCOg_val",
    "RefCOCOg_test",
)

Items = Sequence[BenchmarkItem]
Points = Sequence[float]


@dataclass(frozen=True)
class Aggregate:
    """A way to a score.

    Attributes:
        compute: Returns "score" and its parts, percent where the name does not say otherwise.
        unit: Returns which items are one unit of the score, for those that only count together.
    """

    compute: Callable[[Items, Points], dict[str, float]]
    unit: Callable[[BenchmarkItem], Hashable] | None = None


def question_of(item: BenchmarkItem) -> int:
    """Return the MMBench question of which an item is a roll.

    Raises:
        ValueError: If the item's index is not a number.
    """
    try:
        return int(item.id) % ROLL_STEP
    except ValueError as error:
        raise ValueError(
            f"the index {item.id!r} is not a number; rolls of a question are {ROLL_STEP} apart"
        ) from error


def set_of(item: BenchmarkItem) -> tuple[str, str]:
    """Return the HallusionBench set of an item."""
    index = HallusionIndex.parse(item.id)
    return index.l2_category, index.set_id


def _mean(_: Items, points: Points) -> dict[str, float]:
    return {"score": 100 * fmean(points)}


def _circular(items: Items, points: Points) -> dict[str, float]:
    return {
        "score": _share_all_right(items, points, question_of),
        "single rolls": 100 * fmean(points),
    }


def _hallusionbench(items: Items, points: Points) -> dict[str, float]:
    overall = _accuracies(items, points)
    parts = {"score": fmean(overall.values()), **overall}
    groups = _by(items, lambda item: _index(item).category)
    groups |= _by(items, lambda item: _index(item).l2_category)
    for name, chosen in groups.items():
        accuracies = _accuracies([items[i] for i in chosen], [points[i] for i in chosen])
        parts |= {f"{name} {key}": value for key, value in accuracies.items()}
    return parts


def _accuracies(items: Items, points: Points) -> dict[str, float]:
    def figure(item: BenchmarkItem) -> Hashable:
        return (*set_of(item), _index(item).figure_id)

    def question(item: BenchmarkItem) -> Hashable:
        return (*set_of(item), _index(item).question_id)

    return {
        "aAcc": 100 * fmean(points),
        "fAcc": _share_all_right(items, points, figure),
        "qAcc": _share_all_right(items, points, question),
    }


def _ocrbench(items: Items, points: Points) -> dict[str, float]:
    parts = {"score": 100 * fmean(points), f"hits of {len(items)}": sum(points)}
    groups = _by(items, lambda item: item.columns["category"])
    return parts | {name: sum(points[i] for i in chosen) for name, chosen in groups.items()}


def _refcoco(items: Items, points: Points) -> dict[str, float]:
    groups = _by(items, lambda item: item.columns.get("split", ""))
    means = {name: 100 * fmean(points[i] for i in chosen) for name, chosen in groups.items()}
    official = [means[name] for name in REFCOCO_SPLITS if name in means]
    named = {name: mean for name, mean in means.items() if name}
    return {"score": fmean(official) if official else 100 * fmean(points), **named}


AGGREGATES: Mapping[AggregateName, Aggregate] = MappingProxyType(
    {
        "mean": Aggregate(_mean),
        "circular": Aggregate(_circular, question_of),
        "hallusionbench": Aggregate(_hallusionbench, set_of),
        "ocrbench": Aggregate(_ocrbench),
        "refcoco": Aggregate(_refcoco),
    }
)


def cluster_of(item: BenchmarkItem, aggregate: AggregateName) -> Hashable:
    """Return what an item shares with those that are not independent of it.

    Rolls of a question and questions of a set belong together, and so do questions about the
    same pictures; a text-only question stands alone.
    """
    unit = AGGREGATES[aggregate].unit
    if unit is not None:
        return unit(item)
    return item.media or item.id


def _index(item: BenchmarkItem) -> HallusionIndex:
    return HallusionIndex.parse(item.id)


def _by(items: Items, key: Callable[[BenchmarkItem], str]) -> dict[str, list[int]]:
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[key(item)].append(index)
    return dict(groups)


def _share_all_right(
    items: Items, points: Points, group: Callable[[BenchmarkItem], Hashable]
) -> float:
    lowest: dict[Hashable, float] = {}
    for item, credit in zip(items, points, strict=True):
        lowest[group(item)] = min(credit, lowest.get(group(item), 1.0))
    return 100 * fmean(lowest.values())
