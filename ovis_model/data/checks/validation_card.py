"""The data card of a validation: from what was found to what the card shows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ovis_model.data.checks.card import (
    CardSample,
    CardSummary,
    Finding,
    write_card,
)
from ovis_model.data.checks.label_mask import Piece
from ovis_model.data.checks.lengths import LengthMeter, LengthRules
from ovis_model.data.checks.pages import choose_samples
from ovis_model.data.checks.statistics import Histogram, Statistics, count_thought_characters
from ovis_model.data.checks.summary import Judged
from ovis_model.data.checks.text_facts import KINDS
from ovis_model.data.checks.xray import XRay
from ovis_model.data.report import ValidationReport
from ovis_model.data.schema import Sample

_EXAMPLES = 5
_WITH_THINK = KINDS.index("with_think")


def write_validation_card(
    path: Path,
    judged: Judged,
    report: ValidationReport,
    *,
    raw_data: Path,
    lengths: LengthRules | None,
) -> None:
    """Write the card of what was validated, whether it passed or not.

    Args:
        path: Of the HTML file; data_card.json goes beside it.
        judged: What was found.
        report: The same in numbers.
        raw_data: The folder that paths start from.
        lengths: What counts tokens; None tells the label masks from the turns.
    """
    good = judged.ledger.good_rows()
    summary = CardSummary(
        num_input=report.num_samples,
        num_ok=report.num_ok,
        num_quarantined=report.num_quarantined,
        dropped=report.num_dropped,
        num_train=report.num_train_lines,
        num_holdout=report.num_holdout,
        statistics=_statistics(judged, report, good),
        findings=list(_findings(judged)),
        details={"not checked": "; ".join(report.not_checked)} if report.not_checked else {},
    )
    write_card(path, samples=list(_sheet(judged, good, raw_data, lengths)), summary=summary)


def _findings(judged: Judged) -> Iterator[Finding]:
    ids = judged.ledger.ids
    for code, rows in judged.broken.items():
        if rows:
            examples = tuple(ids[row] for row in sorted(rows)[:_EXAMPLES])
            yield Finding(code, judged.severities[code], len(rows), examples)


def _statistics(judged: Judged, report: ValidationReport, good: Sequence[int]) -> Statistics:
    return Statistics(
        num_samples=len(good),
        kinds=report.kinds,
        sources={name or "(none)": found.num_ok for name, found in report.sources.items()},
        histograms=tuple(_histograms(judged, good)),
    )


def _histograms(judged: Judged, good: Sequence[int]) -> Iterator[Histogram]:
    known, samples, media = judged.known, judged.facts.samples, judged.facts.media
    rows = np.asarray(good, dtype=np.int64)
    tokens = known.num_tokens[rows]
    counted = tokens >= 0
    yield Histogram.of("tokens", "tokens per sample", tokens[counted])
    yield Histogram.of(
        "supervised tokens", "tokens per sample", known.num_supervised[rows][counted]
    )
    used = media[media["row"].isin(rows)]
    files = used.drop_duplicates("medium")
    areas = (files["width"] * files["height"]).dropna()
    yield Histogram.of("picture area", "pixels per file", areas.to_numpy(dtype=np.int64))
    images = samples["num_images"].iloc[rows].to_numpy(dtype=np.int64, na_value=0)
    yield Histogram.of("images", "images per sample", images)
    listed = samples["num_listed_frames"].iloc[rows].to_numpy(dtype=np.int64, na_value=0)
    filmed = used["num_frames"].dropna().to_numpy(dtype=np.int64)
    yield Histogram.of(
        "frames", "frames per video, before some are chosen", [*listed[listed > 0], *filmed]
    )
    turns = judged.facts.turns
    letters = turns[turns["row"].isin(rows)].groupby("row")["num_chars"].sum()
    yield Histogram.of(
        "text", "characters per sample, without thoughts", letters.to_numpy(dtype=np.int64)
    )
    yield Histogram.of("thought", "characters per thinking sample", list(_thoughts(judged, good)))


def _thoughts(judged: Judged, good: Sequence[int]) -> Iterator[int]:
    """Measure thoughts; only the samples that think are read again."""
    for row in good:
        if _WITH_THINK in (judged.known.kinds[row] or ()):
            length = count_thought_characters(judged.read.spool.read(row))
            if length is not None:
                yield length


def _sheet(
    judged: Judged, good: Sequence[int], raw_data: Path, lengths: LengthRules | None
) -> Iterator[CardSample]:
    ledger, known = judged.ledger, judged.known
    kinds = ((ledger.ids[row], KINDS[min(known.kinds[row] or (0,))]) for row in good)
    xray = None if lengths is None else XRay(raw_data, LengthMeter(lengths).processor)
    for place in choose_samples(kinds):
        row = good[place]
        sample = judged.read.spool.read(row)
        if row in known.fits:
            sample = sample.model_copy(update={"fit": known.fits[row]})
        part = "holdout" if row in ledger.holdout else "train"
        yield CardSample(sample, part, raw_data, _mask(xray, sample))


def _mask(xray: XRay | None, sample: Sample) -> Sequence[Piece] | None:
    if xray is None:
        return None
    look = xray.look(sample)
    return None if look.num_tokens is None else look.mask
