"""VLMEvalKit's tables: one row per question, pictures as base64 or as paths.

Source: VLMEvalKit @ e8e78f05, `ImageBaseDataset` and the classes of the benchmarks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.evaluation.benchmarks.cells import (
    LETTERS,
    need_list,
    need_number,
    read_list,
    without_na,
)
from ovis_model.evaluation.benchmarks.contents import Contents, split_answers
from ovis_model.evaluation.benchmarks.explain import naming
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader
from ovis_model.evaluation.benchmarks.media import FolderMedia, MediaStore, check_inside
from ovis_model.evaluation.benchmarks.table import Row, read_table
from ovis_model.evaluation.benchmarks.table_images import ImageCells, TableImages
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.grounding import MAX_FRACTION, read_four
from ovis_model.evaluation.scoring.multiple_choice import letter_options
from ovis_model.inference.grounding import Box

REQUIRED = ("index", "question", "answer")
IMAGE, IMAGE_PATH, VIDEO_PATH = "image", "image_path", "video_path"
_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
#: Columns that make fields of their own; all others are kept as they are.
_FIELDS = {*REQUIRED, IMAGE, IMAGE_PATH, VIDEO_PATH, "hint", "choices", "candidates"}
_FIELDS |= {"width", "height", *LETTERS, *_BOX}
NO_IMAGE, OTHER_SPLIT = "without an image", "of another split"
#: How RefCOCO's category spells the splits that its column `split` would name.
_SPLIT_ENDINGS = {"val": "val", "test": "test", "testa": "testA", "testb": "testB"}


@dataclass(frozen=True)
class _Draft:
    """A row whose pictures have no names yet: other rows may hold them."""

    line: int
    index: str
    cells: Mapping[str, str]


def read_vlmevalkit(path: Path, header: BenchmarkHeader, folder: Path) -> Contents:
    """Read a table.

    Args:
        path: The table.
        header: Says which rows are wanted, and what empty cells mean.
        folder: Of files that the table names.

    Raises:
        DataError: Naming file and line, if a row cannot be used.
    """
    table = _Table(path, header)
    for row in read_table(path):
        with naming(f"{path}, line {row.line}"):
            table.add(row)
    media: MediaStore = FolderMedia(folder)
    if IMAGE in table.columns:
        media = TableImages(path, table.columns.index(IMAGE), table.images.offsets)
    return Contents(tuple(table.items()), media, dict(table.dropped))


class _Table:
    """Rows on their way to items."""

    def __init__(self, path: Path, header: BenchmarkHeader) -> None:
        self.columns: Sequence[str] = ()
        self.images = ImageCells()
        self.dropped: Counter[str] = Counter()
        self._path = path
        self._header = header
        self._drafts: list[_Draft] = []
        self._lines: dict[str, int] = {}

    def add(self, row: Row) -> None:
        """Take a row in; what it shows is looked up when all rows are known."""
        if not self.columns:
            self.columns = tuple(row.cells)
            self._check_columns()
        cells = _clean(row.cells, self._header)
        index = _index_of(cells, self._header)
        if index in self._lines:
            raise ValueError(
                f"the index {index!r} is also that of line {self._lines[index]}; every row needs "
                "its own"
            )
        self._lines[index] = row.line
        self.images.add(index, row.cells.get(IMAGE, ""), row.offset)
        if self._header.split and cells.get("split", "") not in self._header.split:
            self.dropped[OTHER_SPLIT] += 1
        else:
            self._drafts.append(_Draft(row.line, index, cells))

    def items(self) -> list[BenchmarkItem]:
        """Make the items; rows without an image are left out where the header says so."""
        items = []
        for draft in self._drafts:
            with naming(f"{self._path}, line {draft.line}"):
                shown = self._shown(draft)
                if not shown and self._header.drop_without_image:
                    self.dropped[NO_IMAGE] += 1
                else:
                    items.append(_build(draft, shown, self._header))
        return items

    def _check_columns(self) -> None:
        needed = [column for column in REQUIRED if column not in self.columns]
        if self._header.metric == "grounding" and set(_BOX) <= set(self.columns):
            needed = [column for column in needed if column != "answer"]
        if needed:
            raise ValueError(
                f"there is no column {', '.join(map(repr, needed))} among "
                f"{', '.join(self.columns)}; is this a tab-separated table of VLMEvalKit?"
            )

    def _shown(self, draft: _Draft) -> dict[str, Any]:
        """Return the pictures or the video of a row as fields of an item.

        Raises:
            ValueError: If the table has a column for them and the row has none, unless such rows
                are left out.
        """
        video = draft.cells.get(VIDEO_PATH) or None
        if IMAGE in self.columns:
            names = self.images.names(draft.index)
            if video is not None:
                raise ValueError("a table has pictures in 'image' or files in 'video_path'")
        else:
            names = _paths(draft.cells.get(IMAGE_PATH, ""))
            for name in (*names, video or ""):
                check_inside(name)
        asked = sorted({IMAGE, IMAGE_PATH, VIDEO_PATH} & set(self.columns))
        is_shown = bool(names or video)
        if asked and not is_shown and not self._header.drop_without_image:
            raise ValueError(
                f"there is nothing in {' or '.join(asked)}; write drop_without_image: true to "
                "leave such rows out"
            )
        return {"image": names, "video": video} if is_shown else {}


def _paths(cell: str) -> tuple[str, ...]:
    """Read one path, or a list of them."""
    listed = read_list(cell)
    return tuple([cell] * bool(cell) if listed is None else listed)


def _clean(cells: Mapping[str, str], header: BenchmarkHeader) -> dict[str, str]:
    """Drop the pictures, and what stands for nothing; find RefCOCO's split."""
    kept = {column: cell for column, cell in cells.items() if column != IMAGE}
    if header.na_compat == "vlmevalkit":
        kept = without_na(kept)
    if header.metric == "grounding" and not kept.get("split") and kept.get("category"):
        kept["split"] = _split_of_category(kept["category"])
    return kept


def _split_of_category(category: str) -> str:
    """Return the split that RefCOCO's category names.

    Example:
        >>> _split_of_category("RefCOCO+ test A")
        'RefCOCO+_testA'
    """
    name, _, rest = category.strip().partition(" ")
    plain = "".join(letter for letter in rest.lower() if letter not in " _-")
    ending = _SPLIT_ENDINGS.get(plain, rest.strip().replace(" ", "_").replace("-", "_"))
    return f"{name}_{ending}" if ending else name


def _index_of(cells: Mapping[str, str], header: BenchmarkHeader) -> str:
    index = cells["index"].strip()
    if not index:
        raise ValueError("the index is empty")
    # RefCOCO's splits number their rows anew.
    is_split = header.metric == "grounding" and cells.get("split")
    return f"{cells['split']}_{index}" if is_split else index


def _build(draft: _Draft, shown: Mapping[str, Any], header: BenchmarkHeader) -> BenchmarkItem:
    cells = draft.cells
    fields: dict[str, Any] = {"id": draft.index, "question": cells["question"], **shown}
    fields["hint"] = cells.get("hint", "")
    fields["options"] = _options(cells)
    fields["columns"] = {
        column: cell for column, cell in cells.items() if cell and column not in _FIELDS
    }
    if header.metric == "grounding":
        return BenchmarkItem.model_validate({**fields, **_box(cells)})
    answers = read_list(cells["answer"]) if header.rule.takes_answers else None
    if answers is None:
        answers = [cells["answer"]]
    fields["answer"], fields["alternatives"] = split_answers(answers)
    return BenchmarkItem.model_validate(fields)


def _options(cells: Mapping[str, str]) -> dict[str, str]:
    listed = need_list(cells.get("choices", ""), "choices") or need_list(
        cells.get("candidates", ""), "candidates"
    )
    if listed:
        return letter_options(listed)
    return {letter: cells[letter] for letter in LETTERS if cells.get(letter)}


def _box(cells: Mapping[str, str]) -> dict[str, Any]:
    """Read the true box in pixels, and write it as an answer as Ovis2.5 would."""
    for column in ("width", "height"):
        if not cells.get(column):
            raise ValueError(f"the column {column!r} is missing or empty")
    width, height = need_number(cells, "width"), need_number(cells, "height")
    if not (width > 0 and height > 0):
        raise ValueError(f"an image of {width:g} x {height:g} pixels")
    if all(cells.get(column) for column in _BOX):
        numbers = [need_number(cells, column) for column in _BOX]
    else:
        found = read_four(cells.get("answer", ""))
        if found is None:
            raise ValueError("there is no true box, neither in bbox_x1 and so on nor in answer")
        is_fraction = max(map(abs, found)) <= MAX_FRACTION
        sides = (width, height, width, height) if is_fraction else (1, 1, 1, 1)
        numbers = [number * side for number, side in zip(found, sides, strict=True)]
    x1, y1, x2, y2 = numbers
    fractions = Box(x1 / width, y1 / height, x2 / width, y2 / height)
    return {"box": numbers, "size": (width, height), "answer": fractions.to_text()}
