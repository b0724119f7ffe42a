"""Where the reference's numbers are: all of them beside the checkout, or none (skipped)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden"

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs ../shared/golden, the numbers of the reference"
)


def manifest(folder: str) -> dict:
    """Read a folder's manifest; an empty one where the numbers are absent."""
    path = GOLDEN / folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"cases": []}


def cases(folder: str) -> list:
    return [pytest.param(case, id=case["name"]) for case in manifest(folder)["cases"]]


def tensors(folder: str, case: dict) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / folder / case["file"])


def assert_close(ours, theirs, *, of_max=1e-5, atol=0.0):
    """Compare as the fixtures suggest: against the largest value of the reference."""
    limit = atol + of_max * theirs.abs().max().item()
    assert (ours - theirs).abs().max().item() <= limit
