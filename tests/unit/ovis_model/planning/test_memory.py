"""The planned peak, against how far the memory of a real training rises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ovis_model.modeling.checkpoint import save_checkpoint
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.planning.memory import PROCESS_BYTES
from ovis_model.planning.plan import find_device, make_plan
from ovis_model.planning.work import MeasuredData
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.train_config import TrainConfig
from ovis_model.training.inputs import read_extracted
from tests.support.tiny_model import build_tiny_checkpoint
from tests.support.training_world import build_training_world, image_sample

ROOT = Path(__file__).parents[4]
PRESETS = ROOT / "config" / "deepspeed"
#: Equal samples, so that every micro-batch is the largest one.
ROWS, SIDE = 12, 256
#: Bytes of libraries that are first used while training; they are part of a plan's `process`.
FIRST_USE = 150_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model of 23 million parameters: large enough to be seen in a process's memory."""
    root = tmp_path_factory.mktemp("world")
    tiny = build_tiny_checkpoint(root / "tiny")
    config = Ovis2_5Config(
        llm_config={
            "model_type": "qwen3",
            "vocab_size": 32768,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "tie_word_embeddings": False,
        },
        vit_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        },
        visual_vocab_size=4096,
    )
    torch.manual_seed(0)
    model = Ovis2_5ForConditionalGeneration(config)
    save_checkpoint(model, Ovis2_5Processor.from_pretrained(tiny), root / "base")
    samples = [{**image_sample(0), "id": f"image_{number}"} for number in range(4 * ROWS)]
    return build_training_world(root / "world", samples=samples, base=root / "base")


def settings_of(world, **overrides):
    area = SIDE * SIDE
    pixels = {"single_image_min_pixels": area, "single_image_max_pixels": area}
    return world.config(
        **pixels, per_device_train_batch_size=ROWS, cache_encoded_samples=False, **overrides
    )


def planned(settings, world):
    config = TrainConfig.parse(settings, where="test")
    inputs = read_extracted(world.data)
    processor = Ovis2_5Processor.from_pretrained(world.base).with_settings(
        pixel_limits=config.pixel_limits, frame_sampling=inputs.frame_sampling
    )
    data = MeasuredData.measure(
        inputs.train, folder=world.data, media=world.data, processor=processor
    )
    return make_plan(config, data, device=find_device(), processes=1, presets=PRESETS)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="plain"),
        pytest.param({"gradient_checkpointing": True}, id="checkpointed"),
        pytest.param({"deepspeed": 2, "gradient_accumulation_steps": 2}, id="zero-2"),
    ],
)
def test_memory_rises_as_far_as_was_planned(world, tmp_path, overrides):
    if "deepspeed" in overrides:
        overrides = {**overrides, "deepspeed": world.deepspeed(overrides["deepspeed"])}
    settings = settings_of(world, **overrides)
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"config": settings, "data": str(world.data)}), encoding="utf-8")
    # Large blocks go back to the system when they are freed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.support.held_memory", job, tmp_path / "held"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    risen = json.loads((tmp_path / "held.0.json").read_text("utf-8"))["risen"]
    expected = planned(settings, world).memory.peak_device_bytes - PROCESS_BYTES["cpu"]
    assert 0.9 * expected < risen < 1.1 * expected + FIRST_USE
