"""From an answered item to the row that is stored."""

import hashlib
import json
from collections.abc import Sequence

from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.candidate import Answered, Question
from ovis_model.evaluation.grouping import cluster_name, groups_of, slices_of
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.predictions import (
    Flags,
    PredictionRow,
    RunRecord,
    SeenMedium,
    TokenCounts,
)
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.thinking import ParsedOutput


def record_answer(
    benchmark: Benchmark, item: BenchmarkItem, answered: Answered, mark: Mark, record: RunRecord
) -> PredictionRow:
    """Write down one answer.

    Args:
        benchmark: What was asked.
        item: Which question of it.
        answered: The model's output, and what went into the model.
        mark: The judgement.
        record: Of the run.
    """
    settings, output, question = answered.settings, answered.output, answered.question
    header, ids = benchmark.header, question.encoded.input_ids
    digests = {name: benchmark.media.sha256(name) for name in item.media}
    content = [item.exam_content, list(digests.values())]
    return PredictionRow(
        model=record.model,
        benchmark=benchmark.name,
        index=item.id,
        seed=record.benchmarks[benchmark.name].seeds[0],
        row_hash=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        cluster=cluster_name(item, header.aggregate_name, list(digests.values())),
        groups=groups_of(item, header.aggregate_name),
        prompt=benchmark.prompt(item).text,
        media=_seen_media(question, [digests[name] for name in question.names]),
        enable_thinking=settings.enable_thinking,
        thinking_budget=settings.thinking_budget,
        raw_output=output.text,
        thinking=output.thinking,
        response=output.answer,
        extracted=mark.extracted,
        truth=item.answer,
        score=header.rule.credit(mark),
        value=mark.value,
        status=mark.status,
        flags=_flags(output, enable_thinking=settings.enable_thinking),
        tokens=TokenCounts(
            prompt=len(ids),
            visual=int((ids < 0).sum()),
            thinking=output.thinking_tokens,
            answer=output.answer_tokens,
            generated=output.generated_tokens,
        ),
        finish_reason=output.finish_reason,
        latency_s=answered.latency_s,
        batch_rows=answered.batch_rows,
        slices=slices_of(item, header.slices, question.sizes),
    )


def _flags(output: ParsedOutput, *, enable_thinking: bool) -> Flags:
    return Flags(
        forced_close=output.thinking_closed == "forced",
        unclosed_thinking=output.thinking_closed == "never",
        no_think_block=enable_thinking and output.thinking_closed == "none",
        answer_truncated=output.finish_reason == "length",
    )


def _seen_media(question: Question, digests: Sequence[str]) -> tuple[SeenMedium, ...]:
    """Tell what was shown: a picture by its own digest, the frames of a video file by the file's.

    Frames are one video to the model, so they share a grid.
    """
    grids = [] if question.encoded.grid_thws is None else question.encoded.grid_thws.tolist()
    return tuple(
        SeenMedium(
            sha256=digests[place if len(digests) > 1 else 0],
            width=width,
            height=height,
            grid=tuple(grids[place if len(grids) > 1 else 0]),
        )
        for place, (width, height) in enumerate(question.sizes)
    )
