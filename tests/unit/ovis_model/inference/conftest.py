"""One tiny model for all tests of the folder; none of them changes it."""

import pytest
from PIL import Image

from ovis_model.inference.ovis25_inference import Ovis25Inference
from tests.support.tiny_model import build_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def ovis(checkpoint):
    return Ovis25Inference(checkpoint, device="cpu")


@pytest.fixture
def image():
    return Image.new("RGB", (40, 50), "navy")


@pytest.fixture
def count_forwards(ovis):
    """Count the media that the vision tower reads, and the runs of the language model."""

    class Counts:
        vision = language = 0

    def vision(_, arguments, __):
        _pixel_values, grid_thws = arguments
        Counts.vision += len(grid_thws)

    def language(*_):
        Counts.language += 1

    hooks = [
        ovis.model.visual_tokenizer.vit.register_forward_hook(vision),
        ovis.model.llm.register_forward_hook(language),
    ]
    yield Counts
    for hook in hooks:
        hook.remove()
