"""Predictions as VLMEvalKit keeps them, in both directions.

    <name>_<dataset>.tsv    columns index, question, A, B, ..., answer, ..., prediction
    <name>_<dataset>.json   the same as a list of objects

What it calls a prediction is the output after official post-processing; that is what is marked
on both sides.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ovis_model.errors import DataError, list_examples
from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.benchmarks.table import read_table
from ovis_model.evaluation.exams import Way, build_exam
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.marking import Marker
from ovis_model.evaluation.predictions import (
    BenchmarkRecord,
    PredictionRow,
    Run,
    RunRecord,
)
from ovis_model.inference.generation import GenerationSettings
from ovis_model.reports import sha256_of_file, write_text

FileFormat = Literal["tsv", "json"]
INDEX, PREDICTION, IMAGE = "index", "prediction", "image"


def export_rows(
    rows: Sequence[PredictionRow], marker: Marker, folder: Path, *, name: str, form: FileFormat
) -> Path:
    """Write the answers to one benchmark; of several seeds, those of the first.

    Args:
        rows: Of the benchmark.
        marker: Of the same.
        folder: Where the file goes.
        name: What the model is called there.
        form: The file's format.

    Returns:
        The file.

    Raises:
        DataError: If a question has no answer.
    """
    benchmark = marker.benchmark
    first = min(row.seed for row in rows)
    answered = {row.index: row for row in rows if row.seed == first}
    failed = [index for index, row in answered.items() if row.status == "error"]
    if failed:
        raise DataError(
            f"{benchmark.name}: {list_examples(failed)} got no answer; evaluate again before you "
            "export"
        )
    records = [
        {**cells, PREDICTION: marker.prediction(answered[cells[INDEX]])}
        for cells in _questions(benchmark)
        if cells[INDEX] in answered
    ]
    path = folder / f"{name}_{benchmark.header.official_name}.{form}"
    write_text(path, _as_tsv(records) if form == "tsv" else _as_json(records))
    return path


def _questions(benchmark: Benchmark) -> list[dict[str, str]]:
    """Return the rows of the benchmark's own table without pictures, or make such rows."""
    if benchmark.header.items_format == "vlmevalkit":
        wanted = {item.id for item in benchmark.items}
        rows = ({**row.cells} for row in read_table(benchmark.path))
        return [_without_pictures(cells) for cells in rows if cells[INDEX] in wanted]
    return [_as_cells(item) for item in benchmark.items]


def _without_pictures(cells: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in cells.items() if name != IMAGE}


def _as_cells(item: BenchmarkItem) -> dict[str, str]:
    answer = item.answer if not item.alternatives else repr(list(item.answers))
    return {
        INDEX: item.id,
        "question": item.prompt,
        **({"hint": item.hint} if item.hint else {}),
        **item.options,
        "answer": answer,
        **item.columns,
    }


def _as_tsv(records: Sequence[Mapping[str, str]]) -> str:
    columns = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(
        text, columns, restval="", delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL
    )
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _as_json(records: Sequence[Mapping[str, str]]) -> str:
    numbered = [{**record, INDEX: _number(record[INDEX])} for record in records]
    return json.dumps(numbered, ensure_ascii=False, indent=4) + "\n"


def _number(index: str) -> int | str:
    """Return an index as VLMEvalKit's tables hold it: a number where it is one."""
    return int(index) if index.isdecimal() and str(int(index)) == index else index


def import_file(path: Path, benchmark: Benchmark, *, name: str) -> Run:
    """Read a file of predictions and mark them.

    Args:
        path: `.tsv` or `.json`.
        benchmark: What was asked.
        name: Who answered.

    Raises:
        DataError: If the file cannot be read, or does not answer every question once.
    """
    predictions = _read_predictions(path)
    items = {item.id for item in benchmark.items}
    wrong = sorted(items ^ predictions.keys())
    if wrong:
        raise DataError(
            f"{path} and {benchmark.name} do not have the same questions: {list_examples(wrong)} "
            "is in one of them only"
        )
    # Nothing is known of how the answers came about, so nothing of it is in the fingerprint.
    way = Way(GenerationSettings(max_new_tokens=1), protocol={"imported": True})
    exam = build_exam(benchmark, way)
    rows = [
        exam.mark(
            PredictionRow(
                model=name,
                benchmark=benchmark.name,
                index=one.index,
                row_hash=one.row_hash,
                cluster=one.cluster,
                groups=one.groups,
                prompt=one.prompt,
                enable_thinking=False,
                raw_output=predictions[one.index],
                response=predictions[one.index],
                truth=one.truth,
                score=0,
                value=0,
                status="scored",
                finish_reason="stop",
            )
        )
        for one in exam.questions
    ]
    record = RunRecord(
        model=name,
        protocol=way.protocol,
        conditions={"backend": "imported", "scorer": exam.scorer, "judge": "none"},
        provenance={"file_sha256": sha256_of_file(path)},
        benchmarks={
            benchmark.name: BenchmarkRecord(
                fingerprint=exam.fingerprint,
                metric=exam.metric,
                num_items=len(rows),
                parts=exam.parts,
            )
        },
    )
    return Run(record, {benchmark.name: tuple(rows)})


def _read_predictions(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, record in enumerate(_read_records(path), start=1):
        index, prediction = record.get(INDEX), record.get(PREDICTION)
        if index is None or prediction is None:
            raise DataError(
                f"{path}, record {place}: there is no {INDEX} and {PREDICTION} in it; is it a "
                "file of predictions?"
            )
        if str(index) in found:
            raise DataError(f"{path}, record {place}: the index {index!r} is there twice")
        found[str(index)] = str(prediction)
    return found


def _read_records(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".tsv":
        return [row.cells for row in read_table(path)]
    if path.suffix != ".json":
        raise DataError(f"{path} is neither .tsv nor .json, in which predictions are exchanged")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise DataError(f"{path} holds no list of objects, one per question")
    return records
