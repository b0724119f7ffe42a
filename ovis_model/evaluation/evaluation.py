"""Step 4 of 5: the base and the tuned model answer the same questions, thinking enabled."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ovis_model.config import EvaluateConfig, FrameSampling
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.sample_file import SampleFile
from ovis_model.evaluation.answers import extract_answer
from ovis_model.evaluation.benchmarks.benchmark import Benchmark, load_benchmarks
from ovis_model.evaluation.candidate import Candidate, load_media
from ovis_model.evaluation.contamination import Asked, Overlap, TrainingTraces, find_overlap
from ovis_model.evaluation.gallery import PicturesOf
from ovis_model.evaluation.grouping import parts_of
from ovis_model.evaluation.predictions import (
    RUN_FILE,
    BenchmarkRecord,
    PredictionRow,
    PredictionWriter,
    RunRecord,
    read_run,
)
from ovis_model.evaluation.recording import record_answer
from ovis_model.evaluation.report import render_html
from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.evaluation.summary import Sources, summarise
from ovis_model.inference.generation import GenerationSettings
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import write_text

#: Who sits the exam; also the folders of their predictions.
BASE, TUNED = "base", "tuned"


def evaluate(  # noqa: PLR0913 - a step's paths are its interface
    config: EvaluateConfig,
    *,
    model: Path,
    base_model: Path,
    benchmarks: Path,
    training: Path | None,
    predictions: Path,
    html: Path,
) -> EvaluationReport:
    """Score two checkpoints on every benchmark of a folder.

    Args:
        config: Thinking, decoding, and how many items.
        model: The tuned checkpoint; its pixel limits and frame sampling hold for both.
        base_model: The checkpoint it was tuned from.
        benchmarks: Folder of benchmark YAML files.
        training: The extracted data it was tuned on, in which items are looked for; None looks
            for nothing.
        predictions: Folder that receives a run of each model, `tuned` and `base`; replaced.
        html: File that receives the report with pictures.

    Raises:
        DataError: If a benchmark or one of its items cannot be used.
        CheckpointError: If a checkpoint is incomplete.
        ConfigError: If the token limits leave no room for an answer.
    """
    exams = load_benchmarks(benchmarks, limit=config.limit)
    protocol = describe_protocol(config)
    # Before any model is loaded: a missing file should cost seconds, not an evaluation.
    records = {
        exam.name: BenchmarkRecord(
            fingerprint=exam.fingerprint(protocol),
            metric=exam.header.metric,
            num_items=len(exam.items),
            parts=parts_of(exam.header.aggregate_name, exam.items),
            seeds=(config.seed if config.do_sample else 0,),
        )
        for exam in exams
    }
    partial = predictions.with_name(predictions.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for role, path in ((BASE, base_model), (TUNED, model)):
        record = RunRecord(model=role, protocol=protocol, benchmarks=records)
        _sit(path, exams, config, seen_as=model, record=record, folder=partial / role)
    sampling = Ovis2_5Processor.from_pretrained(model).frame_sampling
    sources = Sources(
        tuned=read_run(partial / TUNED),
        base=read_run(partial / BASE),
        overlaps={} if training is None else _find_overlaps(exams, training, sampling),
    )
    report = summarise(sources)
    page = render_html(
        report,
        sources,
        pictures_of=_pictures_of(exams, sampling),
        descriptions={exam.name: exam.header.description for exam in exams},
    )
    shutil.rmtree(predictions, ignore_errors=True)
    partial.rename(predictions)
    write_text(html, page)
    return report


def describe_protocol(config: EvaluateConfig) -> dict[str, Any]:
    """Return what decides how answers are generated, and nothing else."""
    return {
        "enable_thinking": config.enable_thinking,
        "thinking_budget": config.budget,
        "max_new_tokens": config.max_new_tokens,
        "do_sample": config.do_sample,
        "temperature": config.temperature if config.do_sample else None,
        "seed": config.seed if config.do_sample else None,
    }


def _sit(  # noqa: PLR0913 - who, what, how, and where to
    path: Path,
    exams: Sequence[Benchmark],
    config: EvaluateConfig,
    *,
    seen_as: Path,
    record: RunRecord,
    folder: Path,
) -> None:
    """Let one checkpoint answer everything and store its rows; its memory is free afterwards."""
    settings = GenerationSettings(
        max_new_tokens=config.max_new_tokens,
        enable_thinking=config.enable_thinking,
        thinking_budget=config.budget,
        do_sample=config.do_sample,
        temperature=config.temperature,
    )
    candidate = Candidate.load(
        path, settings, seen_as=seen_as, batch_size=config.batch_size, seed=config.seed
    )
    record.write(folder / RUN_FILE)
    num_items = sum(len(exam.items) for exam in exams)
    label = f"evaluate {record.model}"
    with tqdm(total=num_items, desc=label, unit="item", file=sys.stderr) as bar:
        for exam in exams:
            answers = candidate.answer(exam, bar.update)
            with PredictionWriter(folder / f"{exam.name}.jsonl") as writer:
                writer.write(
                    record_answer(
                        exam,
                        item,
                        answered,
                        exam.mark(item, extract_answer(answered.output)),
                        record,
                    )
                    for answered, item in zip(answers, exam.items, strict=True)
                )


def _find_overlaps(
    exams: Sequence[Benchmark], training: Path, sampling: FrameSampling
) -> dict[str, Overlap]:
    """Look for the benchmarks' items in the training data."""
    traces = TrainingTraces.of(SampleFile(training / "train.jsonl"), MediaFiles(training))
    return {
        exam.name: find_overlap(
            (
                Asked(item.id, item.prompt, item.answer, load_media(exam, item, sampling).pictures)
                for item in exam.items
            ),
            traces,
        )
        for exam in exams
    }


def _pictures_of(exams: Sequence[Benchmark], sampling: FrameSampling) -> PicturesOf:
    """Decode an item's pictures as the tuned model saw them, when the page asks for them."""
    items = {(exam.name, item.id): (exam, item) for exam in exams for item in exam.items}

    def pictures_of(row: PredictionRow) -> Sequence[Image.Image]:
        exam, item = items[row.benchmark, row.index]
        return load_media(exam, item, sampling).pictures

    return pictures_of
