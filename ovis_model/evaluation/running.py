"""Ask a model the questions of several benchmarks, and keep every answer as it is finished.

A run that was killed goes on where it was; several processes may share one, in turn or at the
same time.  Whoever finds that nothing is missing any more writes the run down, whole.
"""

import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovis_model.errors import DataError, list_examples
from ovis_model.evaluation.exam import Answer, Answered, Asked, Backend, Exam
from ovis_model.evaluation.predictions import (
    RUN_FILE,
    BenchmarkRecord,
    Flags,
    PredictionRow,
    Run,
    RunRecord,
)
from ovis_model.evaluation.shards import Shard
from ovis_model.evaluation.working_rows import WorkingRows, code_digest, write_rows
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.progress import WatchedBar

log = logging.getLogger(__name__)


def ask(  # noqa: PLR0913 - what, who, where, which share, under which name
    exams: Sequence[Exam],
    backend: Backend,
    *,
    working: Path,
    shard: Shard | None = None,
    label: str = "evaluate",
    protocol: Mapping[str, Any] | None = None,
) -> Run | None:
    """Ask what was not asked yet.

    Args:
        exams: Benchmarks, ready to be asked.
        backend: Who answers.
        working: Folder of unfinished runs; rows are kept there.
        shard: Which of several processes this is; None is the only one.
        label: What the progress bar is called.
        protocol: How answers are generated, for the record; None takes it from the exams.

    Returns:
        The whole run, or None if other processes have not finished their questions.  Questions
        that could not be answered are rows with a reason, and are asked again by the next run.

    Raises:
        ConfigError: If the settings leave no room for an answer, before anything is asked.
    """
    shard = shard or Shard()
    for exam in exams:
        backend.check(exam.settings)
    places = [WorkingRows.of(working, exam, backend, shard) for exam in exams]
    todo = [_open_questions(exam, rows, shard) for exam, rows in zip(exams, places, strict=True)]
    num_asked = sum(len(shard.take(exam.asked)) for exam in exams)
    num_open = sum(map(len, todo))
    with WatchedBar(
        total=num_asked,
        initial=num_asked - num_open,
        desc=label,
        unit="item",
        mininterval=0.5,
        file=sys.stderr,
    ) as bar:
        for exam, rows, pending in zip(exams, places, todo, strict=True):
            if pending:
                _ask_one(exam, pending, backend, rows, bar.update)
    gathered = _gather(exams, places)
    if gathered is None:
        return None
    described = {exam.name: exam.generation for exam in exams} if protocol is None else protocol
    return Run(_record(exams, backend, described), gathered)


def _open_questions(exam: Exam, rows: WorkingRows, shard: Shard) -> list[Asked]:
    """Return the questions of this process that have no answer anywhere."""
    mine = shard.take(exam.asked)
    answered = rows.answers(mine)
    return [one for one in mine if one.key not in answered or answered[one.key].status == "error"]


def _ask_one(
    exam: Exam,
    pending: Sequence[Asked],
    backend: Backend,
    rows: WorkingRows,
    on_progress: Callable[[int], object],
) -> None:
    with rows.open(pending) as writer:
        for answered in backend.answer(pending, exam.settings, exam.pixels):
            writer.write([_row(exam, backend, one) for one in answered])
            on_progress(len(answered))


def _gather(
    exams: Sequence[Exam], places: Sequence[WorkingRows]
) -> dict[str, tuple[PredictionRow, ...]] | None:
    """Put the rows of all processes together, in the order of the questions."""
    gathered = {}
    for exam, rows in zip(exams, places, strict=True):
        found = rows.answers(exam.asked)
        missing = [one for one in exam.asked if one.key not in found]
        if missing:
            log.info("%s: %d questions are left to other processes", exam.name, len(missing))
            return None
        # Marked again: the rows may be older than the benchmark's rule.
        gathered[exam.name] = tuple(_marked(exam, found[one.key]) for one in exam.asked)
    return gathered


def _record(exams: Sequence[Exam], backend: Backend, protocol: Mapping[str, Any]) -> RunRecord:
    scorers = {exam.scorer for exam in exams}
    return RunRecord(
        model=backend.model,
        protocol=dict(protocol),
        conditions={**backend.conditions, "scorer": ", ".join(sorted(scorers)), "judge": "none"},
        provenance={**backend.provenance, "code": code_digest()},
        benchmarks={
            exam.name: BenchmarkRecord(
                fingerprint=exam.fingerprint,
                metric=exam.metric,
                num_items=len(exam.questions),
                seeds=exam.seeds,
                parts=exam.parts,
            )
            for exam in exams
        },
    )


def _row(exam: Exam, backend: Backend, answered: Answered) -> PredictionRow:
    """Write down one answer, marked, or why there is none."""
    asked, answer = answered
    question, settings = asked.question, exam.settings
    blank = PredictionRow(
        model=backend.model,
        benchmark=exam.name,
        index=question.index,
        seed=asked.seed,
        row_hash=question.row_hash,
        cluster=question.cluster,
        groups=question.groups,
        prompt=question.prompt,
        enable_thinking=settings.enable_thinking,
        thinking_budget=settings.thinking_budget if settings.enable_thinking else None,
        truth=question.truth,
        score=0,
        value=0,
        status="error",
        slices=question.slices,
    )
    if not isinstance(answer, Answer):
        return blank.model_copy(update={"error": answer.reason})
    output = answer.output
    written = blank.model_copy(
        update={
            "status": "scored",
            "media": answer.media,
            "raw_output": output.text,
            "thinking": output.thinking,
            "response": output.answer,
            "flags": flags_of(output, settings),
            "tokens": answer.tokens,
            "finish_reason": output.finish_reason,
            "latency_s": answer.latency_s,
            "ttft_s": answer.ttft_s,
            "batch_rows": answer.batch_rows,
        }
    )
    return _marked(exam, written)


def _marked(exam: Exam, row: PredictionRow) -> PredictionRow:
    return row if row.status == "error" else exam.mark(row)


def flags_of(output: ParsedOutput, settings: GenerationSettings) -> Flags:
    """Tell how thought and answer ended."""
    closed = output.thinking_closed
    return Flags(
        forced_close=closed == "forced",
        unclosed_thinking=closed == "never",
        no_think_block=settings.enable_thinking and closed == "none",
        answer_truncated=output.finish_reason == "length",
    )


def refuse_errors(run: Run) -> None:
    """Refuse a run in which questions were not answered.

    Raises:
        DataError: With examples of what went wrong.
    """
    rows = [row for rows in run.rows.values() for row in rows]
    failed = [
        f"{row.benchmark}, {row.index}: {row.error}" for row in rows if row.status == "error"
    ]
    if failed:
        raise DataError(
            f"{len(failed)} of {len(rows)} questions got no answer: {list_examples(failed)}. Mend "
            "the cause and run again: only these are asked"
        )


def write_run(run: Run, folder: Path) -> None:
    """Write a run to a folder that appears whole, and replaces what was there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent):
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name, rows in run.rows.items():
            write_rows(partial / f"{name}.jsonl", rows)
        run.record.write(partial / RUN_FILE)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let processes that finish at the same time write one after the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def drop_unused(working: Path, used: Sequence[Path]) -> None:
    """Delete the rows of runs that are over, or can never go on.

    Args:
        working: Folder of unfinished runs.
        used: Places that are still needed.
    """
    for folder in working.glob("*/*"):
        if folder not in used:
            shutil.rmtree(folder)
