"""What validation says about its work: the report, and the sentence of a failure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovis_model.config import ValidateConfig
from ovis_model.data.checks.facts import Facts, Survey
from ovis_model.data.checks.ledger import Ledger
from ovis_model.data.checks.sample_facts import SampleFacts
from ovis_model.data.checks.splitting import Holdout
from ovis_model.data.checks.text_facts import KINDS
from ovis_model.data.reasons import REASONS, Severity
from ovis_model.data.report import (
    ExpectationReport,
    LengthReport,
    QuarantinedSample,
    SourceReport,
    ValidationReport,
)
from ovis_model.errors import DataError, list_examples

#: Quarantined samples that a report lists; the ledger lists all.
MAX_LISTED = 1000
_EXAMPLES = 5
#: What only decoded pictures tell.
NEEDS_PIXELS = ("blank", "near_duplicate", "leaked_near_duplicate")


@dataclass(frozen=True)
class Judged:
    """All that is known once every sample has been judged."""

    config: ValidateConfig
    read: Survey
    facts: Facts
    known: SampleFacts
    ledger: Ledger
    broken: Mapping[str, set[int]]
    severities: Mapping[str, Severity]
    holdout: Holdout


def summarize(judged: Judged, has_lengths: bool, has_exam: bool) -> ValidationReport:
    """Write up what was found.

    Args:
        judged: What was found.
        has_lengths: Whether tokens were counted.
        has_exam: Whether there were benchmarks to compare with.
    """
    ledger, config = judged.ledger, judged.config
    counts = ledger.count()
    good = ledger.good_rows()
    train = [row for row in good if row not in ledger.holdout]
    # Left out by a policy is not bad: a cap must not make the bad ones weigh more.
    bad_fraction = counts["quarantined"] / len(ledger.ids)
    stopped_by = {
        code: len(rows)
        for code, rows in judged.broken.items()
        if rows and judged.severities[code] == "stop"
    }
    media = judged.facts.media
    return ValidationReport(
        # Even where much is forgiven, something must be left to learn from.
        passed=bad_fraction <= config.max_bad_fraction and not stopped_by and bool(train),
        identity=ledger.identity(),
        num_samples=len(ledger.ids),
        num_ok=counts["ok"],
        num_quarantined=counts["quarantined"],
        num_dropped=dict(sorted(Counter(ledger.policies.values()).items())),
        bad_fraction=bad_fraction,
        max_bad_fraction=config.max_bad_fraction,
        stopped_by=stopped_by,
        num_train=len(train),
        num_train_lines=sum(ledger.copies.get(row, 1) for row in train),
        num_holdout=len(ledger.holdout),
        num_media=int(media.loc[media["row"].isin(good), "path"].nunique()),
        num_groups=judged.holdout.num_groups,
        largest_group=judged.holdout.largest_group,
        mended=dict(sorted({**judged.read.notes, **_mended_pictures(judged)}.items())),
        ignored_keys=dict(sorted(judged.read.ignored_keys.items())),
        not_checked=_not_checked(config, has_lengths, has_exam),
        kinds=_count_kinds(judged, good),
        sources=_describe_sources(judged, train),
        lengths=_describe_lengths(judged, good) if has_lengths else None,
        expectations=_describe_expectations(judged),
        quarantined=_list_quarantined(ledger),
    )


def _mended_pictures(judged: Judged) -> dict[str, int]:
    """Count files whose pixels are put right when they are read."""
    found = judged.facts.found
    images = [fact for fact in found if fact.kind == "image" and fact.problem is None]
    counts = {
        "turned_upright": sum(fact.turned for fact in found),
        "converted_to_rgb": sum(fact.mode not in ("RGB", "L", None) for fact in images),
    }
    return {name: count for name, count in counts.items() if count}


def _not_checked(config: ValidateConfig, has_lengths: bool, has_exam: bool) -> list[str]:
    missing = []
    if not has_lengths:
        missing.append("lengths in tokens: there is no base model to count with")
    if not has_exam:
        missing.append("leaks: there are no benchmarks to compare with")
    if config.media_check == "header":
        missing.append(
            "pixels: validate.media_check is 'header', so damage behind the header, blank "
            "pictures and pictures that look alike are not found here"
        )
    return missing


def _count_kinds(judged: Judged, good: list[int]) -> dict[str, int]:
    counts: Counter[int] = Counter()
    for row in good:
        counts.update(judged.known.kinds[row] or ())
    return {name: counts[number] for number, name in enumerate(KINDS)}


def _describe_sources(judged: Judged, train: list[int]) -> dict[str, SourceReport]:
    ledger = judged.ledger
    incoming = Counter(source or "" for source in ledger.sources)
    if set(incoming) == {""}:
        return {}
    ok = Counter(ledger.sources[row] or "" for row in ledger.good_rows())
    lines: Counter[str] = Counter()
    for row in train:
        lines[ledger.sources[row] or ""] += ledger.copies.get(row, 1)
    planned = _planned_lines(judged, train)
    licences = {source.name: source.licence for source in judged.config.sources}
    total, total_planned = sum(lines.values()) or 1, sum(planned.values()) or 1.0
    return {
        name: SourceReport(
            num_samples=incoming[name],
            num_ok=ok[name],
            num_lines=lines[name],
            share=lines[name] / total,
            planned_share=planned.get(name, 0.0) / total_planned,
            licence=licences.get(name, ""),
        )
        for name in sorted(incoming)
    }


def _planned_lines(judged: Judged, train: list[int]) -> dict[str, float]:
    """Return how many lines caps and weights ask for, before they are rounded to samples."""
    ledger = judged.ledger
    left_out = [row for row, policy in ledger.policies.items() if policy in ("cap", "weight")]
    available = Counter(ledger.sources[row] or "" for row in (*train, *left_out))
    plan = {source.name: source for source in judged.config.sources}
    return {
        name: count
        if name not in plan
        else min(count, plan[name].max_samples or count) * plan[name].weight
        for name, count in available.items()
    }


def _describe_lengths(judged: Judged, good: list[int]) -> LengthReport | None:
    lengths = judged.known.num_tokens[good]
    lengths = lengths[lengths >= 0]
    if not len(lengths):
        return None
    return LengthReport(
        num_tokens=int(lengths.sum()),
        median=int(np.percentile(lengths, 50, method="lower")),
        p95=int(np.percentile(lengths, 95, method="lower")),
        longest=int(lengths.max()),
        num_fitted=sum(row in judged.known.fits for row in good),
    )


def _describe_expectations(judged: Judged) -> dict[str, ExpectationReport]:
    ids = judged.ledger.ids
    unseen = NEEDS_PIXELS if judged.config.media_check == "header" else ()
    return {
        code: ExpectationReport(
            description=REASONS[code].expected,
            severity=judged.severities[code],
            passed=None if code in unseen else not rows,
            num_bad=len(rows),
            examples=[ids[row] for row in sorted(rows)[:_EXAMPLES]],
        )
        for code, rows in judged.broken.items()
    }


def _list_quarantined(ledger: Ledger) -> list[QuarantinedSample]:
    return [
        QuarantinedSample(
            id=ledger.ids[row], place=ledger.places[row], reasons=ledger.reasons[row]
        )
        for row in sorted(ledger.reasons)[:MAX_LISTED]
    ]


def explain_failure(
    report: ValidationReport, *, report_file: Path, ledger: Path, data_docs: Path
) -> DataError:
    """Say in one error why validation failed, where to look, and what to do."""
    where = (
        f"What to do about each is in {ledger}, the counts are in {report_file}, a page to browse "
        f"is {data_docs / 'index.html'}"
    )
    counts = f"{report.num_quarantined} of {report.num_samples} samples"
    examples = list_examples(
        [
            f"{sample.id!r} ({'; '.join(f'{c}: {why}' for c, why in sample.reasons.items())})"
            for sample in report.quarantined
            if not report.stopped_by or report.stopped_by.keys() & sample.reasons.keys()
        ]
    )
    if report.stopped_by:
        codes = ", ".join(f"{code} ({count})" for code, count in report.stopped_by.items())
        return DataError(
            f"nothing is trained while there is {codes}: {examples}. {where}. Fix the samples, or "
            "give the code another weight in validate.severity, then run `dvc repro` again"
        )
    if report.bad_fraction <= report.max_bad_fraction:
        return DataError(
            f"no sample is left to train on: {counts} are bad, {report.num_holdout} held out. "
            f"{where}. Add samples or lower validate.holdout_fraction, then run `dvc repro` again"
        )
    return DataError(
        f"{counts} ({report.bad_fraction:.1%}) are bad and validate.max_bad_fraction allows "
        f"{report.max_bad_fraction:.1%}: {examples}. {where}. Fix or remove them, "
        "or raise validate.max_bad_fraction, then run `dvc repro` again"
    )
