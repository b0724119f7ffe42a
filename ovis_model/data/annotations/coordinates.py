"""Where things are in a picture: from the ways others write it to Ovis2.5's.

    ovis, normalised   fractions of the picture's width and height, 0 to 1
    permille           thousandths of them, whole numbers from 0 to 1000
    absolute           pixels; the picture's size must be known

Each gives a box as its corners (x1, y1, x2, y2), or, with `_xywh` behind the name, as one corner
with width and height.  Ovis2.5 reads and writes three decimals below 1, x before y:

    <ref>red apple</ref><box>(0.100,0.250),(0.400,0.500)</box>   <point>(0.310,0.420)</point>

Numbers that contradict the convention they are said to follow are an error: a box in the wrong
place teaches more harm than a missing one.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ovis_model.errors import ConfigError, DataError, list_examples

CONVENTIONS: tuple[str, ...] = tuple(
    name + order
    for name in ("ovis", "normalised", "permille", "absolute")
    for order in ("", "_xywh")
)
#: Width and height in pixels.
Size = tuple[int, int]
#: Returns the size of the picture at a path.
SizeOf = Callable[[str], Size]

#: Annotation tools count the far edge in or out, and round; more than this is another picture.
EDGE_PIXELS = 1.0
_STEPS = 1000
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_ANY_NUMBER = re.compile(_NUMBER)
#: Numbers with commas between them, in any nesting of brackets.
_NUMBERS = re.compile(rf"[\s\[(]*{_NUMBER}(?:[\s\[\]()]*,[\s\[(]*{_NUMBER})*[\s\])]*")
#: Bounded, so that a text of nothing but openings is read in time.
_REF = r"<ref>.{0,300}?</ref>"
_MARK = re.compile(
    r"<(?P<kind>box|point)>(?P<tagged>[^<]*)</(?P=kind)>"
    r"|<\|box_start\|>(?P<qwen>[^<]*)<\|box_end\|>"
    rf"|(?P<ref>{_REF})(?P<gap>\s*)(?P<bare>\[[\[\]\s,.+\-eE\d]*\])",
    re.DOTALL,
)
_QWEN_REF = re.compile(r"<\|object_ref_start\|>(.{0,300}?)<\|object_ref_end\|>", re.DOTALL)
_UNREAD = re.compile(r"\"(?:bbox_2d|point_2d|bbox)\"\s*:")


@dataclass(frozen=True)
class Evidence:
    """Which convention numbers follow, and why no other.

    Attributes:
        convention: One of `CONVENTIONS`.
        num_marks: Boxes and points looked at.
        against: For every other convention, the first mark that contradicts it.
    """

    convention: str
    num_marks: int
    against: dict[str, str]


def check_convention(convention: str) -> str:
    """Return the name if it is one.

    Raises:
        ConfigError: If not, listing them.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(
            f"{convention!r} is no way to write coordinates; validate.coordinates is one of "
            + ", ".join(CONVENTIONS)
        )
    return convention


def needs_size(convention: str) -> bool:
    """Tell whether the picture's size must be known."""
    return convention.startswith("absolute")


def has_marks(text: str) -> bool:
    """Tell whether a text holds boxes or points that `convert_coordinates` would change."""
    return "<" in text and _MARK.search(text) is not None


def convert_coordinates(text: str, *, convention: str, size: Size | None = None) -> str:
    """Write every box and point of a text as Ovis2.5 does.

    Read are `<box>` and `<point>` with any brackets inside, `[x1, y1, x2, y2]` right after a
    `<ref>`, and Qwen's `<|box_start|>(x1,y1),(x2,y2)<|box_end|>` and `<|object_ref_start|>`.

    Args:
        text: What is said in a turn.
        convention: How its coordinates are written; "ovis" leaves the text as it is.
        size: Width and height of the picture in pixels; needed for absolute coordinates.

    Raises:
        ConfigError: If the convention is not known.
        DataError: If a mark cannot be read or contradicts the convention.

    Example:
        >>> convert_coordinates("<box>[[100, 250, 400, 1000]]</box>", convention="permille")
        '<box>(0.100,0.250),(0.400,0.999)</box>'
        >>> convert_coordinates("<ref>cat</ref>[8, 8]", convention="absolute", size=(32, 64))
        '<ref>cat</ref><point>(0.250,0.125)</point>'
    """
    check_convention(convention)
    if convention == "ovis":
        return text
    if _UNREAD.search(text):
        raise DataError(
            "the text holds boxes in JSON, which are not converted; write them as "
            "<box>(x1,y1),(x2,y2)</box>"
        )
    if needs_size(convention) and size is None and _MARK.search(text):
        raise DataError("coordinates in pixels need the size of the picture, which is not known")

    def rewrite(match: re.Match[str]) -> str:
        inside = next(
            match[name] for name in ("tagged", "qwen", "bare") if match[name] is not None
        )
        numbers = _read_numbers(inside, match[0])
        marks = _split(numbers, match["kind"], match[0])
        written = "".join(write_mark(to_fractions(m, convention, size)) for m in marks)
        return (match["ref"] or "") + (match["gap"] or "") + written

    return _MARK.sub(rewrite, _QWEN_REF.sub(r"<ref>\1</ref>", text))


def _read_numbers(inside: str, mark: str) -> list[float]:
    if not _NUMBERS.fullmatch(inside):
        raise DataError(f"{_short(mark)} holds no coordinates that can be read")
    return [float(number) for number in _ANY_NUMBER.findall(inside)]


def _split(numbers: list[float], kind: str | None, mark: str) -> list[list[float]]:
    """Cut a run of numbers into boxes of four or points of two."""
    width = {"box": 4, "point": 2}.get(kind or "", 2 if len(numbers) == 2 else 4)
    if len(numbers) % width:
        raise DataError(f"{_short(mark)} has {len(numbers)} numbers; a box has 4, a point 2")
    return [numbers[i : i + width] for i in range(0, len(numbers), width)]


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def to_fractions(numbers: Sequence[float], convention: str, size: Size | None) -> list[float]:
    """Turn a box of four numbers, or a point of two, into fractions of the picture.

    Returns:
        (x1, y1, x2, y2) or (x, y), each between 0 and 1.

    Raises:
        DataError: If they are not such numbers, or the box has no extent.
    """
    name, is_xywh = convention.removesuffix("_xywh"), convention.endswith("_xywh")
    problem = _contradiction(numbers, name, size)
    if problem is None:
        corners = list(numbers)
        if is_xywh and len(corners) == 4:
            x, y, width, height = numbers
            corners = [x, y, x + width, y + height]
            problem = _contradiction(corners, name, size)
        if problem is None and len(corners) == 4:
            problem = _disorder(corners)
    if problem is not None:
        raise DataError(f"{_listed(numbers)} as {convention} coordinates: {problem}")
    limits = _limits(name, size)
    return [min(max(value / limits[i % 2], 0.0), 1.0) for i, value in enumerate(corners)]


def _limits(name: str, size: Size | None) -> tuple[float, float]:
    if name == "absolute":
        assert size is not None, "absolute coordinates were checked without a size"
        return float(size[0]), float(size[1])
    return (float(_STEPS),) * 2 if name == "permille" else (1.0, 1.0)


def _contradiction(numbers: Sequence[float], name: str, size: Size | None) -> str | None:
    if len(numbers) not in (2, 4) or not all(math.isfinite(value) for value in numbers):
        return "a box has 4 finite numbers, a point 2"
    is_whole = all(value == int(value) for value in numbers)
    if name == "permille" and not is_whole:
        return "thousandths are whole numbers"
    slack = 0.0
    if name == "absolute":
        if size is None or min(size) < 1:
            return "pixels need the size of the picture"
        if max(numbers) <= 1 and not is_whole:
            return "fractions of a single pixel; they look normalised"
        slack = EDGE_PIXELS
    limits = _limits(name, size)
    if all(-slack <= value <= limits[i % 2] + slack for i, value in enumerate(numbers)):
        return None
    what = f"{limits[0]:g} x {limits[1]:g}" if name == "absolute" else f"0 to {limits[0]:g}"
    return f"not all are within {what}"


def _disorder(corners: Sequence[float]) -> str | None:
    x1, y1, x2, y2 = corners
    return None if x1 < x2 and y1 < y2 else "the box has no width or height; x1 < x2 and y1 < y2"


def _listed(numbers: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in numbers) + ")"


def write_mark(fractions: Sequence[float]) -> str:
    """Write a box of four fractions or a point of two.

    Rounding must not close a box, so a side thinner than a step keeps one step.

    Example:
        >>> write_mark([0.1, 0.25, 0.5, 1.0])
        '<box>(0.100,0.250),(0.500,0.999)</box>'
        >>> write_mark([0.31, 0.42])
        '<point>(0.310,0.420)</point>'
    """
    steps = [min(max(round(value * _STEPS), 0), _STEPS - 1) for value in fractions]
    if len(steps) == 2:
        return "<point>({:.3f},{:.3f})</point>".format(*(step / _STEPS for step in steps))
    for low, high in ((0, 2), (1, 3)):
        if steps[low] >= steps[high]:
            steps[high] = min(steps[low] + 1, _STEPS - 1)
            steps[low] = steps[high] - 1
    return "<box>({:.3f},{:.3f}),({:.3f},{:.3f})</box>".format(*(step / _STEPS for step in steps))


def write_ref(label: str) -> str:
    """Name a thing so that the name cannot end its own tag, and reads back as it is.

    Example:
        >>> write_ref("the <b> key"), write_ref("R&D"), write_ref("&lt;")
        ('<ref>the &lt;b> key</ref>', '<ref>R&D</ref>', '<ref>&amp;lt;</ref>')
    """
    # Only where it would be read as an entity: most labels stay as people write them.
    text = label if html.unescape(label) == label else label.replace("&", "&amp;")
    return f"<ref>{text.replace('<', '&lt;')}</ref>"


def detect_convention(
    marks: Sequence[Sequence[float]], *, sizes: Sequence[Size] | None = None
) -> Evidence:
    """Tell from the numbers alone how boxes and points are written.

    Args:
        marks: Boxes of four numbers and points of two, the more the better.
        sizes: Width and height of the picture of each; without them, pixels contradict nothing
            but fractions.

    Raises:
        DataError: If no convention fits, or more than one: then it must be named.

    Example:
        >>> detect_convention([(0.1, 0.2, 0.3, 0.4), (0.8, 0.7, 0.9, 0.9)]).convention
        'normalised'
    """
    if not marks:
        raise DataError("there are no boxes or points to tell a convention from")
    against: dict[str, str] = {}
    names = [name for name in CONVENTIONS if not name.startswith("ovis")]
    for name in names:
        for index, mark in enumerate(marks):
            # Without a size, a picture so large that every number is inside.
            size = sizes[index] if sizes else _boundless(mark)
            try:
                to_fractions(mark, name, size)
            except DataError as error:
                against[name] = str(error)
                break
    fitting = [name for name in names if name not in against]
    if all(len(mark) == 2 for mark in marks):  # points have no width and height
        fitting = [name for name in fitting if not name.endswith("_xywh")]
    if len(fitting) == 1:
        return Evidence(fitting[0], len(marks), against)
    if not fitting:
        raise DataError("no convention fits: " + list_examples(list(against.values())))
    raise DataError(
        f"{len(marks)} boxes and points fit {' and '.join(fitting)}; name one in "
        "validate.coordinates"
    )


def _boundless(mark: Sequence[float]) -> Size:
    largest = math.ceil(max((abs(value) for value in mark if math.isfinite(value)), default=1))
    return (4 * largest + 1, 4 * largest + 1)
