"""The seed's six methods, on a tiny model with random weights."""

import asyncio
import inspect
import json
import logging
import threading

import pytest
import torch
from PIL import Image

from ovis_model.config import PixelLimits
from ovis_model.errors import CheckpointError, DataError
from ovis_model.inference.chat import ChatSession
from ovis_model.inference.messages import grounding_prompt
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.inference.results import GroundingResult, InferenceResult
from ovis_model.inference.streaming import AnswerStream
from tests.support.tiny_model import build_tiny_checkpoint

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
    required = {
        "single_image_inference": ["image_input", "text_prompt"],
        "single_image_inference_streaming": ["image_input", "text_prompt"],
        "multi_image_inference": ["image_paths", "text_prompt"],
        "video_inference": ["video_path", "text_prompt"],
        "text_only_inference": ["text_prompt"],
        "grounding_inference": ["image_input", "text_prompt"],
    }
    for name, arguments in expected.items():
        found = inspect.signature(getattr(Ovis25Inference, name)).parameters
        assert {key: found[key].default for key in arguments} == arguments, name
        positional = [
            key
            for key, parameter in found.items()
            if parameter.kind == parameter.POSITIONAL_OR_KEYWORD
        ]
        assert positional == ["self", *required.get(name, []), *arguments], name


@pytest.mark.parametrize(
    ("method", "name", "returns"),
    [
        (Ovis25Inference.video_inference, "video_inference", InferenceResult),
        (
            Ovis25Inference.grounding_inference_streaming,
            "grounding_inference_streaming",
            AnswerStream[GroundingResult],
        ),
        (ChatSession.send, "send", InferenceResult),
    ],
)
def test_methods_say_what_they_are_called_and_what_they_return(method, name, returns):
    assert method.__name__ == name
    assert method.__qualname__.endswith(f".{name}")
    assert inspect.signature(method).return_annotation == returns


def test_a_stream_is_read_by_async_for_as_well(ovis, image):
    options = {"max_new_tokens": 12, "temperature": 0}

    async def read():
        stream = ovis.single_image_inference_streaming(image, "Which?", **options)
        return [piece async for piece in stream], stream.result

    pieces, result = asyncio.run(read())
    whole = ovis.single_image_inference(image, "Which?", max_new_tokens=12, do_sample=False)
    assert "".join(pieces) == result == whole


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


MODES = {
    "single": lambda ovis, picture, **options: (
        ovis.single_image_inference(picture, "Which?", do_sample=False, **options),
        ovis.single_image_inference_streaming(picture, "Which?", temperature=0, **options),
    ),
    "multi": lambda ovis, picture, **options: (
        ovis.multi_image_inference([picture] * 2, "Same?", do_sample=False, **options),
        ovis.multi_image_inference_streaming([picture] * 2, "Same?", do_sample=False, **options),
    ),
    "video": lambda ovis, picture, **options: (
        ovis.video_inference([picture] * 2, "What?", do_sample=False, **options),
        ovis.video_inference_streaming([picture] * 2, "What?", do_sample=False, **options),
    ),
    "text": lambda ovis, picture, **options: (
        ovis.text_only_inference("Why?", do_sample=False, **options),
        ovis.text_only_inference_streaming("Why?", do_sample=False, **options),
    ),
    "grounding": lambda ovis, picture, **options: (
        ovis.grounding_inference(picture, "the 7", **options),
        ovis.grounding_inference_streaming(picture, "the 7", **options),
    ),
    "chat": lambda ovis, picture, **options: (
        ovis.chat().send("Which?", [picture], do_sample=False, **options),
        ovis.chat().send_streaming("Which?", [picture], do_sample=False, **options),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_thinks_within_its_budget_and_streams_what_it_answers(ovis, image, mode):
    whole, stream = MODES[mode](ovis, image, **THINKING)
    assert whole.thinking_closed == "forced"
    assert whole.usage.thinking_tokens == 5
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == whole == stream.result
    assert type(stream.result) is type(whole)
    assert stream.result.usage == whole.usage


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_stops_at_a_stop_string_streamed_or_not(ovis, image, mode):
    plain, _ = MODES[mode](ovis, image, max_new_tokens=20)
    word = plain.answer[6:8]
    whole, stream = MODES[mode](ovis, image, max_new_tokens=20, stop=word)
    assert whole.finish_reason == "stop_string"
    assert whole.text == plain.text[: plain.text.index(word, len(plain) - len(plain.lstrip()))]
    assert "".join(stream) == whole
    assert whole.usage.generated_tokens < plain.usage.generated_tokens


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_takes_a_system_message_or_says_where_it_belongs(ovis, image, mode):
    plain, _ = MODES[mode](ovis, image, max_new_tokens=1)
    if mode == "chat":
        with pytest.raises(ValueError, match="given to chat"):
            MODES[mode](ovis, image, max_new_tokens=1, system="Be brief.")
        return
    told, _ = MODES[mode](ovis, image, max_new_tokens=1, system="Be brief.")
    system = ovis.processor.render_prompt(
        [{"role": "system", "content": "Be brief."}], enable_thinking=True
    ).removesuffix("<|im_start|>assistant\n")
    added = len(ovis.processor.tokenizer.encode(system, add_special_tokens=False))
    assert told.usage.prompt_tokens == plain.usage.prompt_tokens + added


def test_greedy_answers_are_the_same_twice(ovis, image):
    first, second = (MODES["single"](ovis, image, max_new_tokens=20)[0] for _ in range(2))
    assert first == second


def test_the_model_is_stopped_by_the_reader_of_a_stream(ovis, image, count_forwards):
    read, passed = threading.Event(), threading.Event()

    def wait(*_):
        if count_forwards.language == 3:
            passed.set()
            assert read.wait(timeout=10)

    hook = ovis.model.llm.register_forward_hook(wait)
    try:
        stream = ovis.single_image_inference_streaming(image, "Which?", temperature=0)
        next(stream)  # the first piece is here before the third of 1024 tokens
        assert passed.wait(timeout=10)
        threading.Timer(0.05, read.set).start()
        stream.close()
    finally:
        hook.remove()
    assert count_forwards.language <= 4


@pytest.mark.parametrize("budget", [40, 39])
def test_a_budget_that_leaves_no_room_is_refused_with_the_numbers(ovis, budget):
    with pytest.raises(ValueError, match=rf"thinking_budget \({budget} tokens\).*40 tokens"):
        ovis.text_only_inference(
            "Why?", enable_thinking=True, thinking_budget=budget, max_new_tokens=40
        )


def test_without_thinking_the_budget_is_without_effect(ovis):
    result = ovis.text_only_inference("Why?", thinking_budget=40, max_new_tokens=4)
    assert result.usage.generated_tokens <= 4


def test_streaming_refuses_wrong_arguments_before_the_first_piece(ovis, image):
    with pytest.raises(ValueError, match="leave no room"):
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
    ("ask", "message"),
    [
        (lambda o, i: o.text_only_inference(""), "the prompt is empty"),
        (lambda o, i: o.single_image_inference(i, "  "), "the prompt is empty"),
        (lambda o, i: o.multi_image_inference([i], ""), "the prompt is empty"),
        (lambda o, i: o.video_inference([i], ""), "the prompt is empty"),
        (lambda o, i: o.grounding_inference(i, "  "), "what to find"),
        (lambda o, i: o.grounding_inference(i, "a 7", "polygon"), "box, point, not 'polygon'"),
        (lambda o, i: o.single_image_inference(i, "<image>\n<image>\n?"), "2 <image> placehold"),
        (lambda o, i: o.text_only_inference("<video>\n?"), "1 <video> placeholder"),
        (lambda o, i: o.text_only_inference("?", max_new_tokens=0), "at least 1, got 0"),
        (lambda o, i: o.text_only_inference("?", max_new_tokens=-5), "at least 1, got -5"),
        (lambda o, i: o.text_only_inference("?", stop=[""]), "stop holds an empty string"),
        (lambda o, i: o.video_inference([i], "?", num_frames=0), "num_frames must be at least 1"),
        (lambda o, i: o.video_inference(["a.mp4", "b.mp4"], "?"), "ask about one video"),
        (
            lambda o, i: o.single_image_inference(i, "?", min_pixels=4096, max_pixels=1024),
            r"min_pixels \(4096 px\) and max_pixels \(1024 px\)",
        ),
        (lambda o, i: o.single_image_inference(i, "?", max_pixels=0), r"max_pixels \(0 px\)"),
    ],
)
def test_an_impossible_request_is_refused_before_the_model_runs(
    ovis, image, count_forwards, ask, message
):
    with pytest.raises(ValueError, match=message):
        ask(ovis, image)
    assert (count_forwards.vision, count_forwards.language) == (0, 0)


def test_a_broken_picture_is_named_before_the_model_runs(ovis, tmp_path, count_forwards):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    for ask in (ovis.single_image_inference, ovis.grounding_inference):
        with pytest.raises(DataError, match=r"broken\.jpg cannot be decoded"):
            ask(tmp_path / "broken.jpg", "Which?")
    with pytest.raises(DataError, match=r"broken\.jpg cannot be decoded"):
        ovis.multi_image_inference([tmp_path / "broken.jpg"], "Which?")
    assert count_forwards.vision == 0


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        pytest.param({"max_pixels": 32 * 32}, 1, id="max under the checkpoint's min"),
        pytest.param({"min_pixels": 128 * 128}, 16, id="min above the checkpoint's max"),
    ],
)
def test_one_given_pixel_limit_moves_the_checkpoints_other_one(tmp_path, limits, tokens):
    own = PixelLimits(single_image_min_pixels=64 * 64, single_image_max_pixels=96 * 96)
    ovis = Ovis25Inference(build_tiny_checkpoint(tmp_path, pixel_limits=own), device="cpu")
    picture = Image.new("RGB", (80, 80))
    result = ovis.single_image_inference(picture, "?", max_new_tokens=1, **limits)
    assert result.usage.visual_tokens == tokens + 2


def test_a_video_of_frames_has_as_many_as_are_asked_for(ovis, image):
    frames = [image] * 6
    counts = [
        ovis.video_inference(frames, "?", max_new_tokens=1, **options).usage.visual_tokens
        for options in ({}, {"num_frames": 3})
    ]
    assert counts == [6 * 2 + 2, 3 * 2 + 2]


def test_the_checkpoints_generation_config_shapes_sampling_and_is_seen(tmp_path, caplog):
    build_tiny_checkpoint(tmp_path)
    values = {"temperature": 0.7, "top_p": 0.9, "top_k": 1, "repetition_penalty": 1.05}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    ovis = Ovis25Inference(tmp_path, device="cpu")
    with caplog.at_level(logging.INFO, logger="ovis_model.inference"):
        sampled = ovis.text_only_inference("Why?", max_new_tokens=8)
    assert (sampled.settings.top_k, sampled.settings.top_p) == (1, 0.9)
    assert sampled.settings.temperature == 0.6
    assert "top_p=0.9, top_k=1, repetition_penalty=1.05 of the checkpoint's" in caplog.text
    assert "temperature=0.6, not with 0.7" in caplog.text
    penalised = ovis.text_only_inference(
        "Why?", max_new_tokens=8, do_sample=False, repetition_penalty=1.05
    )
    assert sampled == penalised  # the likeliest token is the only one of one
    greedy = ovis.text_only_inference("Why?", max_new_tokens=8, do_sample=False)
    assert greedy.settings.top_k is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_used_and_said(checkpoint, caplog):
    ovis = Ovis25Inference(checkpoint)
    assert "no GPU was found" in caplog.text
    assert next(ovis.model.parameters()).dtype == torch.float32
    exact = Ovis25Inference(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert next(exact.model.parameters()).dtype == torch.bfloat16
    assert exact.text_only_inference("Why?", max_new_tokens=2).usage.generated_tokens <= 2


def test_an_unknown_device_is_named(checkpoint):
    with pytest.raises(ValueError, match="'auto', 'cpu', 'cuda' or 'cuda:N', not 'banana'"):
        Ovis25Inference(checkpoint, device="banana")


def test_an_unknown_model_is_named():
    with pytest.raises(CheckpointError, match="'no/such-model' is not a folder here"):
        Ovis25Inference("no/such-model", local_files_only=True)
