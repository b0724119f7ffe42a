from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ovis_model.data.checks.lengths import LengthMeter, LengthRules, Shapes
from ovis_model.data.schema import Fit, Sample, parse_sample
from ovis_model.data.truncation import truncate
from ovis_model.errors import CheckpointError
from ovis_model.tokens import IGNORE_ID, VISUAL_ATOM_ID
from tests.support.raw_data import sample
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> LengthRules:
    return LengthRules(
        base_model=build_tiny_checkpoint(tmp_path_factory.mktemp("lengths") / "model"),
        pixel_limits=TINY_PIXELS,
        frame_sampling=TINY_FRAMES,
        multimodal_max_length=1000,
        text_max_length=1000,
    )


def meter(rules: LengthRules, **changes: Any) -> LengthMeter:
    return LengthMeter(replace(rules, **changes))


ASKED = parse_sample(sample("s", "<image>\nWhich digit is this?", "It is 7.", image="a.png"))
SQUARE = Shapes(images=((64, 64),))  # 4 tokens and 2 indicators
CLIP = parse_sample(sample("v", "<video>\nWhat happens?", "It moves.", video=["a.png"] * 3))
FRAMES = Shapes(frames=((64, 64),) * 3)


def encoded_length(rules: LengthRules, one: Sample, **media: Any) -> int:
    return len(LengthMeter(rules).processor.encode_sample(one, **media).input_ids)


def test_the_length_is_that_of_the_encoded_sample(rules: LengthRules) -> None:
    found = meter(rules).measure(ASKED, SQUARE)
    picture = Image.new("RGB", (64, 64))
    assert found is not None
    assert found.num_tokens == encoded_length(rules, ASKED, images=[picture])
    assert 0 < found.num_supervised < found.num_tokens
    assert (found.fit, found.over, found.is_dropped) == (None, None, False)


def test_text_and_media_that_do_not_agree_have_no_length(rules: LengthRules) -> None:
    assert meter(rules).measure(ASKED, Shapes()) is None


def test_a_sample_at_the_limit_fits_and_one_token_more_is_too_long(rules: LengthRules) -> None:
    length = meter(rules).measure(ASKED, SQUARE).num_tokens
    assert meter(rules, multimodal_max_length=length).measure(ASKED, SQUARE).over is None
    found = meter(rules, multimodal_max_length=length - 1).measure(ASKED, SQUARE)
    assert found.over == (
        f"{length} tokens, 6 of them visual; train.multimodal_max_length is {length - 1}"
    )


def test_text_alone_has_a_limit_of_its_own(rules: LengthRules) -> None:
    talk = parse_sample(sample("t", "Hello there, how are you?", "Fine."))
    found = meter(rules, text_max_length=5).measure(talk, Shapes())
    assert found.over is not None
    assert found.over.endswith("0 of them visual; train.text_max_length is 5")
    assert meter(rules, multimodal_max_length=5).measure(talk, Shapes()).over is None


def test_dropping_says_so_and_is_no_fault(rules: LengthRules) -> None:
    found = meter(rules, multimodal_max_length=5, policy="drop").measure(ASKED, SQUARE)
    assert (found.is_dropped, found.over) == (True, None)


def test_fewer_pixels_are_as_many_as_fit(rules: LengthRules) -> None:
    # 64 x 64 px take 4 tokens, 32 x 64 px two, 32 x 32 px one.
    length = meter(rules).measure(ASKED, SQUARE).num_tokens
    found = meter(rules, multimodal_max_length=length - 1, policy="shrink_pixels").measure(
        ASKED, SQUARE
    )
    assert found.fit == Fit(max_pixels=found.fit.max_pixels)
    picture = Image.new("RGB", (64, 64))
    real = encoded_length(rules, ASKED, images=[picture], max_pixels=found.fit.max_pixels)
    assert real == found.num_tokens <= length - 1
    more = encoded_length(
        rules, ASKED, images=[picture], max_pixels=found.fit.max_pixels + 32 * 32
    )
    assert more > length - 1 or found.fit.max_pixels + 32 * 32 > 64 * 64


def test_no_picture_gets_smaller_than_the_models_minimum(rules: LengthRules) -> None:
    found = meter(rules, multimodal_max_length=20, policy="shrink_pixels").measure(ASKED, SQUARE)
    assert found.fit is None
    assert found.over.endswith(", and shrink_pixels does not make it fit")


def test_fewer_frames_are_as_many_as_fit(rules: LengthRules) -> None:
    length = meter(rules).measure(CLIP, FRAMES).num_tokens
    found = meter(rules, multimodal_max_length=length - 1, policy="fewer_frames").measure(
        CLIP, FRAMES
    )
    assert found.fit == Fit(max_frames=2)
    assert found.num_tokens == length - 4


def test_fewer_frames_do_not_help_a_picture(rules: LengthRules) -> None:
    found = meter(rules, multimodal_max_length=20, policy="fewer_frames").measure(ASKED, SQUARE)
    assert (found.fit, found.over is None) == (None, False)


def test_cut_text_keeps_every_picture_and_something_to_learn(rules: LengthRules) -> None:
    length = meter(rules).measure(ASKED, SQUARE).num_tokens
    found = meter(rules, multimodal_max_length=length - 2, policy="truncate_text").measure(
        ASKED, SQUARE
    )
    assert found.fit == Fit(max_tokens=length - 2)
    whole = LengthMeter(rules).processor.encode_sample(ASKED, images=[Image.new("RGB", (64, 64))])
    cut = truncate(whole, length - 2)
    assert len(cut.input_ids) == found.num_tokens == length - 2
    assert (cut.labels != IGNORE_ID).sum() == found.num_supervised
    assert torch.equal(
        (cut.input_ids == VISUAL_ATOM_ID).sum(), (whole.input_ids == VISUAL_ATOM_ID).sum()
    )


@pytest.mark.parametrize("limit", [4, 12])
def test_text_is_not_cut_where_a_picture_or_every_answer_would_go(
    rules: LengthRules, limit: int
) -> None:
    found = meter(rules, multimodal_max_length=limit, policy="truncate_text").measure(
        ASKED, SQUARE
    )
    assert found.fit is None
    assert found.over is not None


def test_a_thought_over_the_budget_says_by_how_much(rules: LengthRules) -> None:
    long = parse_sample(sample("t", "Hi", f"<think>\n{'qz ' * 40}\n</think>\n\n7"))
    found = meter(rules, thinking_budget=10).measure(long, Shapes())
    assert found.long_thought.endswith("tokens, the budget is 10")
    assert meter(rules, thinking_budget=500).measure(long, Shapes()).long_thought is None
    assert meter(rules).measure(long, Shapes()).long_thought is None


def test_a_missing_base_model_is_named(rules: LengthRules, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        meter(rules, base_model=tmp_path / "nowhere").measure(ASKED, SQUARE)
