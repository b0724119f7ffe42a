"""What the pipeline makes of a kind's folder."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ovis_model.config import ExtractConfig, OverLength, ValidateConfig
from ovis_model.data.checks.lengths import LengthRules
from ovis_model.data.extraction import extract
from ovis_model.data.validation import Context, Results, validate
from ovis_model.errors import DataError
from tests.corpus.dataset import Expectation
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint

#: Columns of a table of verdicts, in Markdown.
TABLE_HEAD = (
    "| kind | class | ok | quarantined | dropped | reasons |",
    "|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Line:
    """What became of one record, as the ledger tells it.

    Attributes:
        id: The record's, or a generated one.
        place: Where the record stands in its file.
        verdict: "ok", "quarantined" or "dropped".
        codes: Reasons, ascending.
        policy: What dropped it, or None.
        warnings: What is merely counted, ascending.
        details: The reasons in words.
    """

    id: str
    place: str
    verdict: str
    codes: tuple[str, ...] = ()
    policy: str | None = None
    warnings: tuple[str, ...] = ()
    details: str = ""


@dataclass(frozen=True)
class Verdicts:
    """What became of a dataset: its ledger, and the error that validation ended with."""

    lines: tuple[Line, ...]
    error: str | None = None


def validate_kind(
    folder: Path,
    expectation: Expectation,
    *,
    annotations: str | None = None,
    policy: OverLength = "error",
) -> Verdicts:
    """Validate a kind's folder and read the ledger; what is written goes to `<folder>/results`.

    Args:
        folder: What `Kind.build` wrote.
        expectation: What it returned; only what validation needs to know is looked at.
        annotations: Another file than the expectation's.
        policy: What becomes of samples that are too long.
    """
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    config = ValidateConfig(
        raw_data=str(folder / "raw"),
        annotations=annotations or expectation.annotations,
        max_bad_fraction=0.99,
        holdout_fraction=0.0,
        workers=1,
        **expectation.config,
    )
    exam = folder / "exam"
    context = Context(
        lengths=_lengths(folder, expectation.max_tokens, policy),
        exam=exam if exam.is_dir() else None,
    )
    where = Results(
        output=results / "validated",
        report=results / "validate.json",
        ledger=results / "ledger.jsonl",
        data_docs=results / "docs",
    )
    error = None
    try:
        validate(config, raw_data=folder / "raw", results=where, context=context)
    except DataError as raised:
        error = str(raised)
    shutil.rmtree(where.data_docs, ignore_errors=True)  # megabytes that say nothing new
    lines = tuple(_read_ledger(where.ledger)) if where.ledger.exists() else ()
    return Verdicts(lines, error)


def _lengths(folder: Path, max_tokens: int | None, policy: OverLength) -> LengthRules | None:
    if max_tokens is None:
        return None
    base_model = folder / "base_model"
    if not base_model.exists():
        build_tiny_checkpoint(base_model)
    return LengthRules(
        base_model=base_model,
        pixel_limits=TINY_PIXELS,
        frame_sampling=TINY_FRAMES,
        multimodal_max_length=max_tokens,
        text_max_length=max_tokens,
        policy=policy,
    )


def _read_ledger(path: Path) -> Iterator[Line]:
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        reasons = line.get("reasons", [])
        yield Line(
            id=line["id"],
            place=line["place"],
            verdict=line["verdict"],
            codes=tuple(sorted(reason["code"] for reason in reasons)),
            policy=line.get("policy"),
            warnings=tuple(sorted(line.get("warnings", []))),
            details="; ".join(f"{reason['code']}: {reason['detail']}" for reason in reasons),
        )


def extract_kind(folder: Path) -> Verdicts:
    """Extract what `validate_kind` wrote, after the files below later/ replaced those of raw/."""
    for changed in (folder / "later").rglob("*.*"):
        shutil.copyfile(changed, folder / "raw" / changed.relative_to(folder / "later"))
    results = folder / "results"
    ledger = results / "extract.jsonl"
    error = None
    try:
        extract(
            ExtractConfig(max_bad_fraction=0.99, workers=1),
            validated=results / "validated",
            raw_data=folder / "raw",
            output=results / "extracted",
            store=results / "store",
            ledger=ledger,
        )
    except DataError as raised:
        error = str(raised)
    return Verdicts(tuple(_read_ledger(ledger)), error)


def judge_kind(folder: Path, expectation: Expectation) -> Verdicts:
    """Validate a kind and, where that is to find something, extract it."""
    if not expectation.records:
        return Verdicts(())
    found = validate_kind(folder, expectation)
    if not any(record.later for record in expectation.records):
        return found
    extracted = {line.id: line for line in extract_kind(folder).lines}
    return Verdicts(tuple(extracted.get(line.id, line) for line in found.lines), found.error)


def table_row(name: str, expectation: Expectation, found: Verdicts) -> str:
    """Return what became of a kind as a row below `TABLE_HEAD`."""
    given = {code for line in found.lines for code in (*line.codes, *line.warnings)}
    given |= {line.policy for line in found.lines if line.policy}
    counts = Counter(line.verdict for line in found.lines)
    codes = ", ".join(sorted(given)) or ("dataset refused" if expectation.refused else "-")
    cells = (name, expectation.behaviour, counts["ok"], counts["quarantined"], counts["dropped"])
    return "| " + " | ".join(map(str, (*cells, codes))) + " |"
