"""No file of the reference's numbers is forgotten."""

import re
from fnmatch import fnmatch
from pathlib import Path

from .conftest import GOLDEN, needs_golden

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"


@needs_golden
def test_every_file_of_numbers_is_in_the_table_of_what_compares_it():
    rows = re.findall(r"^\| (`[^|]+) \| `test_\w+\.py`", PAGE.read_text("utf-8"), re.MULTILINE)
    patterns = [pattern for row in rows for pattern in re.findall(r"`([^`]+)`", row)]
    files = {
        path.relative_to(GOLDEN).as_posix()
        for path in GOLDEN.rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert len(files) > 90
    assert {f for f in files if not any(fnmatch(f, pattern) for pattern in patterns)} == set()
    assert {p for p in patterns if not any(fnmatch(f, p) for f in files)} == set()
