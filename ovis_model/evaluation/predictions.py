"""What a model answered, one line per question: every score and report is computed from these.

    <run>/run.json              who answered, which benchmarks, under which conditions
    <run>/<benchmark>.jsonl     a `PredictionRow` per (index, seed), in the order of answering

A line is written whole and synced, so that a killed run loses nothing that it had finished.  A
line torn by the kill is the last one: readers count it, and the next writer cuts it off.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.errors import DataError, list_examples
from ovis_model.reports import Report

RUN_FILE = "run.json"
#: Folders of an evaluation's runs, by who answered; the champion's is named as its alias.
BASE, TUNED = "base", "tuned"
#: Of a row: how fast it came and what it was answered with, which is no part of the answer.
PACE = {"latency_s", "ttft_s", "batch_rows"}

#: scored       the rule judged the answer
#: unresolved   the rule could not tell and there was no judge; counts 0, and bounds the score
#: invalid      there was nothing to judge, such as no answer or no box in it; counts 0
#: error        the question was not answered: the run is incomplete
Status = Literal["scored", "unresolved", "invalid", "error"]

#: Index of the question, as text, and seed of the sampling.
Key = tuple[str, int]


class _Record(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SeenMedium(_Record):
    """An image or a video as it went into the model.

    Attributes:
        sha256: Of the file's bytes.
        width: Of the original, in pixels.
        height: Of the original, in pixels.
        grid: Patches after resizing, as (t, h, w); None if the backend does not tell.
    """

    sha256: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    grid: tuple[int, int, int] | None = None


class Flags(_Record):
    """How thought and answer ended.

    Attributes:
        forced_close: The budget closed the thought.
        unclosed_thinking: A thought was opened and never closed.
        no_think_block: Thinking was asked for and there was no thought.
        answer_truncated: The answer was cut off at the token limit.
    """

    forced_close: bool = False
    unclosed_thinking: bool = False
    no_think_block: bool = False
    answer_truncated: bool = False


class TokenCounts(_Record):
    """Tokens of one question.

    Attributes:
        prompt: All positions of the prompt, visual ones included.
        visual: Visual positions of the prompt.
        thinking: Tokens held against the budget.
        answer: Tokens after the thought.
        generated: All new tokens, end token and forced sentence included.
    """

    prompt: int = Field(default=0, ge=0)
    visual: int = Field(default=0, ge=0)
    thinking: int = Field(default=0, ge=0)
    answer: int = Field(default=0, ge=0)
    generated: int = Field(default=0, ge=0)


class PredictionRow(_Record):
    """One answer of one model to one question.

    Attributes:
        model: Who answered, such as the digest of its folder.
        benchmark: Name of the benchmark.
        index: The question's index there.
        seed: Of the sampling; 0 where nothing was sampled.
        row_hash: sha256 of question, true answer and media.
        cluster: Rows of one cluster are not independent: they share a picture, a video, an
            MMBench group or a HallusionBench set.
        groups: Names of groups of rows by kind of group, where a benchmark scores groups: an
            MMBench question counts if its answer is right in every rotation.
        prompt: The text that was asked, without the chat template.
        media: What was shown, in order.
        enable_thinking: Whether the model was let think.
        thinking_budget: Tokens of thinking before it is closed by force; None is no limit.
        raw_output: All that was generated, as text.
        thinking: The thought.
        response: What followed the thought.
        extracted: What of the response was judged.
        truth: The true answer.
        score: What the answer is worth, 0 to 1; a benchmark averages it.
        value: What the metric measured, 0 to 1, such as the IoU that made the score 0 or 1.
        status: See the table of the module.
        error: What went wrong, for the status error.
        flags: How thought and answer ended.
        tokens: What it took.
        finish_reason: Why generation ended; None for the status error.
        latency_s: Seconds from asking to the whole answer.
        ttft_s: Seconds to the first new token; None if the backend does not tell.
        batch_rows: Questions that were answered together in `latency_s`.
        slices: Properties to score by, such as `{"category": "charts", "image_size": "1 Mpx"}`.
    """

    model: str
    benchmark: str
    index: str
    seed: int = 0
    row_hash: str
    cluster: str
    groups: Mapping[str, str] = Field(default_factory=dict)
    prompt: str
    media: tuple[SeenMedium, ...] = ()
    enable_thinking: bool
    thinking_budget: int | None = None
    raw_output: str = ""
    thinking: str = ""
    response: str = ""
    extracted: str = ""
    truth: str = ""
    score: float = Field(ge=0, le=1, allow_inf_nan=False)
    value: float = Field(ge=0, le=1, allow_inf_nan=False)
    status: Status
    error: str = ""
    flags: Flags = Flags()
    tokens: TokenCounts = TokenCounts()
    finish_reason: Literal["stop", "length", "stop_string"] | None = None
    latency_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    ttft_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    batch_rows: int = Field(default=1, gt=0)
    slices: Mapping[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the row is paired by within its benchmark."""
        return self.index, self.seed

    @property
    def right(self) -> bool:
        """Whether the answer is worth full marks."""
        return self.score == 1


class BenchmarkRecord(_Record):
    """What was asked in a run.

    Attributes:
        fingerprint: sha256 of all that decides what a score means: items, media, metric, prompt
            and generation settings.  Scores compare only if it is equal.
        metric: Name of the metric.
        num_items: Questions; each has a row per seed once the run is complete.
        seeds: Of the sampling.
        parts: What the score is the mean of; `aggregation` explains it.
    """

    fingerprint: str
    metric: str
    num_items: int = Field(gt=0)
    seeds: tuple[int, ...] = (0,)
    parts: tuple[str, ...] = ("rows",)


class RunRecord(Report):
    """run.json: who answered, and under which conditions.

    Attributes:
        model: Who answered.
        protocol: How answers were generated; part of every fingerprint.
        conditions: What must be equal to compare besides, such as backend, dtype, scorer profile
            and judge.
        provenance: What may differ, such as code version, hardware, and the adapter's digest.
        benchmarks: By name.
    """

    model: str
    protocol: Mapping[str, Any] = Field(default_factory=dict)
    conditions: Mapping[str, str] = Field(default_factory=dict)
    provenance: Mapping[str, str] = Field(default_factory=dict)
    benchmarks: Mapping[str, BenchmarkRecord]


@dataclass(frozen=True)
class Predictions:
    """The rows of one file.

    Attributes:
        rows: In the order of answering.
        num_torn: Lines that a kill cut short, none or one; their questions are open.
    """

    rows: tuple[PredictionRow, ...]
    num_torn: int = 0


@dataclass(frozen=True)
class Run:
    """A run as it is stored.

    Attributes:
        record: What run.json says.
        rows: By benchmark, every benchmark of the record; empty while nothing was answered.
        num_torn: Lines that a kill cut short.
    """

    record: RunRecord
    rows: Mapping[str, Sequence[PredictionRow]]
    num_torn: int = 0

    @property
    def digest(self) -> str:
        """The sha256 of who answered what under which conditions, however fast and where."""
        digest = hashlib.sha256(self.record.model_dump_json(exclude={"provenance"}).encode())
        for name in sorted(self.rows):
            for row in sorted(self.rows[name], key=lambda row: row.key):
                digest.update(row.model_dump_json(exclude=PACE).encode())
        return digest.hexdigest()


class PredictionWriter:
    """Append rows to a file; what `write` returned from survives a kill and a power cut.

    Example:
        with PredictionWriter(folder / "mmstar.jsonl") as writer:
            writer.write([row])
    """

    def __init__(self, path: Path) -> None:
        """Open the file, making it and its folder; a torn last line is cut off.

        Args:
            path: The JSONL file.  One process writes it at a time.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(_intact_length(path.read_bytes()))

    def write(self, rows: Iterable[PredictionRow]) -> None:
        """Append rows and wait until the disk has them."""
        self._file.write(b"".join(row.model_dump_json().encode() + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def read_predictions(path: Path) -> Predictions:
    """Read the rows of one file.

    A missing file is one in which nothing was answered yet.

    Raises:
        DataError: Naming the line that is no prediction, or the keys that are there twice.  The
            last line is exempt if it is torn.
    """
    content = path.read_bytes() if path.exists() else b""
    intact = _intact_length(content)
    rows = [
        _parse(line, path, number)
        for number, line in enumerate(content[:intact].split(b"\n"), start=1)
        if line
    ]
    _refuse_repeats(rows, path)
    return Predictions(tuple(rows), num_torn=int(intact < len(content)))


def read_run(folder: Path) -> Run:
    """Read run.json and the rows of every benchmark it lists.

    Raises:
        DataError: If run.json is missing or not one of ours, or a file holds what is no row.
    """
    path = folder / RUN_FILE
    try:
        record = RunRecord.read(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no {RUN_FILE}, so it is no run of an evaluation; give the folder "
            "that one wrote its predictions to"
        ) from error
    except ValidationError as error:
        raise DataError(f"{path} is no record of a run: {_explain(error)}") from error
    found = {name: read_predictions(folder / f"{name}.jsonl") for name in record.benchmarks}
    return Run(
        record,
        {name: predictions.rows for name, predictions in found.items()},
        sum(predictions.num_torn for predictions in found.values()),
    )


def _intact_length(content: bytes) -> int:
    """Count the bytes up to the end of the last line that was written whole.

    A power cut may leave a last line of the right length with nothing in it; one that is no JSON
    is torn too.
    """
    end = content.rfind(b"\n") + 1
    if end < len(content) or not end:
        return end
    start = content.rfind(b"\n", 0, end - 1) + 1
    try:
        json.loads(content[start:end])
    except ValueError:
        return start
    return end


def _parse(line: bytes, path: Path, number: int) -> PredictionRow:
    try:
        return PredictionRow.model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"{path}, line {number} is no prediction: {_explain(error)}") from error


def _refuse_repeats(rows: Sequence[PredictionRow], path: Path) -> None:
    seen: set[Key] = set()
    twice = []
    for row in rows:
        if row.key in seen:
            twice.append(f"{row.index} with seed {row.seed}")
        seen.add(row.key)
    if twice:
        raise DataError(
            f"{path}: answered more than once: {list_examples(twice)}. Two runs wrote into one "
            "file; remove it and evaluate again"
        )


def _explain(error: ValidationError) -> str:
    return list_examples(
        [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    )
