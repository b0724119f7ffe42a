"""A real browser looks at the page that a training writes: what was learned, and what moved."""

import re

import pytest

from ovis_model.train_config import TrainConfig
from ovis_model.training.training import train
from tests.support.browser import HOSTILE, LEARNED, Browser, needs_browser
from tests.support.training_world import build_training_world, mixed_samples

pytestmark = needs_browser


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xray")
    samples = mixed_samples()
    samples[-1] |= {"id": HOSTILE, "source": HOSTILE}
    samples[-1]["conversations"][-1]["value"] = HOSTILE
    world = build_training_world(folder, samples=samples)
    values = {"max_steps": 1, "train_modules": "vte|visual_tokenizer.head:1e-3"}
    config = TrainConfig.parse(world.config(**values), where="test")
    page = folder / "train_xray.html"
    train(config, **world.paths(), xray=page)
    return Browser(folder).look_at(page)


def test_the_page_shows_learned_tokens_and_trained_modules(seen):
    assert seen.title == "X-ray of a training"
    assert seen.count_pixels(LEARNED["light"]) > 500
    text = re.sub(r"\s+", " ", seen.text)
    assert "vte 0.005 0 2,048 1 of 1 tensors moved" in text
    assert "visual_tokenizer.head 0.001 0 7,800 3 of 3 tensors moved" in text
    assert "llm \u2013 \u2013 43,232 frozen 0" in text


def test_hostile_text_is_shown_and_does_nothing(seen):
    assert seen.text.count(HOSTILE) == 2  # as an id and as an answer; as a source it is cut
    assert "<script" not in seen.dom
    assert seen.asked_for == set()
