"""Cells of a table that hold more than text: lists, numbers, letters of options, nothing."""

import ast
import string
import warnings
from collections.abc import Mapping

#: What pandas takes for a missing value when it reads a table, as VLMEvalKit does.
NA_TEXTS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
    | {"<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
LETTERS = string.ascii_uppercase


def read_list(cell: str) -> list[str] | None:
    """Read a cell that holds a list as Python writes it; None if it holds anything else.

    Nothing is executed: VLMEvalKit evaluates such cells, here only literals are read.

    Example:
        >>> read_list("['Asia', 2007]"), read_list("[unclear]"), read_list("__import__('os')")
        (['Asia', '2007'], None, None)
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        with warnings.catch_warnings():
            # A backslash in somebody's text: the category depends on Python's version.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return [str(entry) for entry in value] if isinstance(value, list) else None


def need_list(cell: str, column: str) -> list[str]:
    """Read a cell that has to hold a list; an empty cell is an empty list.

    Raises:
        ValueError: If it holds something else.
    """
    if not cell:
        return []
    found = read_list(cell)
    if found is None:
        shown = cell if len(cell) <= 60 else cell[:57] + "..."
        raise ValueError(f"the column {column!r} should hold a list of values, not {shown}")
    return found


def need_number(cells: Mapping[str, str], column: str) -> float:
    """Read a number.

    Raises:
        ValueError: If the cell holds none.
    """
    try:
        return float(cells[column])
    except ValueError as error:
        raise ValueError(
            f"the column {column!r} should hold a number, not {cells[column]!r}"
        ) from error


def without_na(cells: Mapping[str, str]) -> dict[str, str]:
    """Empty the cells that VLMEvalKit takes for missing; a missing answer becomes the word nan."""
    emptied = {column: "" if cell in NA_TEXTS else cell for column, cell in cells.items()}
    return {**emptied, "answer": emptied.get("answer") or "nan"}
