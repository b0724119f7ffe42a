"""The processor needs no model, and works in as many processes as there are."""

import functools
import multiprocessing
import pickle
import subprocess
import sys

import pytest
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.schema import Sample, Turn
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tiny_checkpoint

HEAVY = ("accelerate", "deepspeed", "great_expectations", "mlflow", "moviepy", "prefect")
SAMPLES = [
    Sample(
        id=str(number),
        conversations=[
            Turn(role="human", value=f"<image>\nWhich digit is this? {number}"),
            Turn(role="gpt", value=str(number)),
        ],
    )
    for number in range(4)
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def processor(checkpoint):
    return Ovis2_5Processor.from_pretrained(checkpoint)


def encoding(processor):
    """Return a function that other processes can call without importing this file."""
    return functools.partial(processor.encode_sample, images=[Image.new("RGB", (40, 70), "teal")])


def values(encoded):
    return [tensor.tolist() for tensor in vars(encoded).values()]


def test_loading_it_imports_no_network_and_nothing_heavy(checkpoint):
    script = f"""
import sys
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
Ovis2_5Processor.from_pretrained({str(checkpoint)!r})
print([name for name in {HEAVY} if name in sys.modules])
print([name for name in sys.modules if name.startswith("ovis_model.modeling.modeling")])
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.split("\n") == ["[]", "[]", ""]


def test_a_copy_that_was_pickled_encodes_the_same(processor):
    copy = pickle.loads(pickle.dumps(processor))
    assert values(encoding(copy)(SAMPLES[0])) == values(encoding(processor)(SAMPLES[0]))
    assert copy.pixel_limits == processor.pixel_limits
    assert copy.sample_frames(9) == processor.sample_frames(9)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_processes_encode_what_one_does(processor, start):
    here = [values(encoding(processor)(sample)) for sample in SAMPLES]
    with multiprocessing.get_context(start).Pool(2) as pool:
        there = pool.map(encoding(processor), SAMPLES, chunksize=1)
        assert [values(encoded) for encoded in there] == here


def test_it_holds_the_frame_sampler(processor):
    sampling = processor.with_settings(frame_sampling=FrameSampling(min_frames=4, max_frames=4))
    assert sampling.sample_frames(16) == [2, 6, 10, 14]
    with pytest.raises(ValueError, match="no frames to sample from"):
        sampling.sample_frames(0)
