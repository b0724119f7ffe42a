"""Step 4 of 5: the base and the tuned model answer the same questions, thinking enabled."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ovis_model.config import EvaluateConfig, FrameSampling
from ovis_model.evaluation.answers import extract_answer
from ovis_model.evaluation.benchmarks.benchmark import Benchmark, load_benchmarks
from ovis_model.evaluation.candidate import Candidate, load_media
from ovis_model.evaluation.report import Attempt, Exhibit, Gallery, choose_exhibits, render_html
from ovis_model.evaluation.scores import BenchmarkReport, EvaluationReport, ModelScore
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.reports import write_text

#: Who sits the exam; also the keys of a line of predictions.
BASE, TUNED = "base", "tuned"


@dataclass(frozen=True)
class _Sitting:
    """One model's outputs on one benchmark, marked."""

    outputs: Sequence[ParsedOutput]
    marks: Sequence[Mark]
    frame_sampling: FrameSampling

    def to_json(self, index: int) -> dict[str, Any]:
        mark = self.marks[index]
        return {**asdict(self.outputs[index]), **asdict(mark)}


def evaluate(  # noqa: PLR0913 - a step's paths are its interface
    config: EvaluateConfig,
    *,
    model: Path,
    base_model: Path,
    benchmarks: Path,
    predictions: Path,
    html: Path,
) -> EvaluationReport:
    """Score two checkpoints on every benchmark of a folder.

    Args:
        config: Thinking, decoding, and how many items.
        model: The tuned checkpoint; its pixel limits and frame sampling hold for both.
        base_model: The checkpoint it was tuned from.
        benchmarks: Folder of benchmark YAML files.
        predictions: Folder that receives `<benchmark>.jsonl`, one line per item; replaced.
        html: File that receives the report with pictures.

    Raises:
        DataError: If a benchmark or one of its items cannot be used.
        CheckpointError: If a checkpoint is incomplete.
        ConfigError: If the token limits leave no room for an answer.
    """
    exams = load_benchmarks(benchmarks, limit=config.limit)
    protocol = describe_protocol(config)
    # Before any model is loaded: a missing file should cost seconds, not an evaluation.
    fingerprints = [exam.fingerprint(protocol) for exam in exams]
    base = _sit(base_model, exams, config, seen_as=model, label=BASE)
    tuned = _sit(model, exams, config, seen_as=model, label=TUNED)
    report = EvaluationReport(
        protocol=protocol,
        benchmarks={
            exam.name: _compare(exam, fingerprint, before, after)
            for exam, fingerprint, before, after in zip(
                exams, fingerprints, base, tuned, strict=True
            )
        },
    )
    galleries = [
        Gallery(exam, _exhibits(exam, before, after))
        for exam, before, after in zip(exams, base, tuned, strict=True)
    ]
    _write_predictions(predictions, exams, base, tuned)
    write_text(html, render_html(report, galleries))
    return report


def _compare(
    exam: Benchmark, fingerprint: str, base: _Sitting, tuned: _Sitting
) -> BenchmarkReport:
    return BenchmarkReport(
        fingerprint=fingerprint,
        metric=exam.header.metric,
        num_items=len(exam.items),
        tuned=ModelScore.of(tuned.outputs, tuned.marks),
        base=ModelScore.of(base.outputs, base.marks),
    )


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


def _sit(
    path: Path, exams: Sequence[Benchmark], config: EvaluateConfig, *, seen_as: Path, label: str
) -> list[_Sitting]:
    """Let one checkpoint answer everything; its memory is free again afterwards."""
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
    num_items = sum(len(exam.items) for exam in exams)
    sittings = []
    with tqdm(total=num_items, desc=f"evaluate {label}", unit="item", file=sys.stderr) as bar:
        for exam in exams:
            outputs = candidate.answer(exam, bar.update)
            marks = [
                exam.mark(item, extract_answer(output))
                for output, item in zip(outputs, exam.items, strict=True)
            ]
            sittings.append(_Sitting(outputs, marks, candidate.processor.frame_sampling))
    return sittings


def _exhibits(exam: Benchmark, base: _Sitting, tuned: _Sitting) -> list[Exhibit]:
    """Choose items for the gallery and decode their pictures as the tuned model saw them."""
    exhibits = []
    for index in choose_exhibits(tuned.marks):
        item = exam.items[index]
        exhibits.append(
            Exhibit(
                item=item,
                pictures=load_media(exam, item, tuned.frame_sampling).pictures,
                tuned=Attempt(tuned.outputs[index], tuned.marks[index]),
                base=Attempt(base.outputs[index], base.marks[index]),
            )
        )
    return exhibits


def _write_predictions(
    folder: Path, exams: Sequence[Benchmark], base: Sequence[_Sitting], tuned: Sequence[_Sitting]
) -> None:
    """Write one JSONL per benchmark beside the old folder, then put it in its place."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for exam, before, after in zip(exams, base, tuned, strict=True):
        lines = []
        for index, item in enumerate(exam.items):
            line = {
                **item.model_dump(mode="json", include={"id", "question", "answer"}),
                BASE: before.to_json(index),
                TUNED: after.to_json(index),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        write_text(partial / f"{exam.name}.jsonl", "".join(lines))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
