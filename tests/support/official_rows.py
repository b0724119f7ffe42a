"""Rows with the scores that the official scorers gave, where the workplace has them."""

import json
from pathlib import Path

import pytest

#: Beside the repository: the rows are not part of it.
SCORING = Path(__file__).parents[3] / "shared" / "scoring"

needs_official_rows = pytest.mark.skipif(
    not SCORING.is_dir(), reason="shared/scoring is not beside the repository"
)


def official_rows(name):
    """The rows of a file as parameters, none where the file is not here."""
    return [pytest.param(row, id=row["id"]) for row in read_official(name).get("rows", ())]


def read_official(name):
    """All that a file says, nothing where it is not here."""
    path = SCORING / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
