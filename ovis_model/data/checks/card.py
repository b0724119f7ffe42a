"""reports/data_card.html: what a dataset is made of, in one file that opens anywhere.

    write_card(path, samples=[CardSample(sample, "train", root, mask), ...], summary=summary)

Counts, what was found wanting and what to do about it, how sizes are distributed, and a sheet of
samples with their pictures and label masks.  `data_card.json` beside it holds the numbers.
Pictures are embedded and nothing is loaded from elsewhere; whatever comes from data is text to
the template, never markup.  Neither file holds a clock reading: equal data, equal bytes.

The pictures are decoded here, in this process: give only samples that passed inspection.
"""

import base64
import html
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.checks.label_mask import Piece, mask_by_turn
from ovis_model.data.checks.pages import MAX_SAMPLES, page_environment
from ovis_model.data.checks.statistics import (
    FEATURES,
    KINDS,
    Histogram,
    Statistics,
    features_of,
    kind_of,
)
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.reasons import REASONS
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.reports import write_text

#: Pictures shown per sample, such as frames of a video.
MAX_PICTURES = 8
#: Example ids shown per finding.
MAX_EXAMPLES = 5
#: Boxes and points drawn per picture.
MAX_MARKS = 32
#: Longest side of a picture, in pixels.
THUMBNAIL_PIXELS = 160

_NUMBER = r"\s*(\d*\.?\d+)\s*"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_BOX = re.compile(rf"(?:<ref>([^<]*)</ref>\s*)?<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>")
_POINT = re.compile(rf"(?:<ref>([^<]*)</ref>\s*)?<point>\s*{_PAIR}\s*</point>")


@dataclass(frozen=True)
class Finding:
    """Samples found wanting for one reason.

    Attributes:
        code: One of `reasons.REASONS`.
        outcome: What became of them: "stop", "quarantine", "drop" or "warn".
        count: How many there are.
        examples: Ids of some.
    """

    code: str
    outcome: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardSummary:
    """The numbers of a card.

    Attributes:
        num_input: Samples that came in; each of them was ok, quarantined or dropped.
        num_ok: Those that may be used.
        num_quarantined: Those set aside because something is wrong with them.
        dropped: Those left out on purpose, by the policy that did.
        num_train: Samples written to train on.
        num_holdout: Samples held out.
        statistics: Of the samples that may be used.
        findings: Why samples were set aside or mentioned.
        details: Further lines for the head of the card, such as the base model's name.

    Raises:
        ValueError: If the first four do not add up.
    """

    num_input: int
    num_ok: int
    num_quarantined: int
    dropped: Mapping[str, int]
    num_train: int
    num_holdout: int
    statistics: Statistics
    findings: Sequence[Finding] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_input != self.num_ok + self.num_quarantined + self.num_dropped:
            raise ValueError(
                f"{self.num_input} samples came in, but {self.num_ok} ok, {self.num_quarantined} "
                f"quarantined and {self.num_dropped} dropped are another number"
            )

    @property
    def num_dropped(self) -> int:
        """Samples left out, by whatever policy."""
        return sum(self.dropped.values())


@dataclass(frozen=True)
class CardSample:
    """One sample of the sheet.

    Attributes:
        sample: The sample, which passed inspection.
        part: "train" or "holdout".
        media_root: The folder its paths start from.
        mask: What is learned of it (`label_mask.mask_of`); None tells it from the turns.
    """

    sample: Sample
    part: str
    media_root: Path
    mask: Sequence[Piece] | None = None


def write_card(path: Path, *, samples: Sequence[CardSample], summary: CardSummary) -> None:
    """Write the page, and `data_card.json` beside it.

    Args:
        path: Of the HTML file.
        samples: For the sheet, at most `MAX_SAMPLES`; `choose_samples` chooses.
        summary: The numbers.

    Raises:
        ValueError: If there are more samples than the sheet has room for.
    """
    if len(samples) > MAX_SAMPLES:
        raise ValueError(
            f"the sheet has room for {MAX_SAMPLES} samples, {len(samples)} were given"
        )
    page = _render("card", summary=summary, exhibits=[_exhibit(found) for found in samples])
    write_text(path, page)
    values = {**_numbers(summary), "samples": [_describe(found) for found in samples]}
    write_text(path.with_name("data_card.json"), json.dumps(values, indent=2) + "\n")


def write_sample_page(path: Path, sample: CardSample) -> None:
    """Write one sample with its pictures and label mask as a page of its own."""
    write_text(path, _render("sample", exhibits=[_exhibit(sample)]))


def _numbers(summary: CardSummary) -> dict[str, Any]:
    return {
        "num_input": summary.num_input,
        "num_ok": summary.num_ok,
        "num_quarantined": summary.num_quarantined,
        "num_dropped": summary.num_dropped,
        "dropped": dict(summary.dropped),
        "num_train": summary.num_train,
        "num_holdout": summary.num_holdout,
        "details": dict(summary.details),
        "findings": [
            {
                "code": finding.code,
                "outcome": finding.outcome,
                "count": finding.count,
                "examples": list(finding.examples[:MAX_EXAMPLES]),
            }
            for finding in summary.findings
        ],
        "statistics": summary.statistics.to_dict(),
    }


def _describe(shown: CardSample) -> dict[str, Any]:
    return {
        "id": shown.sample.id,
        "kind": kind_of(shown.sample),
        "part": shown.part,
        "num_tokens": _count(shown.mask),
        "num_supervised_tokens": _count(shown.mask, "supervised"),
    }


def _count(mask: Sequence[Piece] | None, kind: str | None = None) -> int | None:
    """Count the tokens that are read, or those of one kind; None where none were counted."""
    if mask is None or any(piece.num_tokens is None for piece in mask):
        return None
    wanted = [p for p in mask if (p.kind == kind if kind else p.kind != "cut")]
    return sum(piece.num_tokens or 0 for piece in wanted)


# ---- one sample of the sheet ----------------------------------------------------------------


@dataclass(frozen=True)
class _Mark:
    """A box or a point (width and height 0) on a picture, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class _Picture:
    """One picture of a sample, embedded, or why it cannot be shown."""

    name: str
    address: str = ""
    width: int = 0
    height: int = 0
    full_size: tuple[int, int] = (0, 0)
    marks: tuple[_Mark, ...] = ()
    problem: str = ""


def _exhibit(shown: CardSample) -> dict[str, Any]:
    sample = shown.sample
    mask = mask_by_turn(sample) if shown.mask is None else shown.mask
    marks = list(_read_marks(sample))
    pictures = list(_pictures(shown, marks))
    return {
        "sample": sample,
        "part": shown.part,
        "kind": kind_of(sample),
        "features": features_of(sample),
        "pictures": pictures,
        "num_hidden": max(0, len(sample.image or sample.frames) - MAX_PICTURES),
        "num_undrawn": 0 if len(sample.image) == 1 else len(marks),
        "mask": mask,
        "num_tokens": _count(shown.mask),
        "num_supervised": _count(shown.mask, "supervised"),
    }


def _read_marks(sample: Sample) -> Iterator[tuple[str, list[float]]]:
    """Give label and coordinates, fractions of the picture, of what answers locate."""
    for turn in sample.conversations:
        if turn.role != "gpt":
            continue
        for pattern in (_BOX, _POINT):
            for match in pattern.finditer(turn.value):
                label, *numbers = match.groups()
                yield html.unescape(label or ""), [min(1.0, float(n)) for n in numbers]


def _pictures(shown: CardSample, marks: list[tuple[str, list[float]]]) -> Iterator[_Picture]:
    sample, media = shown.sample, MediaFiles(shown.media_root)
    if isinstance(sample.video, str):
        yield from _video_pictures(media, sample, sample.video)
        return
    names = sample.image[:MAX_PICTURES]
    if frames := sample.frames:
        chosen = sample_frame_indices(len(frames), min_frames=1, max_frames=MAX_PICTURES)
        names = tuple(frames[index] for index in chosen)
    for name in names:
        try:
            picture = load_rgb(media.read(name), name="the file")
        except DataError as error:
            yield _Picture(name, problem=_without(str(error), shown.media_root))
        else:
            # With several pictures nothing says which of them a box means.
            yield _thumbnail(name, picture, marks if len(sample.image) == 1 else [])


def _video_pictures(media: MediaFiles, sample: Sample, name: str) -> Iterator[_Picture]:
    sampling = FrameSampling(min_frames=1, max_frames=MAX_PICTURES)
    start, end = sample.video_start, sample.video_end
    try:
        frames = read_frames(media.path_of(name), sampling, start=start, end=end)
    except DataError as error:
        yield _Picture(name, problem=_without(str(error), media.root))
        return
    for number, frame in enumerate(frames, start=1):
        yield _thumbnail(f"{name}, {number} of {len(frames)}", frame, [])


def _without(message: str, root: Path) -> str:
    """Name files as samples do: where the data lies is nobody's business."""
    return message.replace(f"{root}/", "").replace(str(root), "the folder")


def _thumbnail(name: str, picture: Image.Image, marks: list[tuple[str, list[float]]]) -> _Picture:
    """Scale to the thumbnail size; small pictures grow without being blurred."""
    scale = THUMBNAIL_PIXELS / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    small = picture.convert("RGB").resize((width, height), how)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85, optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return _Picture(
        name=name,
        address=f"data:image/jpeg;base64,{content}",
        width=width,
        height=height,
        full_size=picture.size,
        marks=tuple(_place(mark, width, height) for mark in marks[:MAX_MARKS]),
    )


def _place(mark: tuple[str, list[float]], width: int, height: int) -> _Mark:
    label, numbers = mark
    xs = sorted(round(x * width, 1) for x in numbers[::2])
    ys = sorted(round(y * height, 1) for y in numbers[1::2])
    return _Mark(xs[0], ys[0], round(xs[-1] - xs[0], 1), round(ys[-1] - ys[0], 1), label)


# ---- the page -------------------------------------------------------------------------------


def _render(page: str, **values: Any) -> str:
    defaults = {"summary": None, "kinds": KINDS, "features": FEATURES, "reasons": REASONS}
    helpers = {"bars": _bars, "pairs": _pairs, "max_examples": MAX_EXAMPLES}
    return (
        page_environment()
        .get_template("card.html.j2")
        .render(page=page, **{**defaults, **helpers, **values})
    )


def _pairs(names: Sequence[str], counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Put counts in an order, their names in words."""
    return [(name.replace("_", " "), counts.get(name, 0)) for name in names]


def _bars(histogram: Histogram) -> list[dict[str, Any]]:
    """Give each bin's height, as a share of the highest, and what it says when pointed at."""
    highest = max(histogram.counts, default=0)
    bounds = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    return [
        {
            # What is there must be seen, however little it is.
            "height": max(0.02, count / highest) if count else 0,
            "text": f"{_range(low, high)}: {count:,}",
        }
        for low, high, count in bounds
    ]


def _range(low: int, high: int) -> str:
    return f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
