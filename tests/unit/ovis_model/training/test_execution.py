"""Precision, kernels and memory: what was picked is said, what cannot be done is refused."""

import logging

import pytest

from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import training_arguments
from ovis_model.training.environment import has_gpu, process_group
from ovis_model.training.execution import check_execution
from ovis_model.training.report import TrainReport
from ovis_model.training.training import train
from tests.support.running_trainer import prepared_trainer
from tests.support.training_world import TrainingWorld, build_training_world

on_a_cpu = pytest.mark.skipif(has_gpu(), reason="what is missing is a GPU")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("world"))


def run(world: TrainingWorld, **overrides) -> TrainReport:
    config = TrainConfig.parse(world.config(max_steps=1, **overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def check(world: TrainingWorld, **overrides) -> None:
    config = TrainConfig.parse(world.config(**overrides), where="test")
    with process_group():
        check_execution(config, training_arguments(config, resume=world.resume))


@on_a_cpu
def test_a_plain_training_on_a_cpu_says_what_it_does_in_one_line_and_in_its_report(world, caplog):
    caplog.set_level(logging.INFO, logger="ovis_model")
    report = run(world)
    assert report.execution == {
        "attention": "vit sdpa per frame; llm sdpa per sequence for packed rows, sdpa for padded "
        "batches (auto: no CUDA)",
        "precision": "float32 (bf16: false)",
        "tf32": "off (no CUDA)",
        "torch_compile": "off",
        "gradient_checkpointing": "off",
        "liger": "off",
        "quantize_base": "none",
        "adapters": "off",
        "vision": "learns",
    }
    (line,) = (one for one in caplog.messages if one.startswith("picked: "))
    assert "precision float32 (bf16: false); tf32 off (no CUDA)" in line


def test_every_key_shows_in_what_is_said(world):
    said = run(
        world,
        bf16=True,
        deepspeed=world.deepspeed(2),
        attn_implementation="eager",
        gradient_checkpointing=True,
        vit_gradient_checkpointing=False,
        train_modules="llm",
        lora_r=2,
        cache_visual_tokens=True,
    ).execution
    assert said["attention"].endswith("(attn_implementation: eager)")
    assert said["precision"] == "bfloat16, float32 masters (DeepSpeed)"
    assert said["gradient_checkpointing"] == "llm"
    assert said["adapters"] == "lora, r 2, on llm"
    assert said["vision"] == ("no graph, for nothing visual learns; pictures are kept in memory")
    plain = run(world, bf16=True).execution
    assert plain["precision"] == "bfloat16 by autocast, weights in float32 (no DeepSpeed)"


@on_a_cpu
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fp16": True}, "fp16 needs a GPU, and there is none here; set bf16: true"),
        (
            {"attn_implementation": "varlen"},
            "attn_implementation 'varlen' needs CUDA and 16 bits: a GPU is missing; say auto",
        ),
        ({"attn_implementation": "flash_attention_2", "bf16": True}, "a GPU is missing"),
        ({"use_liger_kernel": True}, "use_liger_kernel: a GPU .*missing; remove the key"),
        (
            {"quantize_base": "nf4", "lora_r": 4},
            "quantize_base: a GPU .*missing; set quantize_base: none",
        ),
        ({"tf32": True}, "tf32 requires"),
        ({"bf16_full_eval": True}, "the holdout is measured in the precision of training"),
        ({"liger_kernel_config": {"rope": False}}, "use_liger_kernel takes the kernels that fit"),
    ],
)
def test_what_cannot_be_done_here_is_refused_with_what_is_missing(world, settings, message):
    with pytest.raises(ConfigError, match=message):
        check(world, **settings)


def test_everything_that_cannot_be_done_is_told_at_once(world, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"no 'no-such-compiler' here; install one, or set") as e:
        check(world, torch_compile=True, use_liger_kernel=True)
    assert "; " in str(e.value)
    check(world, torch_compile=True, torch_compile_backend="eager")


def test_quantised_weights_without_adapters_are_refused():
    with pytest.raises(ConfigError, match="'nf4', but quantised weights cannot learn; set lora_r"):
        TrainConfig.parse({"ovis_pretrained_path": "base", "quantize_base": "nf4"}, where="test")


def test_a_float16_training_under_deepspeed_is_one_of_deepspeed_too(world):
    config = TrainConfig.parse(world.config(deepspeed=world.deepspeed(2), fp16=True), where="test")
    with process_group():
        settings = training_arguments(config, resume=world.resume).deepspeed
    assert settings["fp16"] == {"enabled": "auto"}


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_quantised_base_learns_through_its_adapters_and_its_tower_is_whole(world, kind):
    pytest.importorskip("bitsandbytes")
    settings = {"quantize_base": kind, "lora_r": 4, "bf16": True}
    with prepared_trainer(world.config(**settings, max_steps=2), world.data) as trainer:
        network = trainer.network
        layer = network.llm.model.layers[0].mlp.up_proj.base_layer
        assert not layer.weight.dtype.is_floating_point
        visual = (*network.visual_tokenizer.parameters(), *network.vte.parameters())
        assert all(one.dtype.is_floating_point for one in visual)
        trainer.train()
        assert trainer.state.log_history[0]["loss"] > 0
    report = run(world, **settings)
    assert report.execution["quantize_base"] == kind


@pytest.mark.gpu
def test_liger_kernels_learn_what_the_plain_code_learns(world):
    pytest.importorskip("liger_kernel")
    plain = run(world, bf16=True)
    liger = run(world, bf16=True, use_liger_kernel=True)
    assert liger.execution["liger"] == "rope, rms_norm, swiglu in the language model"
    assert liger.first_loss == pytest.approx(plain.first_loss, rel=1e-2)


@on_a_cpu
def test_a_training_refuses_what_it_cannot_do_before_it_looks_at_the_base_model(world, tmp_path):
    with pytest.raises(ConfigError, match=r"^train: fp16 needs a GPU"):
        run(world, fp16=True, ovis_pretrained_path=str(tmp_path / "no-model"))
