"""The page of a comparison: one row and one plot per feature, in one file that loads nothing."""

from dataclasses import dataclass
from pathlib import Path

from ovis_model.data.checks.pages import page_environment
from ovis_model.drift.comparison import DriftReport, FeatureDrift
from ovis_model.reports import write_text

#: Of a plot, in SVG's units.
WIDTH, HEIGHT = 320, 110
ROW_HEIGHT, LABEL_WIDTH = 22, 130
#: Categories that are drawn, those that differ most; the table of JSON has all.
MAX_ROWS = 8


@dataclass(frozen=True)
class Bar:
    """One rectangle of a plot.

    Attributes:
        side: "reference" or "new".
        x, y, width, height: SVG's units from the upper left corner.
        title: What it says under the mouse.
    """

    side: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Plot:
    """One feature, drawn.

    Attributes:
        feature: What was found.
        bars: Its rectangles.
        labels: Text and height of the categories' names; empty for a number.
        height: Of the whole.
    """

    feature: FeatureDrift
    bars: list[Bar]
    labels: list[tuple[str, float]]
    height: float


def write_page(path: Path, report: DriftReport) -> None:
    """Write the page of a report."""
    template = page_environment("ovis_model.drift").get_template("drift.html.j2")
    plots = [draw(feature) for feature in report.features]
    write_text(path, template.render(report=report, plots=plots, width=WIDTH))


def draw(feature: FeatureDrift) -> Plot:
    """Draw a number as two outlines over the same bins, a category as pairs of bars."""
    return _draw_numbers(feature) if feature.unit else _draw_categories(feature)


def _draw_numbers(feature: FeatureDrift) -> Plot:
    sides = {"reference": feature.shares_reference, "new": feature.shares_new}
    tallest = max((share for shares in sides.values() for share in shares), default=0.0) or 1.0
    bars = []
    for side, shares in sides.items():
        step = WIDTH / max(1, len(shares))
        for place, share in enumerate(shares):
            low, high = feature.bins[place], feature.bins[place + 1]
            height = round(HEIGHT * share / tallest, 1)
            title = f"{side}: {share:.1%} from {low:,.4g} to {high:,.4g}"
            bars.append(
                Bar(side, round(place * step, 1), HEIGHT - height, round(step, 1), height, title)
            )
    return Plot(feature, bars, [], HEIGHT)


def _draw_categories(feature: FeatureDrift) -> Plot:
    rows = list(zip(feature.bins, feature.shares_reference, feature.shares_new, strict=True))
    shown = sorted(rows, key=lambda row: (-abs(row[1] - row[2]), -row[1]))[:MAX_ROWS]
    bars, labels = [], []
    largest = max((share for _, *shares in shown for share in shares), default=0.0) or 1.0
    room = (WIDTH - LABEL_WIDTH) / largest
    for place, (label, *shares) in enumerate(shown):
        top = place * ROW_HEIGHT
        labels.append((str(label), top + 14.0))
        for line, (side, share) in enumerate(zip(("reference", "new"), shares, strict=True)):
            title = f"{side}: {share:.1%}"
            length = round(room * share, 1)
            bars.append(Bar(side, LABEL_WIDTH, top + 2 + 9.0 * line, length, 8.0, title))
    return Plot(feature, bars, labels, max(1, len(shown)) * ROW_HEIGHT)
