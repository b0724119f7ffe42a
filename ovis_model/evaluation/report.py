"""reports/evaluate.html: the scores and a browser of predictions, in one file for any browser.

A pure function of stored rows: the same rows give the same page.  Pictures are embedded and
nothing is loaded from elsewhere.  Whatever comes from data or from a model is text to the
template, never markup; the one script is the page's own, and the page's policy lets no other run.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ovis_model.evaluation.gallery import Exhibit, PicturesOf, choose_rows, show_pictures
from ovis_model.evaluation.predictions import PredictionRow, Run
from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.evaluation.summary import Sources
from ovis_model.evaluation.timing import Timing

#: A text is cut after so many characters: a thought may be a whole book.
MAX_CHARACTERS = 20_000


@dataclass(frozen=True)
class Gallery:
    """A benchmark and the items of it that are shown.

    Attributes:
        name: Of the benchmark.
        description: What its file says about it.
        num_rows: The tuned model's answers, of which some are shown.
        exhibits: The items.
    """

    name: str
    description: str
    num_rows: int
    exhibits: tuple[Exhibit, ...]


def render_html(
    report: EvaluationReport,
    sources: Sources,
    *,
    pictures_of: PicturesOf,
    descriptions: Mapping[str, str],
) -> str:
    """Render the report.

    Args:
        report: What `summarise` made of the sources.
        sources: The runs; a champion, if there is one, is what flips are told against.
        pictures_of: Gives the pictures of a row.
        descriptions: What the benchmarks' files say about them, by name.
    """
    script = _environment().get_template("report.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            galleries=[
                _gallery(name, sources, pictures_of, descriptions.get(name, ""))
                for name in report.benchmarks
            ],
            rival=_rival(sources),
            protocol=_rows(report.protocol),
            conditions=_rows(report.conditions),
            provenance=_rows(sources.tuned.record.provenance),
            timings=_timings(sources),
            script=Markup(script),
            script_digest=digest,
        )
    )


def _gallery(name: str, sources: Sources, pictures_of: PicturesOf, description: str) -> Gallery:
    rows = sources.tuned.rows[name]
    others = {
        role: _by_key(run, name)
        for role, run in (
            ("base", sources.base),
            ("champion", sources.champion),
            ("thinking off", sources.thinking_off),
        )
        if run is not None
    }
    rival = _rival(sources)
    exhibits = []
    for row in choose_rows(rows, others[rival]):
        pictures, num_hidden = show_pictures(pictures_of(row), row)
        answers = {role: keyed[row.key] for role, keyed in others.items() if row.key in keyed}
        exhibits.append(Exhibit(row, answers, rival, pictures, num_hidden))
    return Gallery(name, description, len(rows), tuple(exhibits))


def _rival(sources: Sources) -> str:
    return "base" if sources.champion is None else "champion"


def _by_key(run: Run, name: str) -> dict[tuple[str, int], PredictionRow]:
    return {row.key: row for row in run.rows.get(name, ())}


def _timings(sources: Sources) -> list[tuple[str, str, Timing]]:
    found = []
    for name in sources.tuned.record.benchmarks:
        for role, run in (("tuned", sources.tuned), ("base", sources.base)):
            timing = Timing.of(run.rows.get(name, ()))
            if timing is not None:
                found.append((name, role, timing))
    return found


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    words = {True: "yes", False: "no", None: "-"}
    return [
        (key.replace("_", " "), words[value] if value in (None, True, False) else str(value))
        for key, value in values.items()
    ]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ovis_model.evaluation", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clip"] = _clip
    environment.filters["points"] = lambda value: f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["p"] = lambda value: "< 0.001" if value < 0.001 else f"= {value:.3f}"
    environment.filters["percent"] = lambda value: f"{value:.1f}"
    return environment


def _clip(text: str, length: int = MAX_CHARACTERS) -> str:
    """Cut a text; the page says how much is missing."""
    if len(text) <= length:
        return text
    return f"{text[:length]}\N{HORIZONTAL ELLIPSIS} ({len(text) - length:,} more characters)"
