"""Step 1 of 5: check every sample, set bad ones aside, hold some good ones out.

Every record of the annotation file ends in one of two ledgers, ok or quarantined with its
reasons; none is dropped without a trace.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ovis_model.config import ValidateConfig
from ovis_model.data.expectations import Outcome, check
from ovis_model.data.facts import Facts, collect_facts
from ovis_model.data.formats import Record, read_records
from ovis_model.data.report import ExpectationReport, QuarantinedSample, ValidationReport
from ovis_model.data.schema import Sample, write_samples
from ovis_model.data.splitting import Split, split_samples
from ovis_model.errors import DataError, list_examples
from ovis_model.reports import sha256_of_file, write_text
from ovis_model.tokens import THINK_OPEN

log = logging.getLogger(__name__)

#: Files of the output folder.
TRAIN, HOLDOUT, MEDIA, MANIFEST = "train.jsonl", "holdout.jsonl", "media.jsonl", "manifest.json"
#: A value in a reason is cut after so many characters: a text may be a whole book.
_MAX_VALUE_CHARS = 200


@dataclass(frozen=True)
class _Judged:
    """The two ledgers."""

    good: list[Sample]
    bad: list[QuarantinedSample]


def validate(
    config: ValidateConfig, *, raw_data: Path, output: Path, report: Path, data_docs: Path
) -> ValidationReport:
    """Check every sample and write those that hold, split in two.

    Args:
        config: Which annotations, how much to hold out, how much bad data to accept.
        raw_data: Folder with the annotations and all media.
        output: Folder for train.jsonl, holdout.jsonl, media.jsonl and manifest.json; gone
            after a failure, so that nobody trains on what was there before.
        report: The report's file, written whether validation passes or not.
        data_docs: Folder of Great Expectations' HTML site, likewise.

    Raises:
        DataError: If the annotations cannot be read at all, or too many samples are bad.
    """
    partial = output.with_name(output.name + ".partial")
    for stale in (output, partial):
        shutil.rmtree(stale, ignore_errors=True)
    report.unlink(missing_ok=True)
    annotations = raw_data / config.annotations
    records = list(read_records(annotations))
    facts = collect_facts(records, raw_data)
    outcomes = check(facts.table, data_docs)
    judged = _judge(facts, outcomes)
    _account(len(records), judged)
    digests = {path: fact.sha256 or "" for path, fact in facts.media.items()}
    split = split_samples(
        judged.good, digests, fraction=config.holdout_fraction, seed=config.split_seed
    )
    result = _report(config, records, outcomes, judged, split)
    result.write(report)
    if not result.passed:
        raise DataError(_explain_failure(result, report=report, data_docs=data_docs))
    _write_outputs(partial, split, facts, annotations, config)
    partial.rename(output)
    log.info(
        "%d samples: %d to train on, %d held out, %d quarantined",
        *(result.num_samples, result.num_train, result.num_holdout, result.num_quarantined),
    )
    return result


def _judge(facts: Facts, outcomes: Iterable[Outcome]) -> _Judged:
    reasons: dict[int, dict[str, str]] = {}
    for outcome in outcomes:
        for row in outcome.rows:
            values = {name: facts.table.loc[row, name] for name in outcome.rule.columns}
            reasons.setdefault(row, {})[outcome.rule.code] = _describe(values)
    bad = [
        QuarantinedSample(
            id=str(facts.table.loc[row, "id"]),
            place=str(facts.table.loc[row, "place"]),
            reasons=reasons[row],
        )
        for row in sorted(reasons)
    ]
    samples = enumerate(facts.samples)
    return _Judged([s for row, s in samples if s is not None and row not in reasons], bad)


def _describe(values: Mapping[str, object]) -> str:
    """Show the one text that says it, or each count with its name."""
    if len(values) == 1 and isinstance(text := next(iter(values.values())), str):
        return text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + " ..."
    return ", ".join(f"{name} = {value}" for name, value in values.items())


def _account(num_records: int, judged: _Judged) -> None:
    counted = len(judged.good) + len(judged.bad)
    assert counted == num_records, f"{num_records} records came in, {counted} were judged"


def _report(
    config: ValidateConfig,
    records: list[Record],
    outcomes: Iterable[Outcome],
    judged: _Judged,
    split: Split,
) -> ValidationReport:
    bad_fraction = len(judged.bad) / len(records)
    # Even where much is forgiven, something must be left to learn from.
    passed = bad_fraction <= config.max_bad_fraction and bool(split.train)
    return ValidationReport(
        passed=passed,
        num_samples=len(records),
        num_ok=len(judged.good),
        num_quarantined=len(judged.bad),
        bad_fraction=bad_fraction,
        max_bad_fraction=config.max_bad_fraction,
        num_train=len(split.train),
        num_holdout=len(split.holdout),
        num_media=len({path for sample in judged.good for path in sample.media}),
        num_groups=split.num_groups,
        largest_group=split.largest_group,
        num_generated_ids=sum(record.has_generated_id for record in records),
        ignored_keys=_ignored_keys(records),
        kinds=_count_kinds(judged.good),
        expectations={
            outcome.rule.code: ExpectationReport(
                description=outcome.description,
                passed=not outcome.rows,
                num_bad=len(outcome.rows),
                examples=[records[row].id for row in outcome.rows[:5]],
            )
            for outcome in outcomes
        },
        quarantined=judged.bad,
    )


def _ignored_keys(records: Iterable[Record]) -> dict[str, int]:
    """Count keys that samples carry and nothing reads."""
    found: Counter[str] = Counter()
    for record in records:
        if isinstance(record.value, Mapping):
            found.update(record.value.keys() - Sample.model_fields.keys())
    return {repr(key)[1:-1]: found[key] for key in sorted(found)}


def _count_kinds(samples: Iterable[Sample]) -> dict[str, int]:
    kinds = Counter(
        dict.fromkeys(
            (
                *("single_image", "multi_image", "video_file", "video_frames", "text_only"),
                *("with_think", "system_prompt", "multi_turn", "grounding"),
            ),
            0,
        )
    )
    for sample in samples:
        kinds.update(_kinds(sample))
    return dict(kinds)


def _kinds(sample: Sample) -> list[str]:
    """Name the one kind of media and every feature of the conversation."""
    if isinstance(sample.video, str):
        media = "video_file"
    elif sample.video:
        media = "video_frames"
    else:
        media = ("text_only", "single_image", "multi_image")[min(len(sample.image), 2)]
    text = "".join(turn.value for turn in sample.conversations)
    roles = [turn.role for turn in sample.conversations]
    features = {
        "with_think": THINK_OPEN in text,
        "system_prompt": "system" in roles,
        "multi_turn": roles.count("human") > 1,
        "grounding": any(tag in text for tag in ("<box>", "<point>", "<ref>")),
    }
    return [media, *(name for name, present in features.items() if present)]


def _explain_failure(result: ValidationReport, *, report: Path, data_docs: Path) -> str:
    where = f"The whole list is in {report}, a page to browse in {data_docs / 'index.html'}"
    counts = f"{result.num_quarantined} of {result.num_samples} samples"
    if result.bad_fraction <= result.max_bad_fraction:
        return (
            f"no sample is left to train on: {counts} are bad, {result.num_holdout} held out. "
            f"{where}. Add samples or lower validate.holdout_fraction, then run `dvc repro` again"
        )
    examples = [
        f"{sample.id!r} ({'; '.join(f'{c}: {why}' for c, why in sample.reasons.items())})"
        for sample in result.quarantined
    ]
    return (
        f"{counts} ({result.bad_fraction:.1%}) are bad and validate.max_bad_fraction allows "
        f"{result.max_bad_fraction:.1%}: {list_examples(examples)}. {where}. Fix or remove them, "
        "or raise validate.max_bad_fraction, then run `dvc repro` again"
    )


def _write_outputs(
    folder: Path, split: Split, facts: Facts, annotations: Path, config: ValidateConfig
) -> None:
    rows = {
        TRAIN: write_samples(folder / TRAIN, split.train),
        HOLDOUT: write_samples(folder / HOLDOUT, split.holdout),
        MEDIA: _write_media(folder / MEDIA, (*split.train, *split.holdout), facts),
    }
    manifest = {
        "annotations": {"file": config.annotations, "sha256": sha256_of_file(annotations)},
        "split": {"holdout_fraction": config.holdout_fraction, "seed": config.split_seed},
        "files": describe_files(folder, rows),
        "num_media": rows[MEDIA],
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _write_media(path: Path, samples: Iterable[Sample], facts: Facts) -> int:
    """Write what each file was when it was checked; extraction refuses one that changed."""
    used = sorted({name for sample in samples for name in sample.media})
    lines = [
        json.dumps({"path": name, "sha256": facts.media[name].sha256}, ensure_ascii=False) + "\n"
        for name in used
    ]
    write_text(path, "".join(lines))
    return len(lines)


def describe_files(folder: Path, rows: Mapping[str, int]) -> dict[str, dict[str, str | int]]:
    """Return digest and line count of files in a folder, as manifests hold them."""
    return {
        name: {"sha256": sha256_of_file(folder / name), "rows": count}
        for name, count in rows.items()
    }
