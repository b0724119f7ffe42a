"""What a sample will take is known from sizes alone, and known exactly."""

import random

import pytest
from PIL import Image

from ovis_model.config import PixelLimits
from ovis_model.data.schema import Sample, Turn
from ovis_model.errors import DataError, PlaceholderError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tiny_checkpoint

WORDS = ("digit", "naïve", "漢字", "<think>", "</think>", "\n", "<|im_end|>", "1234", " ")


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return Ovis2_5Processor.from_pretrained(build_tiny_checkpoint(tmp_path_factory.mktemp("m")))


def text(rng):
    return " ".join(rng.choices(WORDS, k=rng.randrange(12)))


def random_size(rng):
    """Return anything from a dot to a strip."""
    return rng.choice([1, 3, 31, 32, 33, 64, rng.randrange(1, 400)]), rng.randrange(1, 200)


def random_limits(rng):
    low = rng.choice([1, 1024, 32 * 96, rng.randrange(1, 9000)])
    high = low + rng.choice([0, 1024, rng.randrange(1, 60000)])
    many = rng.choice([(low, high), (-1, -1)])
    return PixelLimits(
        single_image_min_pixels=low,
        single_image_max_pixels=high,
        multiple_image_min_pixels=many[0],
        multiple_image_max_pixels=many[1],
        video_min_pixels=many[0],
        video_max_pixels=many[1],
    )


def random_conversation(rng, placeholders):
    """Spread the placeholders over human turns, and now and then into an answer."""
    values = [text(rng) for _ in range(2 * rng.randrange(1, 4))]
    for placeholder in placeholders:
        turn = rng.randrange(len(values))
        values[turn] = f"{text(rng)}{placeholder}{values[turn]}"
    roles = ("human", rng.choice(["gpt", "ignored_gpt"]))
    return [Turn(role=roles[n % 2], value=value) for n, value in enumerate(values)]


@pytest.mark.parametrize("kind", ["text", "one image", "many images", "video"])
@pytest.mark.parametrize("seed", range(12))
def test_counts_equal_those_of_the_encoded_sample(processor, kind, seed):
    rng = random.Random(f"{kind}{seed}")
    eyes = processor.with_settings(pixel_limits=random_limits(rng))
    count = {"text": 0, "one image": 1}.get(kind, rng.randrange(2, 5))
    sizes = [random_size(rng) for _ in range(count)]
    if kind == "video":
        sizes = [sizes[0]] * count
        media, told = {"frames": [Image.new("RGB", s) for s in sizes]}, {"frame_sizes": sizes}
    else:
        media, told = {"images": [Image.new("L", s) for s in sizes]}, {"image_sizes": sizes}
    placeholders = ["<video>"] if kind == "video" else ["<image>"] * count
    sample = Sample(id="s", conversations=random_conversation(rng, placeholders))
    encoded = eyes.encode_sample(sample, **media)
    size = eyes.measure_sample(sample, **told)
    assert size.num_tokens == len(encoded.input_ids) == eyes.count_tokens(sample, **told)
    assert size.num_supervised_tokens == (encoded.labels != -100).sum()
    grids = [] if encoded.grid_thws is None else encoded.grid_thws.tolist()
    assert [list(grid) for grid in size.grids] == grids


def ask(value):
    return Sample(
        id="s7", conversations=[Turn(role="human", value=value), Turn(role="gpt", value="x")]
    )


def test_a_sample_that_cannot_be_encoded_cannot_be_measured_either(processor):
    with pytest.raises(PlaceholderError, match="sample 's7': the text has 2 <image>"):
        processor.count_tokens(ask("<image><image>"), image_sizes=[(9, 9)])
    with pytest.raises(
        DataError, match=r"sample 's7': there are 1 image\(s\) and a video; .*never"
    ):
        processor.count_tokens(ask("<video>"), image_sizes=[(9, 9)], frame_sizes=[(9, 9)])
    with pytest.raises(DataError, match="sample 's7': the video has no frames; give at least one"):
        processor.count_tokens(ask("<video>"), frame_sizes=[])
    with pytest.raises(DataError, match="sample 's7': frame 2 of the video is 8 x 9 px and frame"):
        processor.count_tokens(ask("<video>"), frame_sizes=[(9, 9), (8, 9)])
    with pytest.raises(DataError, match="sample 's7': image 2 is 0 x 9 px and has no pixels; rep"):
        processor.count_tokens(ask("<image><image>"), image_sizes=[(9, 9), (0, 9)])
