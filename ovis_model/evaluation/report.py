"""reports/evaluate.html: scores and a gallery of items, in one file that opens anywhere.

Pictures are embedded and nothing is loaded from elsewhere.  Whatever comes from data or from a
model is text to the template, never markup.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scores import EvaluationReport, ModelScore
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.grounding import Box, Point, draw_overlay, parse_grounding
from ovis_model.inference.thinking import ParsedOutput

#: Items shown per benchmark; the table counts all of them.
MAX_EXHIBITS = 24
#: Pictures shown per item, such as frames of a video.
MAX_PICTURES = 8
#: Longest side of a picture, in pixels.
THUMBNAIL_PIXELS = 112
GAP_PIXELS = 4
#: Boxes drawn per answer; a random model writes anything.
MAX_MARKS = 8
TRUTH_COLOUR, TUNED_COLOUR = "#1a9850", "#d73027"


@dataclass(frozen=True)
class Attempt:
    """One model's output for one item, and what it was worth."""

    output: ParsedOutput
    mark: Mark


@dataclass(frozen=True)
class Exhibit:
    """One item of the gallery, with its pictures as the tuned model saw them."""

    item: BenchmarkItem
    pictures: Sequence[Image.Image]
    tuned: Attempt
    base: Attempt

    @property
    def thumbnail(self) -> str:
        """All pictures side by side as a data address; "" if the item has none."""
        if not self.pictures:
            return ""
        shown = [_fit(picture) for picture in self.pictures[:MAX_PICTURES]]
        marks = list(_marks(self))
        if marks:
            shown[0] = draw_overlay(shown[0], marks, width=2)
        return _data_address(_side_by_side(shown))

    @property
    def num_hidden_pictures(self) -> int:
        """Pictures that the strip has no room for."""
        return max(0, len(self.pictures) - MAX_PICTURES)


@dataclass(frozen=True)
class Gallery:
    """A benchmark and the items of it that are shown."""

    benchmark: Benchmark
    exhibits: Sequence[Exhibit]


def choose_exhibits(marks: Sequence[Mark], *, limit: int = MAX_EXHIBITS) -> list[int]:
    """Pick the items to show: wrong ones first, each kind in the benchmark's order.

    Example:
        >>> right, wrong = Mark(True, 1.0), Mark(False, 0.0)
        >>> choose_exhibits([right, wrong, right, wrong], limit=3)
        [1, 3, 0]
    """
    return sorted(range(len(marks)), key=lambda index: marks[index].correct)[:limit]


def render_html(report: EvaluationReport, galleries: Sequence[Gallery]) -> str:
    """Render the report.

    Args:
        report: The scores.
        galleries: One per benchmark, with the items to show.
    """
    return _template().render(
        report=report,
        galleries=galleries,
        protocol=_protocol_rows(report.protocol),
        bar=_bar,
        truth_colour=TRUTH_COLOUR,
        tuned_colour=TUNED_COLOUR,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ovis_model.evaluation", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _protocol_rows(protocol: dict[str, Any]) -> list[tuple[str, str]]:
    words = {True: "yes", False: "no", None: "-"}
    return [
        (key.replace("_", " "), words[value] if value in (None, True, False) else str(value))
        for key, value in protocol.items()
    ]


def _bar(score: ModelScore) -> dict[str, float]:
    """Where a score and its interval lie on a scale of 100 units."""
    return {
        "score": score.score,
        "low": score.interval_low,
        "width": score.interval_high - score.interval_low,
    }


def _marks(exhibit: Exhibit) -> Iterator[tuple[Box | Point, str]]:
    """The true boxes, and on top of them what the tuned model located."""
    for text, colour in (
        (exhibit.item.answer, TRUTH_COLOUR),
        (exhibit.tuned.output.answer, TUNED_COLOUR),
    ):
        found = parse_grounding(text)
        located: list[Box | Point] = [*found.boxes, *found.points]
        for mark in located[:MAX_MARKS]:
            yield mark, colour


def _fit(picture: Image.Image) -> Image.Image:
    """Scale to the thumbnail size; small pictures grow without being blurred."""
    scale = THUMBNAIL_PIXELS / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return picture.convert("RGB").resize(size, how)


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    width = sum(picture.width for picture in pictures) + GAP_PIXELS * (len(pictures) - 1)
    strip = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width + GAP_PIXELS
    return strip


def _data_address(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
