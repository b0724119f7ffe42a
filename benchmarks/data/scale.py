"""Whole validations of ever more annotations: time of each part, and memory, by size.

A size is measured in a process of its own, started anew, so that its peak is its own.  The step
is the pipeline's: pictures are decoded by two processes, tokens are counted with the processor
of a base model, questions and pictures are compared with a benchmark's, the outputs and the pages
are written.  All rows share a thousand pictures: what grows is the annotations.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.data.annotations import (
    PICTURE_SIZE,
    annotation_lines,
    save_jpeg,
    sentences,
)
from benchmarks.data.cache import cached
from benchmarks.measure import PROCESS, cpu_seconds
from benchmarks.model.preprocessing import generated_image
from benchmarks.model.tokenization import build_tokenizer
from benchmarks.workload import digest
from ovis_model.config import FrameSampling, PixelLimits, ValidateConfig
from ovis_model.data.checks.lengths import LengthRules
from ovis_model.data.validation import Context, Results, validate
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import sha256_of_file

ROWS, ROWS_SMALL = (10_000, 100_000, 1_000_000), (200, 1_000)
#: The parts of the table, and the functions that `validate` calls for them; the rest is "other".
PARTS = {
    "read": "survey",
    "inspect": "inspect_all",
    "measure": "add_sample_facts",
    "expectations": "check",
    "write": "_write_outputs",
}
WORKERS = 2
_NUM_EXAM_QUESTIONS, _NUM_EXAM_PICTURES = 200, 20
T = TypeVar("T")


@dataclass(frozen=True)
class ScaleRow:
    """One validation.

    Attributes:
        rows: Annotations.
        sha256: Digest of the annotations.
        cpu_seconds: Processor time of the process and of those that decoded for it.
        wall_seconds: Of the whole.
        part_seconds: Of the parts, by the clock on the wall; the sum is `wall_seconds`.
        peak_bytes: The process's resident set at its highest, imported libraries included; None
            where the system cannot tell.
        decoder_bytes: The same of the processes that decoded, together.
    """

    rows: int
    sha256: str
    cpu_seconds: float
    wall_seconds: float
    part_seconds: dict[str, float]
    peak_bytes: int | None
    decoder_bytes: int

    @property
    def memory_bytes(self) -> int | None:
        """What the step took together, at most."""
        return None if self.peak_bytes is None else self.peak_bytes + self.decoder_bytes


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call in a process that is started for it and shares nothing with this one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def measure_validation(rows: int, seed: int = 0) -> ScaleRow:
    """Validate so many annotations in this process, and measure.

    Raises:
        RuntimeError: If not every annotation came through.
    """
    annotations = annotation_lines(seed, rows)
    config = ValidateConfig(
        raw_data=str(annotations.parent), annotations=annotations.name, workers=WORKERS
    )
    with tempfile.TemporaryDirectory(prefix="ovis-bench-") as work:
        folder = Path(work)
        context = _context(memory=folder / "media_memory.jsonl")
        with _Stopwatch() as watch:
            wall, cpu = time.perf_counter(), cpu_seconds()
            report = validate(
                config,
                raw_data=annotations.parent,
                results=_results(folder),
                context=context,
            )
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    if report.num_ok != rows:
        raise RuntimeError(f"{rows:,} annotations, all good, but {report.identity}")
    parts = dict(watch.seconds)
    parts["other"] = wall - sum(parts.values())
    return ScaleRow(
        rows=rows,
        sha256=digest(sha256_of_file(annotations)),
        cpu_seconds=cpu,
        wall_seconds=wall,
        part_seconds=parts,
        peak_bytes=_high_water(PROCESS),
        decoder_bytes=watch.decoder_bytes,
    )


class _Stopwatch:
    """Times the functions that `validate` calls, by standing in front of them.

    They are found in the module that defines it, whatever that is called.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.decoder_bytes = 0
        self._module = sys.modules[validate.__module__]
        self._originals = {name: getattr(self._module, name) for name in PARTS.values()}

    def __enter__(self) -> "_Stopwatch":
        for part, name in PARTS.items():
            setattr(self._module, name, partial(self._timed, part, self._originals[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self._originals.items():
            setattr(self._module, name, original)

    def _timed(self, part: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            self.seconds[part] += time.perf_counter() - begun
            if part == "inspect":  # its processes are still there
                found = sum(_high_water(Path(f"/proc/{pid}")) or 0 for pid in _children())
                self.decoder_bytes = max(self.decoder_bytes, found)


def _children() -> list[str]:
    """List the processes that this one's threads have started."""
    lists = PROCESS.glob("task/*/children")
    return [pid for path in lists for pid in path.read_text(encoding="ascii").split()]


def _high_water(process: Path) -> int | None:
    """Return the highest resident set of a process so far, in bytes."""
    status = process / "status"
    if not status.exists():
        return None
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _results(folder: Path) -> Results:
    return Results(
        output=folder / "validated",
        report=folder / "validate.json",
        ledger=folder / "ledger.jsonl",
        data_docs=folder / "data_docs",
        card=folder / "data_card.html",
    )


def _context(memory: Path) -> Context:
    sampling = FrameSampling()
    rules = LengthRules(
        base_model=cached("tokenizer", _write_base_model),
        pixel_limits=PixelLimits(),
        frame_sampling=sampling,
        multimodal_max_length=8192,
        text_max_length=4096,
        thinking_budget=2048,
    )
    exam = cached("exam", _write_exam)
    return Context(sampling=sampling, lengths=rules, exam=exam, memory=memory)


def _write_base_model(folder: Path) -> None:
    """Write what counting tokens needs of a checkpoint."""
    Ovis2_5Processor(
        Ovis2_5ImageProcessor(),
        build_tokenizer(),
        chat_template="",  # renders prompts, and there are none here
    ).save_pretrained(folder)


def _write_exam(folder: Path) -> None:
    """Write a benchmark that has nothing in common with the annotations."""
    folder.mkdir()
    for number in range(_NUM_EXAM_PICTURES):
        save_jpeg(generated_image(10**6 + number, *PICTURE_SIZE), folder / f"{number}.jpg")
    questions = sentences(np.random.default_rng(10**6), _NUM_EXAM_QUESTIONS, 20)
    lines = [
        json.dumps({"question": question, "image": f"{number % _NUM_EXAM_PICTURES}.jpg"})
        for number, question in enumerate(questions)
    ]
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
