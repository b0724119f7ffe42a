"""Step 1 of 5: check every sample, set bad ones aside, hold some good ones out.

Every record of the annotations ends in the ledger once: ok, quarantined with its reasons, or
dropped by a named policy.  Samples are read twice from a file and never held in memory together:
a million of them take the space of their facts.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ovis_model.config import FrameSampling, ValidateConfig, unknown_key
from ovis_model.data.checks.expectations import build_rules, check
from ovis_model.data.checks.facts import Facts, Survey, make_tables, survey
from ovis_model.data.checks.leakage import Exam, list_exam_media, read_exam
from ovis_model.data.checks.ledger import Ledger, judge
from ovis_model.data.checks.lengths import LengthMeter, LengthRules
from ovis_model.data.checks.media_index import Inspection, inspect_all
from ovis_model.data.checks.mixing import mix_sources
from ovis_model.data.checks.sample_facts import Measures, SampleFacts, add_sample_facts
from ovis_model.data.checks.splitting import Holdout, choose_holdout
from ovis_model.data.checks.spool import SampleSpool
from ovis_model.data.checks.summary import Judged, explain_failure, summarize
from ovis_model.data.checks.validation_card import write_validation_card
from ovis_model.data.decoding.pool import Decoders, open_decoders
from ovis_model.data.reasons import REASONS, Severity
from ovis_model.data.report import ValidationReport
from ovis_model.data.sample_file import SampleFile
from ovis_model.data.schema import Sample, write_samples
from ovis_model.data.sources import annotation_files, read_annotations
from ovis_model.errors import ConfigError
from ovis_model.progress import WatchedBar
from ovis_model.reports import sha256_of_file, write_text

log = logging.getLogger(__name__)

#: Files of the output folder.
TRAIN, HOLDOUT, MEDIA, MANIFEST = "train.jsonl", "holdout.jsonl", "media.jsonl", "manifest.json"


@dataclass(frozen=True)
class Context:
    """What samples are held against, beside themselves.

    Attributes:
        sampling: How many frames will stand for a video.
        lengths: Limits of training and the model that counts; None leaves lengths unchecked.
        exam: Folder of the benchmarks; None leaves leaks unchecked.
        memory: Where what inspections find is remembered; None looks at everything anew.
    """

    sampling: FrameSampling = field(default_factory=FrameSampling)
    lengths: LengthRules | None = None
    exam: Path | None = None
    memory: Path | None = None


@dataclass(frozen=True)
class Results:
    """Where validation writes.

    Attributes:
        output: Folder for train.jsonl, holdout.jsonl, media.jsonl and manifest.json; gone
            after a failure, so that nobody trains on what was there before.
        report: JSON, written whether validation passes or not; so are the others.
        ledger: JSON lines, one per input sample.
        data_docs: Folder of Great Expectations' HTML site.
        card: HTML page about the data, with a JSON file of the same name beside it; None writes
            none.
    """

    output: Path
    report: Path
    ledger: Path
    data_docs: Path
    card: Path | None = None


def validate(
    config: ValidateConfig, *, raw_data: Path, results: Results, context: Context | None = None
) -> ValidationReport:
    """Check every sample and write those that hold, split in two.

    Args:
        config: Which annotations, how much to hold out, how much bad data to accept.
        raw_data: Folder with the annotations and all media.
        results: Where to write.
        context: What else samples are held against.

    Raises:
        DataError: If the annotations cannot be read at all, or too many samples are bad.
        ConfigError: If a reason code in `config.severity` is unknown.
    """
    severities = weigh(config.severity)
    context = context or Context()
    partial = _clear(results)
    with SampleSpool(partial / "samples.spool") as spool:
        records = read_annotations(raw_data, config)
        total = _count_lines(annotation_files(raw_data, config))
        bar = WatchedBar(records, total=total, desc="read", unit="sample", delay=2, mininterval=2)
        read = survey(bar, raw_data, spool)
        facts, known = _look(config, raw_data, context, read)
        tables = facts.tables
        rules = build_rules(
            with_lengths=context.lengths is not None, with_benchmarks=context.exam is not None
        )
        outcomes = check(tables, rules, results.data_docs, severities=severities)
        ledger = _open_ledger(facts)
        broken = judge(ledger, tables, outcomes, severities)
        _drop(ledger, facts, known)
        holdout = _split(config, ledger, known)
        judged = Judged(config, read, facts, known, ledger, broken, severities, holdout)
        report = summarize(judged, context.lengths is not None, context.exam is not None)
        ledger.write(results.ledger)
        report.write(results.report)
        if results.card is not None:
            write_validation_card(
                results.card, judged, report, raw_data=raw_data, lengths=context.lengths
            )
        log.info("%s", ledger.identity())
        if not report.passed:
            shutil.rmtree(partial)
            raise explain_failure(
                report,
                report_file=results.report,
                ledger=results.ledger,
                data_docs=results.data_docs,
            )
        _write_outputs(partial, raw_data, judged)
    partial.rename(results.output)
    return report


def weigh(overrides: Mapping[str, Severity]) -> dict[str, Severity]:
    """Return the severity of every reason code, those of the configuration first.

    Raises:
        ConfigError: If the configuration names an unknown code.
    """
    unknown = sorted(set(overrides) - set(REASONS))
    if unknown:
        hints = "; ".join(unknown_key(code, REASONS) for code in unknown)
        raise ConfigError(f"validate.severity: {hints} (docs/data.md lists all reason codes)")
    return {code: overrides.get(code, reason.severity) for code, reason in REASONS.items()}


def _clear(results: Results) -> Path:
    partial = results.output.with_name(results.output.name + ".partial")
    for stale in (results.output, partial, results.data_docs):
        shutil.rmtree(stale, ignore_errors=True)
    pages = () if results.card is None else (results.card, results.card.with_suffix(".json"))
    for stale in (results.report, results.ledger, *pages):
        stale.unlink(missing_ok=True)
    return partial


def _count_lines(annotations: Sequence[Path]) -> int | None:
    """Count the records, for the time that is left; None where that takes reading them."""
    if any(path.suffix != ".jsonl" or not path.is_file() for path in annotations):
        return None
    return sum(len(SampleFile(path)) for path in annotations)


def _look(
    config: ValidateConfig, raw_data: Path, context: Context, read: Survey
) -> tuple[Facts, SampleFacts]:
    """Open every medium, then measure every sample."""
    with open_decoders(
        config.limits, workers=config.workers, dask_scheduler=config.dask_scheduler
    ) as decoders:
        how = Inspection(raw_data, config.media_check, config.limits, context.memory)
        found = inspect_all(list(read.media_of()), how, decoders)
        exam = None if context.exam is None else _read_exam(config, context, decoders)
    facts = make_tables(read, found)
    meter = None if context.lengths is None else LengthMeter(context.lengths)
    measures = Measures(context.sampling, meter, exam)
    return facts, add_sample_facts(facts, read.spool, measures)


def _read_exam(config: ValidateConfig, context: Context, decoders: Decoders) -> Exam:
    assert context.exam is not None
    how = Inspection(context.exam, config.media_check, config.limits, context.memory)
    return read_exam(context.exam, inspect_all(list_exam_media(context.exam), how, decoders))


def _open_ledger(facts: Facts) -> Ledger:
    samples = facts.samples
    sources = [None if pd.isna(source) else source for source in samples["source"]]
    return Ledger(samples["id"].tolist(), samples["place"].tolist(), sources)


def _drop(ledger: Ledger, facts: Facts, known: SampleFacts) -> None:
    repeats = facts.samples["repeats"].to_numpy()
    ledger.drop((repeats >= 0).nonzero()[0].tolist(), "repeated")
    ledger.drop(sorted(known.dropped), "over_length")


def _split(config: ValidateConfig, ledger: Ledger, known: SampleFacts) -> Holdout:
    """Hold some of the good samples out, then mix the sources of the others."""
    good = ledger.good_rows()
    holdout = choose_holdout(
        [known.contents[row] for row in good],
        [ledger.sources[row] or "" for row in good],
        fraction=config.holdout_fraction,
        seed=config.split_seed,
        alike=known.alike,
    )
    ledger.holdout = {row for row, held in zip(good, holdout.is_held, strict=True) if held}
    train = [row for row in good if row not in ledger.holdout]
    mix = mix_sources(
        [ledger.ids[row] for row in train],
        [ledger.sources[row] for row in train],
        config.sources,
        seed=config.mix_seed,
    )
    for index, policy in mix.dropped_by.items():
        ledger.drop([train[index]], policy)
    ledger.copies = {train[index]: copies for index, copies in enumerate(mix.copies) if copies > 1}
    return holdout


def _write_outputs(folder: Path, raw_data: Path, judged: Judged) -> None:
    ledger, spool = judged.ledger, judged.read.spool
    good = ledger.good_rows()
    train = [row for row in good if row not in ledger.holdout]
    rows = {
        TRAIN: write_samples(folder / TRAIN, _samples(spool, train, judged)),
        HOLDOUT: write_samples(folder / HOLDOUT, _samples(spool, sorted(ledger.holdout), judged)),
        MEDIA: _write_media(folder / MEDIA, judged.facts, good),
    }
    config = judged.config
    manifest = {
        "annotations": {
            path.relative_to(raw_data).as_posix(): sha256_of_file(path)
            for path in annotation_files(raw_data, config)
        },
        "split": {"holdout_fraction": config.holdout_fraction, "seed": config.split_seed},
        "limits": config.limits.model_dump(),
        "files": describe_files(folder, rows),
        "num_media": rows[MEDIA],
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _samples(spool: SampleSpool, rows: list[int], judged: Judged) -> Iterator[Sample]:
    for row in rows:
        sample = spool.read(row)
        if row in judged.known.fits:
            sample = sample.model_copy(update={"fit": judged.known.fits[row]})
        yield sample
        for copy in range(2, judged.ledger.copies.get(row, 1) + 1):
            yield sample.model_copy(update={"id": f"{sample.id}~{copy}"})


def _write_media(path: Path, facts: Facts, good: list[int]) -> int:
    """Write what each file was when it was checked; extraction refuses one that changed."""
    table = facts.media
    used = table.loc[table["row"].isin(good), "medium"].unique()
    lines = {
        fact.path: json.dumps({"path": fact.path, "sha256": fact.sha256}, ensure_ascii=False)
        for fact in (facts.found[number] for number in used)
    }
    write_text(path, "".join(lines[name] + "\n" for name in sorted(lines)))
    return len(lines)


def describe_files(folder: Path, rows: Mapping[str, int]) -> dict[str, dict[str, str | int]]:
    """Return digest and line count of files in a folder, as manifests hold them."""
    return {
        name: {"sha256": sha256_of_file(folder / name), "rows": count}
        for name, count in rows.items()
    }
