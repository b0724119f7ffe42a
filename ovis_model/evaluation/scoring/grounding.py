"""Does a box hit?  RefCOCO, and data of one's own with boxes in pixels.

Two judgements of one answer.  The lenient one reads whatever looks like a box, as VLMEvalKit's
RefCOCO class does, but tries Ovis2.5's own form first: a digit in `<ref>2 dogs</ref>` is no
coordinate.  The strict one takes nothing but that form, fractions from 0 to 1 with the corners in
order; where a fine-tune learned another scale, the two part.

Source: VLMEvalKit @ e8e78f05, `dataset/refcoco.py`; Ovis2.5's model card.
"""

import re
from collections.abc import Sequence

from ovis_model.errors import DataError
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.grounding import IOU_TOLERANCE, Box, parse_grounding

#: A predicted box hits if it shares at least half of the union with the true one.
IOU_THRESHOLD = 0.5
#: Coordinates up to this are fractions of the image, a little overshoot included.
MAX_FRACTION = 1.5
#: Larger ones up to this are thousandths of it; still larger ones are pixels.
MAX_PER_MILLE = 1000.0

_NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"
_LIST = re.compile(r"\[\s*({0}){1}({0}){1}({0}){1}({0})\s*\]".format(_NUMBER, r"(?:\s*,\s*|\s+)"))
_ANY_NUMBER = re.compile(_NUMBER)

Size = tuple[float, float]


def is_hit(overlap: float) -> bool:
    """Whether an IoU is enough."""
    return overlap >= IOU_THRESHOLD - IOU_TOLERANCE


def iou(answer: str, truth: str) -> Mark:
    """Compare the first tagged box of the answer with the true box, both in fractions.

    Raises:
        DataError: If the true answer holds no box.
    """
    boxes = parse_grounding(answer).boxes
    if not boxes:
        return Mark(correct=False, value=0.0, invalid=True)
    overlap = boxes[0].iou(true_box(truth))
    return Mark(is_hit(overlap), overlap)


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


def mark_box(answer: str, truth: Box, size: Size) -> Mark:
    """Mark an answer that locates one thing.

    Args:
        answer: What the model wrote; its first box counts.
        truth: The true box, in pixels of the original image.
        size: Width and height of that image, in pixels.
    """
    numbers = _read_box(answer)
    if numbers is None:
        return Mark(correct=False, value=0.0, invalid=True, strict=False, conforms=False)
    box = to_pixels(numbers, size)
    overlap = box.iou(truth)
    hit = is_hit(overlap)
    conforms = _is_as_taught(answer)
    return Mark(
        correct=hit,
        value=overlap,
        extracted=", ".join(f"{value:g}" for value in (box.x1, box.y1, box.x2, box.y2)),
        strict=hit and conforms,
        conforms=conforms,
    )


def to_pixels(numbers: Sequence[float], size: Size) -> Box:
    """Read four coordinates at the scale they seem to have, inside the image, corners in order.

    Args:
        numbers: x1, y1, x2, y2.
        size: Width and height of the image, in pixels.

    Example:
        >>> to_pixels([0.5, 0.5, 0.1, 1.2], (640, 480))
        Box(x1=64.0, y1=240.0, x2=320.0, y2=480, label='')
    """
    largest = max(map(abs, numbers))
    unit = 1.0 if largest <= MAX_FRACTION else MAX_PER_MILLE
    scaled = [
        number if largest > MAX_PER_MILLE else number / unit * side
        for number, side in zip(numbers, (*size, *size), strict=True)
    ]
    x1, y1, x2, y2 = (
        min(max(number, 0), side) for number, side in zip(scaled, (*size, *size), strict=True)
    )
    return Box(x1, y1, x2, y2).ordered()


def read_four(text: str) -> list[float] | None:
    """Read `[a, b, c, d]`, or else the first four numbers of a text.

    Example:
        >>> read_four("2 dogs at [1 2 3 4]"), read_four("only 1, 2, 3")
        ([1.0, 2.0, 3.0, 4.0], None)
    """
    listed = _LIST.search(text)
    found = listed.groups() if listed else _ANY_NUMBER.findall(text)[:4]
    return [float(number) for number in found] if len(found) == 4 else None


def _read_box(answer: str) -> list[float] | None:
    boxes = parse_grounding(answer).boxes
    if boxes:
        return [boxes[0].x1, boxes[0].y1, boxes[0].x2, boxes[0].y2]
    return read_four(answer)


def _is_as_taught(answer: str) -> bool:
    """Whether the first box is tagged and in fractions, its corners in order."""
    boxes = parse_grounding(answer).boxes
    if not boxes:
        return False
    box = boxes[0]
    return 0 <= box.x1 <= box.x2 <= 1 and 0 <= box.y1 <= box.y2 <= 1
