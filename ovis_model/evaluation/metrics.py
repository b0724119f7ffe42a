"""Is an answer right?  One pure function per metric, looked up by its name in the YAML."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ovis_model.errors import DataError
from ovis_model.inference.grounding import IOU_TOLERANCE, Box, parse_grounding

#: A predicted box hits if it shares at least half of the union with the true one.
IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class Mark:
    """The judgement of one answer.

    Attributes:
        correct: Whether it counts.
        value: What the metric measured, 0 to 1.
        invalid: Whether there was nothing to judge: no answer, or no box in it.
    """

    correct: bool
    value: float
    invalid: bool = False


def exact(answer: str, truth: str) -> Mark:
    r"""Compare character by character after removing white space at both ends.

    Example:
        >>> exact(" 7\n", "7").correct, exact("07", "7").correct
        (True, False)
    """
    given = answer.strip()
    correct = given == truth.strip()
    return Mark(correct, float(correct), invalid=not given)


def iou(answer: str, truth: str) -> Mark:
    """Compare the first box of the answer with the true box.

    Raises:
        DataError: If the true answer holds no box.
    """
    boxes = parse_grounding(answer).boxes
    if not boxes:
        return Mark(correct=False, value=0.0, invalid=True)
    overlap = boxes[0].iou(true_box(truth))
    return Mark(overlap >= IOU_THRESHOLD - IOU_TOLERANCE, overlap)


def true_box(truth: str) -> Box:
    """Read the box of a benchmark's own answer.

    Raises:
        DataError: If there is none, or its coordinates are not fractions in order.
    """
    boxes = parse_grounding(truth).boxes
    if not boxes or not boxes[0].conforms:
        raise DataError(
            f"the answer {truth!r} is not a box; write fractions of the image, top left corner "
            "first: <box>(0.100,0.250),(0.500,0.750)</box>"
        )
    return boxes[0]


METRICS: Mapping[str, Callable[[str, str], Mark]] = MappingProxyType({"exact": exact, "iou": iou})
