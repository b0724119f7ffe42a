"""A small excerpt of the reference's numbers travels with the repository: anyone can check.

The weights are random; nothing of a released model is in them.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.processing.image_processing_ovis2_5 import smart_resize

EXCERPT = Path(__file__).parent / "excerpt"
NUMBERS = json.loads((EXCERPT / "numbers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    return Ovis2_5ForConditionalGeneration.from_pretrained(
        str(EXCERPT), dtype=torch.float32, local_files_only=True
    ).eval()


@pytest.fixture(scope="module")
def stored():
    return load_file(EXCERPT / "tied.safetensors")


def test_logits_loss_and_gradient_equal_the_reference(model, stored):
    outputs = model(
        stored["input_ids"], None, stored["pixel_values"], stored["grid_thws"], stored["labels"]
    )
    outputs.loss.backward()
    limit = 1e-4 + 2e-5 * stored["logits"].abs().max()
    assert (outputs.logits - stored["logits"]).abs().max() <= limit
    assert outputs.loss.item() == pytest.approx(NUMBERS["loss"], rel=5e-6)
    gradient = model.get_input_embeddings().weight.grad.double().norm().item()
    assert gradient == pytest.approx(NUMBERS["grad_l2_embed_tokens"], rel=1e-4)


def test_greedy_ids_equal_the_reference(model, stored):
    new_ids = model.generate(
        stored["input_ids"],
        torch.ones_like(stored["input_ids"]),
        stored["pixel_values"],
        stored["grid_thws"],
        max_new_tokens=8,
        eos_token_id=-1,
        pad_token_id=0,
    )
    assert new_ids[0].tolist() == NUMBERS["greedy_output_ids_8"]


def test_sizes_equal_the_reference():
    for height, width, factor, low, high, rows, columns, tag in NUMBERS["smart_resize"]:
        size = smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)
        assert size == (rows, columns), tag


def test_frames_equal_the_reference():
    for num_frames, low, high, expected in NUMBERS["frame_sampling"]:
        assert sample_frame_indices(num_frames, min_frames=low, max_frames=high) == expected
