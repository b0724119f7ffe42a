"""Boxes and points in text: what Ovis2.5 writes when it is asked where something is.

    <ref>red apple</ref><box>(0.100,0.250),(0.400,0.500)</box>
    [<point>(0.310,0.420)</point>,<point>(0.700,0.420)</point>]
    [(0.100,0.250),(0.400,0.500)]          coordinates alone, when asked for by `untagged`

Coordinates are fractions of the image's width and height in [0, 1), x before y, the origin at
the top left.  The image is resized without cropping before the model sees it, so fractions
refer to the original image and pixel = x * width, y * height.

A `<` inside a label is written `&lt;`, so that a label cannot end its own tag.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

RequestType = Literal["box", "point"]

#: Two IoUs this close are equal: 0.5 computed from decimals is often 0.49999999999999994.
IOU_TOLERANCE = 1e-9

_NUMBER = r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*"
_PAIR = re.compile(rf"\({_NUMBER},{_NUMBER}\)")
_PAIRS = re.compile(rf"\s*\[?\s*{_PAIR.pattern}(?:\s*,\s*{_PAIR.pattern})*\s*\]?\s*")
_FOUR_NUMBERS = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
_ITEM = re.compile(
    r"<ref>(?P<ref>.*?)</ref>|<(?P<kind>box|point)>(?P<inside>[^<]*)</(?P=kind)>", re.DOTALL
)
_OPENING = re.compile(r"<(?:box|point)>")


@dataclass(frozen=True)
class Box:
    """A rectangle from (x1, y1), top left, to (x2, y2), bottom right, as image fractions."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""

    @property
    def conforms(self) -> bool:
        """Whether the coordinates are fractions in order, as Ovis2.5 is taught to write."""
        return 0 <= self.x1 < self.x2 <= 1 and 0 <= self.y1 < self.y2 <= 1

    @property
    def area(self) -> float:
        """Share of the image; 0 if the corners are reversed."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)

    def ordered(self) -> "Box":
        """Return the same rectangle with its corners in order."""
        x1, x2 = sorted((self.x1, self.x2))
        y1, y2 = sorted((self.y1, self.y2))
        return Box(x1, y1, x2, y2, self.label)

    def iou(self, other: "Box") -> float:
        """Intersection over union, 0 to 1.

        Example:
            >>> Box(0.0, 0.0, 0.5, 1.0).iou(Box(0.25, 0.0, 0.75, 1.0))
            0.3333333333333333
        """
        width = min(self.x2, other.x2) - max(self.x1, other.x1)
        height = min(self.y2, other.y2) - max(self.y1, other.y1)
        shared = max(0.0, width) * max(0.0, height)
        union = self.area + other.area - shared
        return shared / union if union > 0 else 0.0

    def to_pixels(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Scale to an image of `width` x `height` pixels, clamped to it."""
        return (
            _clamp(self.x1) * width,
            _clamp(self.y1) * height,
            _clamp(self.x2) * width,
            _clamp(self.y2) * height,
        )

    def to_text(self) -> str:
        """Write the box as Ovis2.5 does, three decimals below 1.

        Example:
            >>> Box(0.1, 0.25, 0.5, 1.0).to_text()
            '<box>(0.100,0.250),(0.500,0.999)</box>'
        """
        x1, y1, x2, y2 = (min(_clamp(v), 0.999) for v in (self.x1, self.y1, self.x2, self.y2))
        return f"<box>({x1:.3f},{y1:.3f}),({x2:.3f},{y2:.3f})</box>"


@dataclass(frozen=True)
class Point:
    """A place in the image, as fractions of its width and height."""

    x: float
    y: float
    label: str = ""

    @property
    def conforms(self) -> bool:
        """Whether both coordinates are fractions."""
        return 0 <= self.x <= 1 and 0 <= self.y <= 1

    def to_pixels(self, width: int, height: int) -> tuple[float, float]:
        """Scale to an image of `width` x `height` pixels, clamped to it."""
        return _clamp(self.x) * width, _clamp(self.y) * height


@dataclass(frozen=True)
class Grounding:
    """Everything that a text locates, in the order it is written.

    Attributes:
        refs: Texts between `<ref>` and `</ref>`.
        boxes: Boxes, each labelled with the last `<ref>` before it.
        points: Points, labelled likewise.
        num_malformed: `<box>` and `<point>` tags whose inside could not be read; without tags,
            coordinates that miss a corner.
    """

    refs: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    num_malformed: int = 0


def parse_grounding(text: str, *, untagged: RequestType | None = None) -> Grounding:
    """Read refs, boxes and points; spaces and line breaks between the parts do not matter.

    Coordinates are returned as written: `conforms` tells those that are not fractions in order.
    A tag may hold several boxes or points.

    Args:
        text: What a model wrote.
        untagged: If there is no tag at all, read coordinates alone as this; None reads tags
            only.

    Example:
        >>> parse_grounding("<ref>a 7</ref> <box>( 0.1, 0.2 ), (0.3,0.4)</box>").boxes
        (Box(x1=0.1, y1=0.2, x2=0.3, y2=0.4, label='a 7'),)
        >>> parse_grounding("[(0.1,0.2),(0.3,0.4)]", untagged="point").points
        (Point(x=0.1, y=0.2, label=''), Point(x=0.3, y=0.4, label=''))
    """
    refs: list[str] = []
    found: list[Box | Point] = []
    num_read = 0
    for match in _ITEM.finditer(text):
        if match["ref"] is not None:
            refs.append(html.unescape(match["ref"].strip()))
        elif _PAIRS.fullmatch(match["inside"]):
            marks = _marks(match["inside"], match["kind"], refs)
            found += marks
            num_read += bool(marks)
    malformed = len(_OPENING.findall(text)) - num_read
    if untagged is not None and not found and not malformed:
        found, malformed = _read_untagged(text, untagged, refs)
    return Grounding(
        refs=tuple(refs),
        boxes=tuple(mark for mark in found if isinstance(mark, Box)),
        points=tuple(mark for mark in found if isinstance(mark, Point)),
        num_malformed=malformed,
    )


def _marks(pairs: str, kind: str, refs: Sequence[str]) -> list[Box | Point]:
    """Read (x, y) pairs as boxes of two pairs each, or as points; [] if a corner is missing."""
    label = refs[-1] if refs else ""
    corners = [(float(x), float(y)) for x, y in _PAIR.findall(pairs)]
    if kind == "point":
        return [Point(x, y, label) for x, y in corners]
    if len(corners) % 2:
        return []
    return [
        Box(*first, *second, label)
        for first, second in zip(corners[::2], corners[1::2], strict=True)
    ]


def _read_untagged(
    text: str, kind: RequestType, refs: Sequence[str]
) -> tuple[list[Box | Point], int]:
    """Read coordinates without tags; also count runs of pairs that miss a corner."""
    found: list[Box | Point] = []
    malformed = 0
    plain = _FOUR_NUMBERS.sub(r"(\1,\2),(\3,\4)", text) if kind == "box" else text
    for run in _PAIRS.finditer(plain):
        marks = _marks(run[0], kind, refs)
        found += marks
        malformed += not marks
    return found, malformed


def draw_overlay(
    image: Image.Image,
    marks: Sequence[tuple[Box | Point, str]],
    *,
    width: int | None = None,
    with_labels: bool = False,
) -> Image.Image:
    """Draw boxes and points on a copy of an image.

    Args:
        image: The picture; it is not changed.
        marks: What to draw, each with a colour name PIL knows.
        width: Line width in pixels; None picks one from the image's size.
        with_labels: Write each mark's label beside it.
    """
    canvas = image.convert("RGB")
    pen = ImageDraw.Draw(canvas)
    line = width or max(1, round(min(canvas.size) / 100))
    for mark, colour in marks:
        if isinstance(mark, Point):
            x, y = mark.to_pixels(*canvas.size)
            radius = 3 * line
            corners = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(corners, outline=colour, width=line)
        else:
            # PIL refuses reversed corners, and a model may write them.
            corners = mark.ordered().to_pixels(*canvas.size)
            pen.rectangle(corners, outline=colour, width=line)
        if with_labels and mark.label:
            font = ImageFont.load_default(size=max(10, 5 * line))
            pen.text(
                (corners[0] + 2 * line, corners[1] + line), mark.label, fill=colour, font=font
            )
    return canvas


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)
