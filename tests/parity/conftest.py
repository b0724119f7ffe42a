"""Where the reference's numbers are: all of them beside the checkout, or none (skipped)."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden"
#: The released tokenizer; the tiny checkpoint has a trimmed one of its own.
OFFICIAL = SHARED / "ovis25-hf"

needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="needs ../shared/golden, the numbers of the reference"
)


def read(name: str) -> dict:
    """Read a file of numbers; an empty one where the numbers are absent."""
    path = GOLDEN / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def manifest(folder: str) -> dict:
    return read(f"{folder}/manifest.json") or {"cases": []}


def cases(folder: str) -> list:
    return [pytest.param(case, id=case["name"]) for case in manifest(folder)["cases"]]


def tensors(folder: str, case: dict) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / folder / case["file"])


def assert_close(ours, theirs, *, of_max=1e-5, atol=0.0):
    """Compare as the fixtures suggest: against the largest value of the reference."""
    limit = atol + of_max * theirs.abs().max().item()
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= limit


def assert_logits(ours, theirs):
    """Both limits hold: for small logits the one is the sharper, for large ones the other."""
    assert_close(ours, theirs, of_max=0, atol=1e-4)
    assert_close(ours, theirs, of_max=2e-5)


def inputs_of(stored):
    """Take the model's arguments out of a case's tensors."""
    names = ("input_ids", "attention_mask", "pixel_values", "grid_thws")
    return {name: stored.get(name) for name in names}


def norm_of(gradients):
    """Return the length of all gradients as one vector."""
    return math.sqrt(sum(gradient.double().pow(2).sum().item() for gradient in gradients))


@pytest.fixture(scope="session")
def model():
    return load_model(GOLDEN / "ckpt-tiny", dtype=torch.float32)


@pytest.fixture
def windows(model):
    """Set which blocks attend fully, and undo it afterwards."""
    config = model.visual_tokenizer.vit.config

    def choose(indexes):
        config.fullatt_block_indexes = indexes

    yield choose
    config.fullatt_block_indexes = None


@pytest.fixture(scope="session")
def processor():
    """The processor of the released checkpoint; its tokenizer takes a second to load."""
    return Ovis2_5Processor.from_pretrained(OFFICIAL)


@pytest.fixture(scope="session")
def tokenizer(processor):
    return processor.tokenizer
