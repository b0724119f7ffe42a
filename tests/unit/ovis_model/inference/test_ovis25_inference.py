"""The seed's six methods, on a tiny model with random weights."""

import inspect

import pytest
import torch
from PIL import Image

from ovis_model.errors import CheckpointError, DataError
from ovis_model.inference.messages import grounding_prompt
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.inference.results import GroundingResult

THINKING = {"enable_thinking": True, "thinking_budget": 5, "max_new_tokens": 40}


def test_the_seeds_names_and_defaults_are_kept():
    thinking = {
        "enable_thinking": False,
        "enable_thinking_budget": False,
        "thinking_budget": 2048,
    }
    lengths = {"max_new_tokens": 1024, "temperature": 0.6}
    single = {"min_pixels": 448**2, "max_pixels": 1792**2}
    expected = {
        "__init__": {
            "model_path": "AIDC-AI/Ovis2.5-9B",
            "device": "cuda",
            "torch_dtype": torch.bfloat16,
        },
        "single_image_inference": {**thinking, **lengths, "do_sample": True, **single},
        "single_image_inference_streaming": {**thinking, **lengths, **single},
        "multi_image_inference": {**lengths, "do_sample": True, "max_pixels": 896**2},
        "video_inference": {
            "num_frames": 8,
            **lengths,
            "do_sample": True,
            "max_pixels": 896**2,
        },
        "text_only_inference": {**lengths, "do_sample": True, **thinking},
        "grounding_inference": {"request_type": "box"},
    }
    for name, arguments in expected.items():
        found = inspect.signature(getattr(Ovis25Inference, name)).parameters
        assert {key: found[key].default for key in arguments} == arguments, name
        required = [key for key in found if key in arguments]
        assert required == list(arguments), f"{name}: the order changed"


def test_the_result_is_text_and_knows_its_parts(ovis, image):
    result = ovis.single_image_inference(image, "Which digit?", do_sample=False, **THINKING)
    assert isinstance(result, str)
    assert result == result.text
    assert result.thinking_closed in {"forced", "natural", "none"}
    assert result.usage.thinking_tokens <= 5
    assert result.usage.generated_tokens <= 40
    assert result.usage.visual_tokens == 2 + 2


def test_passing_a_budget_enables_it(ovis):
    asked = {"max_new_tokens": 40, "do_sample": False, "enable_thinking": True}
    bounded = ovis.text_only_inference("Why?", thinking_budget=3, **asked)
    assert (bounded.thinking_closed, bounded.usage.thinking_tokens) == ("forced", 3)
    assert bounded.truncated_thinking
    unbounded = ovis.text_only_inference("Why?", **asked)
    assert unbounded.thinking_closed != "forced"


@pytest.mark.parametrize("budget", [40, 39])
def test_a_budget_that_leaves_no_room_is_refused_with_the_numbers(ovis, budget):
    with pytest.raises(ValueError, match=rf"thinking_budget \({budget} tokens\).*40 tokens"):
        ovis.text_only_inference(
            "Why?", enable_thinking=True, thinking_budget=budget, max_new_tokens=40
        )


def test_without_thinking_the_budget_is_without_effect(ovis):
    result = ovis.text_only_inference("Why?", thinking_budget=40, max_new_tokens=4)
    assert result.usage.generated_tokens <= 4


def test_streamed_pieces_add_up_to_the_unstreamed_answer(ovis, image):
    whole = ovis.single_image_inference(image, "Which digit?", do_sample=False, **THINKING)
    pieces = list(
        ovis.single_image_inference_streaming(image, "Which digit?", temperature=0, **THINKING)
    )
    assert len(pieces) > 1
    assert "".join(pieces) == whole


def test_streaming_refuses_wrong_arguments_before_the_first_piece(ovis, image):
    with pytest.raises(ValueError, match="leaves no room"):
        ovis.single_image_inference_streaming(
            image, "?", enable_thinking=True, thinking_budget=9, max_new_tokens=9
        )
    with pytest.raises(DataError, match=r"gone\.png"):
        ovis.single_image_inference_streaming("gone.png", "?")


def test_several_images_and_frames_are_read_from_files_and_objects(ovis, image, tmp_path):
    image.save(tmp_path / "a.png")
    several = ovis.multi_image_inference([tmp_path / "a.png", image], "?", max_new_tokens=2)
    assert several.usage.visual_tokens == 2 * (2 + 2)
    video = ovis.video_inference([image, str(tmp_path / "a.png")], "?", max_new_tokens=2)
    assert video.usage.visual_tokens == 2 * 2 + 2


def test_the_checkpoints_pixel_limits_hold_until_others_are_given(ovis):
    large = Image.new("RGB", (640, 640))
    own = ovis.single_image_inference(large, "?", max_new_tokens=1)
    given = ovis.single_image_inference(large, "?", max_new_tokens=1, max_pixels=128 * 128)
    assert (own.usage.visual_tokens, given.usage.visual_tokens) == (4 + 2, 16 + 2)


def test_nothing_to_look_at_is_an_error(ovis):
    with pytest.raises(ValueError, match="at least one image"):
        ovis.multi_image_inference([], "?")
    with pytest.raises(DataError, match="no frames"):
        ovis.video_inference([], "?")


def test_sampling_is_repeated_by_a_seed(ovis):
    answers = []
    for _ in range(2):
        torch.manual_seed(3)
        answers.append(ovis.text_only_inference("Why?", max_new_tokens=12))
    assert answers[0] == answers[1]


def test_sampling_without_temperature_is_refused(ovis):
    with pytest.raises(ValueError, match="do_sample=False for greedy"):
        ovis.text_only_inference("Why?", temperature=0)


def test_grounding_asks_in_the_taught_words_and_returns_places(ovis, image):
    result = ovis.grounding_inference(image, "the <ref>7</ref>", max_new_tokens=2)
    assert isinstance(result, GroundingResult)
    assert grounding_prompt("the <ref>7</ref>", "box") == (
        "the <ref>7</ref>. Please provide the bounding box coordinates."
    )


@pytest.mark.parametrize(
    ("prompt", "request_type", "message"),
    [("a 7", "polygon", "box, point, not 'polygon'"), ("  ", "box", "what to find")],
)
def test_an_impossible_grounding_request_is_refused(ovis, image, prompt, request_type, message):
    with pytest.raises(ValueError, match=message):
        ovis.grounding_inference(image, prompt, request_type)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_used_and_said(checkpoint, caplog):
    ovis = Ovis25Inference(checkpoint)
    assert "no GPU was found" in caplog.text
    assert next(ovis.model.parameters()).dtype == torch.float32
    exact = Ovis25Inference(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert next(exact.model.parameters()).dtype == torch.bfloat16
    assert exact.text_only_inference("Why?", max_new_tokens=2).usage.generated_tokens <= 2


def test_an_unknown_model_is_named():
    with pytest.raises(CheckpointError, match="'no/such-model' is not a folder here"):
        Ovis25Inference("no/such-model", local_files_only=True)
