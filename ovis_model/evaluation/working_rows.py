"""Rows of an evaluation that is not finished: they outlive a kill, and are never asked twice.

    <working>/<benchmark>/<key>/<rank>-of-<count>.jsonl

The key is a digest of all that decides an answer besides the question itself: the model, how it
generates, the backend, this project's code.  The question is compared row by row: its prompt,
its media, its true answer.  A row that says why there is no answer is asked again.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import ovis_model
from ovis_model.evaluation.exam import Asked, Backend, Exam
from ovis_model.evaluation.predictions import (
    Key,
    PredictionRow,
    PredictionWriter,
    read_predictions,
)
from ovis_model.evaluation.shards import Shard
from ovis_model.model_folder import digest_of
from ovis_model.reports import sha256_of_file, write_text

log = logging.getLogger(__name__)

KEY_LENGTH = 16


@cache
def code_digest() -> str:
    """Digest this package's code: answers of other code are not taken for those of this one."""
    root = Path(ovis_model.__file__).parent
    return digest_of(
        {path.relative_to(root).as_posix(): sha256_of_file(path) for path in root.rglob("*.py")}
    )


class WorkingRows:
    """Rows of one exam by one model."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        """Name the place; nothing is read or written yet.

        Args:
            folder: All processes share it.
            shard: This process, which writes a file of its own.
        """
        self.folder = folder
        self._own = folder / shard.file_name

    @classmethod
    def of(cls, working: Path, exam: Exam, backend: Backend, shard: Shard) -> Self:
        """Find the place of an exam's rows.

        Args:
            working: Of all exams and models.
            exam: The questions.
            backend: Who answers.
            shard: This process.
        """
        key = digest_of([backend.model, dict(backend.conditions), exam.generation, code_digest()])
        return cls(working / exam.name / key[:KEY_LENGTH], shard)

    def answers(self, asked: Sequence[Asked]) -> dict[Key, PredictionRow]:
        """Return the rows of these questions, of every process; answers before errors."""
        wanted = {one.key: one for one in asked}
        found: dict[Key, PredictionRow] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for row in read_predictions(path).rows:
                if row.key not in wanted or not _answers(row, wanted[row.key]):
                    continue
                if row.key not in found or found[row.key].status == "error":
                    found[row.key] = row
        return found

    def open(self, asked: Sequence[Asked]) -> PredictionWriter:
        """Open this process's file, without rows that have to be asked again.

        Args:
            asked: The questions of this process.
        """
        wanted = {one.key: one for one in asked}
        rows = read_predictions(self._own).rows
        kept = [
            row
            for row in rows
            if row.status != "error" and (row.key not in wanted or _answers(row, wanted[row.key]))
        ]
        if len(kept) < len(rows):
            log.info("%d rows in %s are asked again", len(rows) - len(kept), self._own)
            write_rows(self._own, kept)
        return PredictionWriter(self._own)


def write_rows(path: Path, rows: Iterable[PredictionRow]) -> None:
    """Write a whole file of rows at once."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))


def _answers(row: PredictionRow, asked: Asked) -> bool:
    """Tell whether a row is about this very question."""
    question = asked.question
    # All frames of a video file have its digest.
    seen = dict.fromkeys(medium.sha256 for medium in row.media)
    return (row.row_hash, row.prompt) == (question.row_hash, question.prompt) and (
        row.status == "error" or list(seen) == list(dict.fromkeys(question.media))
    )
