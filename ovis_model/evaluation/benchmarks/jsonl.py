r"""Items as this project writes them, one JSON object per line.

    {"id": "d-17", "image": ["images/17.png"], "question": "<image>\nWhich digit?", "answer": "7"}

`index`, `images`, the letters of options and the names of VLMEvalKit's columns are understood too;
`answer` and `options` may be lists, and `box_xywh` is a box as COCO writes it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ovis_model.evaluation.benchmarks.cells import LETTERS
from ovis_model.evaluation.benchmarks.contents import Contents, split_answers
from ovis_model.evaluation.benchmarks.explain import naming
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader
from ovis_model.evaluation.benchmarks.media import FolderMedia, check_inside
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.prompts import check_placeholders
from ovis_model.evaluation.scoring.multiple_choice import letter_options

#: Columns of VLMEvalKit's tables that are no fields of an item.
COLUMNS = frozenset(
    {"category", "l2-category", "split", "question_type", "answer_type", "answer_option", "task"}
    | {"skills", "duration", "domain", "sub_category", "task_type", "source", "language"}
)
_OTHER_NAMES = {"index": "id", "images": "image"}


def read_jsonl(path: Path, header: BenchmarkHeader, folder: Path) -> Contents:
    """Read the items of a file.

    Args:
        path: JSON lines; blank ones do not count.
        header: Says how the question is put, and which columns to keep.
        folder: Of the files that items name.

    Raises:
        DataError: Naming file and line, if an item cannot be used.
    """
    return Contents(tuple(_read_items(path, header)), FolderMedia(folder))


def _read_items(path: Path, header: BenchmarkHeader) -> Iterator[BenchmarkItem]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        with naming(f"{path}, line {number}"):
            item = BenchmarkItem.model_validate(_rename(_decode(line), header))
            for name in item.media:
                check_inside(name)
            if header.prompt == "verbatim":
                check_placeholders(item)
        if not header.split or item.columns.get("split") in header.split:
            yield item


def _decode(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply to be read") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - of somebody's file, not of a caller
            f"an item is a JSON object, this is a {type(value).__name__}"
        )
    return value


def _rename(value: dict[str, Any], header: BenchmarkHeader) -> dict[str, Any]:
    """Turn the names and shapes that others use into fields."""
    fields = {_OTHER_NAMES.get(key, key): entry for key, entry in value.items()}
    if isinstance(fields.get("id"), int):
        fields["id"] = str(fields["id"])
    if isinstance(fields.get("answer"), list):
        fields["answer"], fields["alternatives"] = split_answers(list(map(str, fields["answer"])))
    if isinstance(fields.get("options"), list):
        fields["options"] = letter_options([str(text) for text in fields["options"]])
    if "box_xywh" in fields:
        fields["box"] = _corners(fields.pop("box_xywh"))
    letters = {letter: fields.pop(letter) for letter in LETTERS if letter in fields}
    if letters:
        fields["options"] = {**fields.get("options", {}), **letters}
    kept = COLUMNS | set(header.slices)
    columns = {key: str(fields.pop(key)) for key in list(fields) if key in kept}
    if columns:
        fields["columns"] = {**fields.get("columns", {}), **columns}
    return fields


def _corners(box: Any) -> list[float]:
    """Turn a box as COCO writes it into corners."""
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"box_xywh: four numbers x, y, width, height, not {box!r}") from error
    return [x, y, x + width, y + height]


def read_text(path: Path) -> str:
    """Read a file of text.

    Raises:
        DataError: If it cannot be read.
    """
    with naming(f"{path} cannot be read"):
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(error.strerror) from error
