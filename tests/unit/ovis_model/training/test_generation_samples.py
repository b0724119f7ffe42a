import json

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.data.dataset import Example
from ovis_model.errors import DataError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor
from ovis_model.train_config import TrainConfig
from ovis_model.training.destination import samples_beside
from ovis_model.training.generation_samples import prompt_of
from ovis_model.training.training import train
from tests.support.tiny_model import TINY_PIXELS
from tests.support.training_world import QUESTION, TrainingWorld, build_training_world

X, ATOM = -100, -300


def run(world: TrainingWorld, **overrides):
    config = TrainConfig.parse(world.config(**{"max_steps": 4, **overrides}), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def answers(world: TrainingWorld):
    text = samples_beside(world.metrics).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


def example(ids, labels):
    return Example("s", EncodedSample(torch.tensor(ids), torch.tensor(labels), None, None))


def test_a_sample_is_cut_before_its_last_answer():
    prompt = prompt_of(example([1, 2, 3, 4, 5, 6, 7], [X, 2, X, X, 5, 6, X]), "why?")
    assert prompt.encoded.input_ids.tolist() == [1, 2, 3, 4]
    assert (prompt.truth, prompt.text, prompt.encoded.labels) == ([5, 6], "why?", None)


@pytest.mark.parametrize(
    ("ids", "labels"),
    [
        pytest.param([1, 2], [X, X], id="nothing is learned"),
        pytest.param([1, 2], [1, 2], id="nothing is asked"),
        pytest.param([1, 2, ATOM], [X, 2, X], id="a picture after the answer"),
    ],
)
def test_a_sample_that_asks_for_no_answer_is_no_prompt(ids, labels):
    assert prompt_of(example(ids, labels), "") is None


@pytest.mark.parametrize("stage", [None, 2, 3])
def test_prompts_of_the_holdout_are_answered_and_training_stays_the_same(world, stage):
    deepspeed = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
    run(world, **deepspeed)
    weights = load_file(world.output / "model.safetensors")
    assert not samples_beside(world.metrics).exists()

    run(world, **deepspeed, sample_steps=2, num_samples=5, sample_max_new_tokens=6)
    lines = answers(world)
    assert [(line["step"], line["id"]) for line in lines] == [
        (2, "image_0"),
        (2, "text_0"),
        (4, "image_0"),
        (4, "text_0"),
    ]
    assert lines[0]["prompt"] == f"<image>\n{QUESTION}"
    assert lines[0]["truth"] == "<think>\nI see red.\n</think>\n\nred"
    assert lines[1]["truth"] == "red"
    for name, tensor in load_file(world.output / "model.safetensors").items():
        assert tensor.equal(weights[name]), name

    # What the finished model answers is what the last step's line says.
    processor = Ovis2_5Processor.from_pretrained(world.output).with_settings(
        pixel_limits=TINY_PIXELS
    )
    encoded = processor.encode_prompt(
        [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "Say red."},
        ],
        enable_thinking=False,
    )
    new_ids = load_model(world.output).eval().generate(encoded.input_ids[None], max_new_tokens=6)
    said = processor.tokenizer.decode(new_ids[0].tolist(), skip_special_tokens=True)
    assert lines[-1]["output"] == said


def test_the_number_of_prompts_and_an_interruption_are_respected(world):
    settings = {"sample_steps": 1, "num_samples": 1, "save_steps": 2, "max_steps": 3}
    picture = world.data / "media" / "red.png"
    whole = picture.read_bytes()
    samples_beside(world.metrics).write_text('{"step": 1}\n')  # of a run that left no checkpoint
    picture.write_bytes(whole[:-30])
    with pytest.raises(DataError):
        run(world, **settings)
    picture.write_bytes(whole)
    run(world, **settings)
    assert [(line["step"], line["id"]) for line in answers(world)] == [
        (1, "image_0"),
        (2, "image_0"),
        (3, "image_0"),
    ]
