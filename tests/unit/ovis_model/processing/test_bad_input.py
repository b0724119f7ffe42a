"""What cannot be a sample or a prompt is refused with a name and a remedy."""

import pytest
from PIL import Image

from ovis_model.data.schema import Sample, Turn
from ovis_model.errors import DataError, PlaceholderError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tiny_checkpoint

IMAGE = Image.new("RGB", (32, 32))


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Ovis2_5Processor.from_pretrained(build_tiny_checkpoint(tmp_path_factory.mktemp("m")))


def ask(value):
    return Sample(
        id="s7", conversations=[Turn(role="human", value=value), Turn(role="gpt", value="x")]
    )


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        pytest.param(
            "<image>\n<image>",
            {"images": [IMAGE]},
            r"sample 's7': the text has 2 <image> placeholder\(s\) but the sample carries 1 image",
            id="an image too few",
        ),
        pytest.param(
            "<video>",
            {},
            r"has 1 <video> placeholder\(s\) but the sample carries 0 video",
            id="no video",
        ),
        pytest.param(
            "<video>\n<video>",
            {"frames": [IMAGE]},
            r"has 2 <video> placeholder\(s\) but the sample carries 1 video file\(s\)\. Add or",
            id="two videos in the text",
        ),
        pytest.param(
            "<image>",
            {"frames": [IMAGE]},
            r"has 1 <image> placeholder\(s\) but the sample carries 0 image",
            id="a video for an image",
        ),
    ],
)
def test_placeholders_and_media_must_agree(processor, text, media, message):
    with pytest.raises(PlaceholderError, match=message):
        processor.encode_sample(ask(text), **media)


@pytest.mark.parametrize(
    ("media", "message"),
    [
        pytest.param(
            {"images": [IMAGE], "frames": [IMAGE]},
            r"there are 1 image\(s\) and a video; a sample carries images or one video, never "
            "both: split it into two samples",
            id="images and a video",
        ),
        pytest.param(
            {"frames": [[IMAGE], [IMAGE]]},
            "there are 2 lists of frames; a sample carries one video: give the frames of one as a "
            "flat list, and split the sample",
            id="two videos",
        ),
        pytest.param(
            {"frames": []},
            "the video has no frames; give at least one, or None for no video",
            id="a video without frames",
        ),
        pytest.param(
            {"frames": [IMAGE, Image.new("RGB", (32, 64))]},
            "frame 2 of the video is 32 x 64 px and frame 1 is 32 x 32 px; crop or scale the "
            "frames to one size",
            id="frames of different size",
        ),
        pytest.param(
            {"frames": [Image.new("RGB", (0, 32))]},
            "frame 1 is 0 x 32 px and has no pixels; replace or remove it",
            id="a frame without pixels",
        ),
        pytest.param(
            {"images": [IMAGE, Image.new("RGB", (5, 0))]},
            "image 2 is 5 x 0 px and has no pixels; replace or remove it",
            id="an image without pixels",
        ),
    ],
)
def test_media_that_cannot_be_used_are_named_with_their_sample(processor, media, message):
    with pytest.raises(DataError, match=f"^sample 's7': {message}"):
        processor.encode_sample(ask("<video>"), **media)


def prompt(*content):
    return [{"role": "user", "content": list(content)}]


def encode(processor, messages, **media):
    return processor.encode_prompt(messages, enable_thinking=False, **media)


def test_a_prompt_names_the_numbers_that_disagree(processor):
    with pytest.raises(
        PlaceholderError,
        match=r"the prompt has 1 <image> placeholder\(s\) but comes with 2 image\(s\); give one "
        "item of type 'image' for each image, in their order",
    ) as caught:
        encode(processor, prompt({"type": "image"}), images=[IMAGE, IMAGE])
    assert caught.value.sample_id is None


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="no messages"),
        pytest.param([{"role": "user", "content": ""}], id="empty text"),
        pytest.param([{"role": "user", "content": None}], id="no content"),
        pytest.param(prompt({"type": "text", "text": ""}), id="an item of empty text"),
    ],
)
def test_an_empty_prompt_is_refused(processor, messages):
    with pytest.raises(
        ValueError, match=r"the prompt is empty, .* give a message with text, an im"
    ):
        encode(processor, messages)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param(
            [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "x"}],
            "message 2 has the role 'tool'; use one of system, user, assistant",
            id="unknown role",
        ),
        pytest.param(
            [{"content": "Hi"}],
            "message 1 has the role None; use one of",
            id="no role",
        ),
        pytest.param(
            prompt({"type": "audio"}),
            "message 1 is the user's and holds an item of type 'audio'; use text or image or",
            id="unknown item",
        ),
        pytest.param(
            [{"role": "assistant", "content": [{"type": "image"}]}],
            "message 1 is the assistant's and holds an item of type 'image'; use text$",
            id="an answer with an image",
        ),
        pytest.param(
            prompt({"type": "image"}, {"type": "video"}),
            "the prompt shows images and a video; .* never both: ask in two prompts",
            id="images and a video",
        ),
    ],
)
def test_messages_no_prompt_can_be_made_of_are_refused(processor, messages, message):
    with pytest.raises(ValueError, match=message):
        encode(processor, messages)


def test_pixel_limits_of_a_prompt_must_fit_each_other_and_the_saved_ones(processor):
    messages = prompt({"type": "image"})
    limits = {"min_pixels": 9000, "max_pixels": 8000}
    with pytest.raises(
        ValueError, match=r"min_pixels \(9000 px\) and max_pixels \(8000 px\) must"
    ):
        encode(processor, messages, images=[IMAGE], **limits)
    with pytest.raises(
        ValueError, match=r"min_pixels \(9000 px\) and max_pixels \(4096 px\) must"
    ):
        encode(processor, messages, images=[IMAGE], min_pixels=9000)
    with pytest.raises(ValueError, match=r"max_pixels \(0 px\) must be above 0"):
        encode(processor, messages, images=[IMAGE], max_pixels=0)
