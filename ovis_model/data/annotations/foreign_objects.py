"""ms-swift's grounding: `<ref-object>` and `<bbox>` in the text, what they stand for beside it.

    {"messages": [..., {"role": "assistant", "content": "<ref-object><bbox> on the beach"}],
     "images": ["a.jpg"],
     "objects": {"ref": ["a dog"], "bbox": [[331.5, 761.4, 853.5, 1594.8]],
                 "bbox_type": "real", "image_id": [0], "width": [1200], "height": [1600]}}

A bbox of four numbers is a box, of two a point.  `bbox_type` is "real", pixels of the image that
`image_id` names (the first, if nobody says), or "norm1", fractions.  They are filled in as
`<ref>a dog</ref><box>(0.276,0.476),(0.711,0.997)</box>`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovis_model.data.annotations.coordinates import Size, to_fractions, write_mark, write_ref
from ovis_model.errors import DataError

_REF, _BBOX = "<ref-object>", "<bbox>"
_OPENING = re.compile(f"{_REF}|{_BBOX}")
_NUMBER = r"(\d+(?:\.\d+)?)"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
#: What a reader of Ovis's notation finds, in the form that is written by this project.
_WRITTEN = re.compile(
    rf"<ref>(?P<ref>[^<]*)</ref>|<box>{_PAIR},{_PAIR}</box>|<point>{_PAIR}</point>"
)
_CONVENTIONS = {"real": "absolute", "norm1": "normalised", "norm1000": "permille"}


def has_openings(texts: Sequence[str]) -> bool:
    """Tell whether a text has a place where an object belongs."""
    return any(_OPENING.search(text) for text in texts)


def fill_in_objects(
    texts: Sequence[str],
    objects: Mapping[str, Any],
    images: Sequence[Any],
    size_of: Callable[[Any], Size | None],
) -> list[str]:
    """Write names and boxes where the texts have openings for them, in order.

    Args:
        texts: What is said, turn by turn.
        objects: ms-swift's object.
        images: Paths of the images, in order.
        size_of: Returns the size of an image, or None if nobody knows.

    Raises:
        DataError: If there are more or fewer than openings, or a box cannot be converted.
    """
    refs, boxes = _list_of(objects, "ref"), _list_of(objects, "bbox")
    if not all(isinstance(ref, str) for ref in refs):
        raise DataError("objects.ref is not a list of texts")
    for opening, given in ((_REF, refs), (_BBOX, boxes)):
        found = sum(text.count(opening) for text in texts)
        if found != len(given):
            raise DataError(f"the texts have {found} {opening}, objects has {len(given)}")
    fillings = {
        _REF: [write_ref(ref) for ref in refs],
        _BBOX: [
            write_mark(_to_fractions(box, index, objects, images, size_of))
            for index, box in enumerate(boxes)
        ],
    }
    pending = {opening: iter(filling) for opening, filling in fillings.items()}
    return [_OPENING.sub(lambda match: next(pending[match[0]]), text) for text in texts]


def _list_of(objects: Mapping[str, Any], key: str) -> list[Any]:
    value = objects.get(key)
    if value is not None and not isinstance(value, list):
        raise DataError(f"objects.{key} is a {type(value).__name__}, not a list")
    return value or []


def _to_fractions(
    box: Any,
    index: int,
    objects: Mapping[str, Any],
    images: Sequence[Any],
    size_of: Callable[[Any], Size | None],
) -> list[float]:
    kind = objects.get("bbox_type") or "real"
    if kind not in _CONVENTIONS:
        raise DataError(f"objects.bbox_type is {kind!r}; read are {', '.join(_CONVENTIONS)}")
    numbers = read_numbers(box, f"objects.bbox[{index}]")
    size = None
    if kind == "real":
        size = _size(index, objects, images, size_of)
    return to_fractions(numbers, _CONVENTIONS[kind], size)


def read_numbers(box: Any, where: str) -> list[float]:
    """Return the numbers of a box or point.

    Raises:
        DataError: If it is not a list of numbers.
    """
    if not isinstance(box, list) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in box
    ):
        raise DataError(f"{where} is not a list of numbers")
    return [float(number) for number in box]


def _size(
    index: int,
    objects: Mapping[str, Any],
    images: Sequence[Any],
    size_of: Callable[[Any], Size | None],
) -> Size:
    ids = _list_of(objects, "image_id")
    image = ids[index] if index < len(ids) else 0
    if type(image) is not int or not 0 <= image < len(images):
        raise DataError(f"objects.image_id[{index}] is {image!r}; there are {len(images)} images")
    widths, heights = _list_of(objects, "width"), _list_of(objects, "height")
    if image < len(widths) and image < len(heights):
        width, height = widths[image], heights[image]
        if type(width) is int and type(height) is int:
            return width, height
    size = size_of(images[image])
    if size is None:
        raise DataError(
            f"objects.bbox[{index}] is in pixels, and the size of {images[image]!r} is not known"
        )
    return size


def take_out_objects(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Do the reverse: openings in the texts, and the objects beside them, as fractions.

    Example:
        >>> take_out_objects(["<ref>a 7</ref><box>(0.100,0.200),(0.300,0.400)</box>!"])[0]
        ['<ref-object><bbox>!']
    """
    refs: list[str] = []
    boxes: list[list[float]] = []

    def open_up(match: re.Match[str]) -> str:
        if match["ref"] is not None:
            refs.append(match["ref"].replace("&lt;", "<"))
            return _REF
        boxes.append([float(number) for number in match.groups()[1:] if number is not None])
        return _BBOX

    if has_openings(texts):  # somebody writes about openings: they would be taken for ours
        return list(texts), {}
    opened = [_WRITTEN.sub(open_up, text) for text in texts]
    if not refs and not boxes:
        return list(texts), {}
    return opened, {"ref": refs, "bbox": boxes, "bbox_type": "norm1"}
