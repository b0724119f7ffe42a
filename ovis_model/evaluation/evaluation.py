"""Step 4 of 5: the base and the tuned model answer the same questions, thinking enabled."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from ovis_model.config import EvaluateConfig, FrameSampling
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.sample_file import SampleFile
from ovis_model.evaluation.backends.in_process import TransformersBackend
from ovis_model.evaluation.benchmarks.benchmark import Benchmark, load_benchmarks
from ovis_model.evaluation.contamination import Asked, Overlap, TrainingTraces, find_overlap
from ovis_model.evaluation.exam import Exam
from ovis_model.evaluation.exams import build_exams, describe_protocol, official_protocol
from ovis_model.evaluation.gallery import PicturesOf
from ovis_model.evaluation.item_media import load_media
from ovis_model.evaluation.predictions import BASE, TUNED, PredictionRow, Run
from ovis_model.evaluation.published import find_published
from ovis_model.evaluation.report import render_html
from ovis_model.evaluation.running import ask, drop_unused, refuse_errors, write_run
from ovis_model.evaluation.scores import EvaluationReport, PublishedNumber
from ovis_model.evaluation.shards import Shard
from ovis_model.evaluation.summary import Sources, summarise
from ovis_model.evaluation.working_rows import WorkingRows
from ovis_model.inference.engine import BatchLimit
from ovis_model.model_folder import digest_of_folder
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.registry import CHAMPION
from ovis_model.reports import write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Models:
    """Who is asked.

    Attributes:
        tuned: The tuned checkpoint; its pixel limits and frame sampling hold for all.
        base: The checkpoint it was tuned from.
        champion: The registry's champion, None if there is none or its files are not here.
        champion_note: Why it is not asked.
    """

    tuned: Path
    base: Path
    champion: Path | None = None
    champion_note: str = "there is no champion"


@dataclass(frozen=True)
class Outputs:
    """What an evaluation writes.

    Attributes:
        predictions: Folder that receives a run of each model that was asked; replaced.
        html: The report with pictures.
        working: Folder of unfinished runs, which outlives a kill.
    """

    predictions: Path
    html: Path
    working: Path


def evaluate(
    config: EvaluateConfig,
    *,
    models: Models,
    benchmarks: Path,
    training: Path | None,
    outputs: Outputs,
) -> EvaluationReport:
    """Score checkpoints on every benchmark of a folder.

    Args:
        config: Thinking, decoding, and how many items.
        models: Who is asked.
        benchmarks: Folder of benchmark YAML files.
        training: The extracted data the model was tuned on, in which items are looked for; None
            looks for nothing.
        outputs: What is written.

    Raises:
        DataError: If a benchmark or one of its items cannot be used.
        CheckpointError: If a checkpoint is incomplete.
        ConfigError: If the token limits leave no room for an answer.
    """
    asked = load_benchmarks(benchmarks, limit=config.limit)
    # Before any model is loaded: a missing file should cost seconds, not an evaluation.
    exams = build_exams(asked, config, model=models.tuned)
    sitting = _Sitting(config, exams, seen_as=models.tuned, working=outputs.working)
    base = sitting.ask(models.base, BASE)
    tuned = sitting.ask(models.tuned, TUNED)
    champion = _ask_champion(sitting, models, tuned)
    sampling = Ovis2_5Processor.from_pretrained(models.tuned).frame_sampling
    sources = Sources(
        tuned=tuned,
        base=base,
        thinking_off=_ask_without_thinking(sitting, asked, models.tuned),
        champion=champion,
        published=_find_published(asked, config, models.tuned, tuned),
        overlaps={} if training is None else _find_overlaps(asked, training, sampling),
    )
    report = summarise(sources)
    page = render_html(
        report,
        sources,
        pictures_of=_pictures_of(asked, sampling),
        descriptions={one.name: one.header.description for one in asked},
    )
    partial = outputs.predictions.with_name(outputs.predictions.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for role, run in ((BASE, base), (TUNED, tuned), (CHAMPION, champion)):
        if run is not None:
            write_run(run, partial / role)
    shutil.rmtree(outputs.predictions, ignore_errors=True)
    partial.rename(outputs.predictions)
    write_text(outputs.html, page)
    drop_unused(outputs.working, sitting.used)
    return report


@dataclass(frozen=True)
class _Sitting:
    """Lets one checkpoint after the other answer the same exams."""

    config: EvaluateConfig
    exams: Sequence[Exam]
    seen_as: Path
    working: Path
    used: list[Path] = field(default_factory=list)

    def ask(self, path: Path, role: str) -> Run:
        """Ask one checkpoint; its memory is free afterwards.

        Raises:
            DataError: If a question got no answer.
        """
        limit = BatchLimit(self.config.batch_size, self.config.batch_tokens)
        backend = TransformersBackend.load(path, seen_as=self.seen_as, limit=limit)
        self.used.extend(
            WorkingRows.of(self.working, exam, backend, Shard()).folder for exam in self.exams
        )
        run = ask(
            self.exams,
            backend,
            working=self.working,
            label=f"evaluate {role}",
            protocol=describe_protocol(self.config),
        )
        assert run is not None, "one process leaves nothing to others"
        refuse_errors(run)
        return run


def _ask_without_thinking(
    sitting: _Sitting, asked: Sequence[Benchmark], model: Path
) -> Run | None:
    """Ask the tuned model the same without thinking, if that is wanted."""
    config = sitting.config
    if not config.thinking_off:
        return None
    own = config.preset == "own"
    change = {"enable_thinking": False} if own else {"preset": "thinking_off"}
    without = config.model_copy(update=change)
    exams = build_exams(asked, without, model=model)
    return replace(sitting, config=without, exams=exams).ask(model, "tuned, not thinking")


def _find_published(
    asked: Sequence[Benchmark], config: EvaluateConfig, model: Path, run: Run
) -> dict[str, PublishedNumber]:
    """Look the published numbers up, where official settings make it worth the while."""
    if config.preset == "own":
        return {}
    protocol = official_protocol(config.preset, model)
    return {one.name: find_published(one, protocol, run) for one in asked}


def _ask_champion(sitting: _Sitting, models: Models, tuned: Run) -> Run | None:
    note = models.champion_note
    if models.champion is not None:
        if digest_of_folder(models.champion) != tuned.record.model:
            return sitting.ask(models.champion, CHAMPION)
        note = "the candidate is the champion"
    log.info("no champion is asked: %s", note)
    return None


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
