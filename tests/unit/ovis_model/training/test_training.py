import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.errors import ConfigError, DataError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.reports import sha256_of_file, sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training.report import TrainReport
from ovis_model.training.training import train
from tests.support.tiny_model import TINY_FRAMES
from tests.support.training_world import (
    TrainingWorld,
    build_training_world,
    image_sample,
    text_sample,
    video_sample,
)


def run(world: TrainingWorld, **overrides) -> TrainReport:
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def weights(world: TrainingWorld):
    return load_file(world.output / "model.safetensors")


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


def test_a_training_learns_and_leaves_a_model_that_loads(world):
    report = run(world, deepspeed=world.deepspeed(2), max_steps=30)

    assert report.final_loss < report.first_loss * 0.7
    assert report.holdout_loss < report.first_loss
    assert (report.steps, report.samples, report.holdout_samples) == (30, 20, 2)
    assert report.deepspeed
    assert report.zero_stage == 2
    load_model(world.output)
    assert Ovis2_5Processor.from_pretrained(world.output).frame_sampling == TINY_FRAMES


def test_four_samples_are_learned_by_heart(tmp_path):
    samples = [image_sample(0), image_sample(1), video_sample(0), text_sample(0)]
    world = build_training_world(tmp_path, samples=samples)
    report = run(world, max_steps=80, learning_rate=1e-2, save_steps=500)
    assert report.final_loss < 0.05


def test_the_model_folder_tells_where_it_comes_from(world):
    run(world)

    lineage = json.loads((world.output / "lineage.json").read_text())
    assert lineage == {
        "base_model": str(world.base),
        "data_digest": sha256_of_file(world.data / "manifest.json"),
        "inputs_digest": "digest",
    }
    settings = json.loads((world.output / "train_config.json").read_text())
    assert settings["learning_rate"] == 5e-3
    listed = set(json.loads((world.output / "manifest.json").read_text())["files"])
    assert listed == {path.name for path in world.output.iterdir()} - {"manifest.json"}
    assert not world.resume.exists()


def test_the_loss_curve_and_the_metrics_log_tell_the_same_steps(world):
    run(world)

    with (world.root / "loss.csv").open() as file:
        curve = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    assert curve == [(line["step"], line["loss"]) for line in lines]
    assert [step for step, _ in curve] == [1, 2, 4, 6, 8, 10, 12]
    assert all(line["tokens_per_second"] > 0 for line in lines)
    assert all(line["gflops_per_second"] > 0 for line in lines)
    assert not any("mfu" in line for line in lines)  # of a CPU nobody knows the peak


def test_the_same_inputs_give_the_same_bytes(world):
    run(world, deepspeed=world.deepspeed(2))
    first = sha256_of_folder(world.output)
    run(world, deepspeed=world.deepspeed(2))
    assert sha256_of_folder(world.output) == first


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_zero_stage_gives_the_weights_of_a_training_without_deepspeed(world, stage):
    run(world)
    plain = weights(world)
    run(world, deepspeed=world.deepspeed(stage))
    staged = weights(world)
    assert plain.keys() == staged.keys()
    for name, tensor in plain.items():
        # Adam's first steps are as long for a gradient of rounding errors as for any other.
        assert tensor.allclose(staged[name], atol=1e-4), name


def test_a_module_with_rate_zero_keeps_its_bits_while_the_others_move(world):
    before = load_file(world.base / "model.safetensors")
    run(world, deepspeed=world.deepspeed(2), train_modules="llm:0|vte|visual_tokenizer:1e-3")
    moved = {name for name, tensor in weights(world).items() if not tensor.equal(before[name])}
    assert {name.split(".")[0] for name in moved} == {"vte", "visual_tokenizer"}
    assert not any("post_layernorm" in name for name in moved)


def test_frozen_modules_keep_their_bits_and_stay_out_of_the_count(world):
    before = load_file(world.base / "model.safetensors")
    report = run(world, deepspeed=world.deepspeed(2), freeze_llm=True, freeze_vision_tower=True)
    moved = {name for name, tensor in weights(world).items() if not tensor.equal(before[name])}
    assert {".".join(name.split(".")[:2]) for name in moved} == {
        "vte.weight",
        "visual_tokenizer.head",
    }
    assert [entry.module for entry in report.modules] == ["visual_tokenizer.head", "vte"]
    assert report.trainable_parameters == sum(entry.parameters for entry in report.modules)


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"gradient_checkpointing": True}, id="blocks recomputed"),
        pytest.param({"vit_gradient_checkpointing": True}, id="vision blocks recomputed"),
        pytest.param({"cache_encoded_samples": False}, id="samples encoded every time"),
        pytest.param({"dataloader_num_workers": 1}, id="samples encoded by a worker"),
        pytest.param({"attn_implementation": "eager"}, id="attention written out"),
    ],
)
def test_a_setting_of_speed_or_memory_leaves_the_weights_as_they_are(world, setting):
    run(world)
    plain = weights(world)
    run(world, deepspeed=world.deepspeed(2), **setting)
    for name, tensor in weights(world).items():
        assert tensor.allclose(plain[name], atol=1e-4), name


# torch's compiler takes half a minute by itself.
# It looks at every tensor's gradient, and into the functions that DeepSpeed puts in
# the place of torch's own when ZeRO-3 ran before; it means to hide both warnings.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
def test_a_compiled_model_learns_the_same(world):
    settings = {"max_steps": 2, "deepspeed": world.deepspeed(2)}
    run(world, **settings)
    plain = weights(world)
    run(world, torch_compile=True, torch_compile_backend="eager", **settings)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for name, tensor in weights(world).items():
        assert tensor.allclose(plain[name], atol=1e-5), name


def test_half_precision_trains_and_saves_half_precision(world):
    report = run(world, deepspeed=world.deepspeed(2), bf16=True, max_steps=30)
    assert report.final_loss < report.first_loss * 0.7
    assert report.dtype == "bfloat16"
    assert {str(tensor.dtype) for tensor in weights(world).values()} == {"torch.bfloat16"}


def test_a_training_without_deepspeed_has_none_after_one_with_it(world):
    assert run(world, deepspeed=world.deepspeed(2), bf16=True).dtype == "bfloat16"
    plain = run(world, bf16=True)
    assert (plain.deepspeed, plain.dtype) == (False, "float32")


def test_a_frozen_language_model_can_be_computed_again(world):
    run(world, freeze_llm=True, max_steps=3)
    plain = weights(world)
    run(world, freeze_llm=True, max_steps=3, gradient_checkpointing=True)
    for name, tensor in weights(world).items():
        assert tensor.allclose(plain[name], atol=1e-5), name


def test_grouping_by_length_trains_on_every_sample(world):
    report = run(
        world, train_sampling_strategy="group_by_length", max_steps=-1, num_train_epochs=2
    )
    assert (report.steps, report.epochs) == (10, 2.0)


def test_accumulating_small_batches_equals_one_large_batch(world):
    run(world, per_device_train_batch_size=8, max_steps=4)
    large = weights(world)
    run(world, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=4)
    for name, tensor in weights(world).items():
        assert tensor.allclose(large[name], atol=1e-4), name


def test_a_sample_that_is_too_long_is_named_before_training_starts(world):
    with pytest.raises(DataError, match=r"sample\(s\) are longer .* image_0 \(\d+ tokens, limit"):
        run(world, multimodal_max_length=10)
    assert not world.output.exists()


def test_a_sample_without_an_answer_is_named_before_training_starts(tmp_path):
    mute = text_sample(7)
    mute["conversations"] = mute["conversations"][:2]
    world = build_training_world(tmp_path, samples=[text_sample(0), mute])
    with pytest.raises(DataError, match="no answer to learn from: text_7"):
        run(world)


def test_an_unknown_key_is_refused_with_the_nearest_name(world):
    with pytest.raises(ConfigError, match="'adam_beta3'; did you mean 'adam_beta"):
        run(world, adam_beta3=0.9)


def test_text_only_data_trains(tmp_path):
    world = build_training_world(tmp_path, samples=[text_sample(n) for n in range(8)])
    report = run(world, deepspeed=world.deepspeed(3), max_steps=3)
    assert report.steps == 3
