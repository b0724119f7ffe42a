"""The items that a report shows, with their pictures and what was located in them."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from ovis_model.evaluation.predictions import PredictionRow
from ovis_model.inference.grounding import Box, Point, parse_grounding

#: Items shown per benchmark; the tables count all of them.
MAX_EXHIBITS = 200
#: Pictures shown per item, such as frames of a video.
MAX_PICTURES = 8
#: Longest side of a picture, in pixels.
THUMBNAIL_PIXELS = 224
#: Boxes drawn per answer; a random model writes anything.
MAX_MARKS = 16

#: Gives the pictures of a row as the model saw them.
PicturesOf = Callable[[PredictionRow], Sequence[Image.Image]]


@dataclass(frozen=True)
class PlacedMark:
    """A box, or a point (width and height 0), on a shown picture, in its pixels."""

    whose: str
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class ShownPicture:
    """One picture, embedded."""

    address: str
    width: int
    height: int
    marks: tuple[PlacedMark, ...] = ()


@dataclass(frozen=True)
class Exhibit:
    """One item with the answers of several models.

    Attributes:
        row: The tuned model's.
        others: Other models' rows of the same question, by role.
        rival: The role that flips are told against.
        pictures: As the tuned model saw them.
        num_hidden: Pictures there is no room for.
    """

    row: PredictionRow
    others: dict[str, PredictionRow]
    rival: str
    pictures: tuple[ShownPicture, ...]
    num_hidden: int

    @property
    def answers(self) -> dict[str, PredictionRow]:
        """Every model's row, the tuned one first."""
        return {"tuned": self.row, **self.others}

    @property
    def kinds(self) -> list[str]:
        """Words that the page filters by."""
        flags = self.row.flags
        holds = {
            "right": self.row.right,
            "wrong": not self.row.right,
            "gained": self._flipped(now_right=True),
            "lost": self._flipped(now_right=False),
            "unresolved": self.row.status == "unresolved",
            "invalid": self.row.status == "invalid",
            "error": self.row.status == "error",
            "forced": flags.forced_close,
            "truncated": flags.answer_truncated,
            "unclosed": flags.unclosed_thinking,
        }
        return [kind for kind, held in holds.items() if held]

    def _flipped(self, *, now_right: bool) -> bool:
        rival = self.others.get(self.rival)
        return rival is not None and self.row.right is now_right and rival.right is not now_right


def choose_rows(
    rows: Sequence[PredictionRow],
    rival: dict[tuple[str, int], PredictionRow],
    *,
    limit: int = MAX_EXHIBITS,
) -> list[PredictionRow]:
    """Pick the rows to show: those that flipped, then wrong ones, then the rest.

    Args:
        rows: The tuned model's, in the benchmark's order.
        rival: The rows flips are told against, by key.
        limit: Most rows to pick.

    Returns:
        Rows in the benchmark's order.
    """

    def dullness(place: int) -> tuple[bool, bool, int]:
        row = rows[place]
        other = rival.get(row.key)
        return other is None or other.right is row.right, row.right, place

    return [rows[place] for place in sorted(sorted(range(len(rows)), key=dullness)[:limit])]


def show_pictures(
    pictures: Sequence[Image.Image], row: PredictionRow
) -> tuple[tuple[ShownPicture, ...], int]:
    """Embed an item's pictures and draw what is located in them.

    A box does not say which picture it means, so it is drawn only where there is one.

    Returns:
        The pictures, and how many there was no room for.
    """
    marks = list(_marks(row)) if len(pictures) == 1 else []
    shown = tuple(_embed(picture, marks) for picture in pictures[:MAX_PICTURES])
    return shown, max(0, len(pictures) - MAX_PICTURES)


def _marks(row: PredictionRow) -> Iterator[tuple[str, Box | Point]]:
    """Give the true boxes, and after them what the model located."""
    for whose, text in (("truth", row.truth), ("answer", row.response)):
        found = parse_grounding(text)
        located: list[Box | Point] = [*found.boxes, *found.points]
        for mark in located[:MAX_MARKS]:
            yield whose, mark


def _embed(picture: Image.Image, marks: Sequence[tuple[str, Box | Point]]) -> ShownPicture:
    """Scale to the thumbnail size; small pictures grow without being blurred."""
    scale = THUMBNAIL_PIXELS / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture, buffer = picture.convert("RGB"), io.BytesIO()
    if scale > 1:  # it travels as it is, and the page enlarges it
        picture.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        picture.save(buffer, format="JPEG", quality=85, optimize=True)
        kind = "jpeg"
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return ShownPicture(
        address=f"data:image/{kind};base64,{content}",
        width=width,
        height=height,
        marks=tuple(_place(whose, mark, width, height) for whose, mark in marks),
    )


def _place(whose: str, mark: Box | Point, width: int, height: int) -> PlacedMark:
    if isinstance(mark, Point):
        x, y = mark.to_pixels(width, height)
        return PlacedMark(whose, round(x, 1), round(y, 1), 0, 0, mark.label)
    x1, y1, x2, y2 = mark.ordered().to_pixels(width, height)
    return PlacedMark(
        whose, round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1), mark.label
    )
