from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.errors import CheckpointError, DataError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, pad_batch
from tests.support.tiny_model import build_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def processor(checkpoint):
    return Ovis2_5Processor.from_pretrained(checkpoint)


def sample(*turns):
    made = [SimpleNamespace(role=role, value=value) for role, value in turns]
    return SimpleNamespace(id="sample_003", conversations=made)


def text_of(processor, ids):
    return processor.tokenizer.decode([i for i in ids if i >= 0])


def learned(processor, encoded):
    return text_of(processor, encoded.labels.tolist())


def test_only_answers_and_their_end_are_learned(processor):
    encoded = processor.encode_sample(
        sample(("system", "Be terse."), ("human", "Hi"), ("gpt", "Hello"))
    )
    assert learned(processor, encoded) == "Hello<|im_end|>"
    assert "Be terse." in text_of(processor, encoded.input_ids.tolist())


def test_a_thought_is_learned_and_an_empty_one_only_read(processor):
    thought = "<think>\nhm\n</think>\n\nYes"
    thinking = processor.encode_sample(sample(("human", "Hi"), ("gpt", thought)))
    plain = processor.encode_sample(sample(("human", "Hi"), ("gpt", "Yes")))
    assert learned(processor, thinking) == thought + "<|im_end|>"
    assert learned(processor, plain) == "Yes<|im_end|>"
    assert "<think>\n\n</think>\n\nYes" in text_of(processor, plain.input_ids.tolist())


def test_an_ignored_answer_is_read_but_not_learned(processor):
    encoded = processor.encode_sample(
        sample(("human", "a"), ("ignored_gpt", "b"), ("human", "c"), ("gpt", "d"))
    )
    assert learned(processor, encoded) == "d<|im_end|>"


def test_images_and_frames_become_visual_positions_that_are_not_learned(processor):
    image = Image.new("RGB", (64, 64))
    for turns, media in (
        ([("human", "<image>\n<image>\nBoth?"), ("gpt", "Yes")], {"images": [image, image]}),
        ([("human", "<video>\nWhat?"), ("gpt", "Yes")], {"frames": [image] * 3}),
    ):
        encoded = processor.encode_sample(sample(*turns), **media)
        assert encoded.pixel_values.dtype == torch.uint8
        num_visual = int((encoded.input_ids == -300).sum())
        assert num_visual * 4 == len(encoded.pixel_values)
        assert (encoded.labels[encoded.input_ids < 0] == -100).all()


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        pytest.param([], "no turns", id="empty"),
        pytest.param([("user", "x")], r"unknown role\(s\) \['user'\]", id="unknown role"),
        pytest.param(
            [("human", "<image>"), ("gpt", "<video>")], "never both", id="images and a video"
        ),
    ],
)
def test_a_conversation_that_cannot_be_used_says_why(processor, turns, message):
    with pytest.raises(DataError, match=f"sample 'sample_003': .*{message}"):
        processor.encode_sample(sample(*turns))


def test_a_prompt_ends_where_the_answer_begins(processor):
    messages = [{"role": "user", "content": "Hi"}]
    thinking = processor.encode_prompt(messages, enable_thinking=True)
    plain = processor.encode_prompt(messages, enable_thinking=False)
    opened = text_of(processor, thinking.input_ids.tolist())
    closed = text_of(processor, plain.input_ids.tolist())
    assert opened.endswith("<|im_start|>assistant\n")
    assert closed == opened + "<think>\n\n</think>\n\n"
    assert thinking.labels is None


def test_training_and_prompt_agree_up_to_the_answer(processor):
    image = Image.new("RGB", (64, 32))
    trained = processor.encode_sample(
        sample(("human", "<image>\nWhat?"), ("gpt", "x")), images=[image]
    )
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    prompt = processor.encode_prompt(
        [{"role": "user", "content": content}], images=[image], enable_thinking=False
    )
    length = len(prompt.input_ids)
    assert torch.equal(trained.input_ids[:length], prompt.input_ids)
    assert torch.equal(trained.pixel_values, prompt.pixel_values)


def test_settings_travel_with_the_folder(processor, tmp_path):
    limits = PixelLimits(single_image_min_pixels=1024, single_image_max_pixels=2048)
    changed = processor.with_settings(
        pixel_limits=limits, frame_sampling=FrameSampling(min_frames=2, max_frames=5)
    )
    changed.save_pretrained(tmp_path)
    loaded = Ovis2_5Processor.from_pretrained(tmp_path)
    assert loaded.pixel_limits == limits
    assert (loaded.frame_sampling.min_frames, loaded.frame_sampling.max_frames) == (2, 5)
    assert loaded.token_ids == processor.token_ids


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer_config\.json"):
        Ovis2_5Processor.from_pretrained(tmp_path)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_the_side_asked_for_and_adds_nothing_when_rows_are_equal(processor, side):
    short = processor.encode_sample(sample(("human", "Hi"), ("gpt", "x")))
    long = processor.encode_sample(sample(("human", "Hi there you"), ("gpt", "x")))
    pad_id = processor.token_ids.pad
    batch = pad_batch([short, long], pad_id=pad_id, side=side)
    missing = len(long.input_ids) - len(short.input_ids)
    padded = slice(0, missing) if side == "left" else slice(-missing, None)
    assert (batch["input_ids"][0, padded] == pad_id).all()
    assert not batch["attention_mask"][0, padded].any()
    assert (batch["labels"][0, padded] == -100).all()
    equal = pad_batch([long, long], pad_id=pad_id, side=side)
    assert equal["input_ids"].shape == (2, len(long.input_ids))
    assert equal["attention_mask"].all()


def test_padding_knows_two_sides(processor):
    short = processor.encode_sample(sample(("human", "Hi"), ("gpt", "x")))
    with pytest.raises(ValueError, match="side must be 'left' or 'right', not 'both'"):
        pad_batch([short], pad_id=0, side="both")


def test_prompts_and_samples_may_share_a_batch_which_then_has_labels_for_the_samples(processor):
    trained = processor.encode_sample(sample(("human", "Hi"), ("gpt", "x")))
    asked = processor.encode_prompt([{"role": "user", "content": "Hi"}], enable_thinking=True)
    batch = pad_batch([asked, trained], pad_id=0, side="right")
    assert (batch["labels"][0] == -100).all()
    assert learned(processor, trained) == text_of(processor, batch["labels"][1].tolist())
