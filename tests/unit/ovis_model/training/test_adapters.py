"""Adapters: where they are, that they alone learn, and that merging them changes nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.flops import Learning
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.reports import sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints
from ovis_model.training.adapters import add_adapters, find_targets, with_base_weights
from ovis_model.training.optimizer_state import running_groups
from ovis_model.training.report import TrainReport
from ovis_model.training.train_modules import learning_rates, what_learns
from ovis_model.training.training import train
from tests.support.running_trainer import prepared_trainer
from tests.support.tiny_model import build_tokenizer, tiny_config
from tests.support.training_world import TrainingWorld, build_training_world

TOWER = "visual_tokenizer.vit.vision_model.encoder.layers"
LLM = {
    f"llm.model.layers.{number}.{name}_proj"
    for number in (0, 1)
    for name in (*(f"self_attn.{one}" for one in "qkvo"), "mlp.gate", "mlp.up", "mlp.down")
}
LAST_BLOCK = {
    *(f"{TOWER}.1.self_attn.{one}_proj" for one in ("q", "k", "v", "out")),
    *(f"{TOWER}.1.mlp.{one}" for one in ("fc1", "fc2")),
}
VIT = LAST_BLOCK | {name.replace("layers.1", "layers.0") for name in LAST_BLOCK}
HEAD = {"visual_tokenizer.head.0"}


def run(world: TrainingWorld, **overrides) -> TrainReport:
    config = TrainConfig.parse(world.config(**{"lora_r": 4, **overrides}), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def weights(folder: Path):
    return load_file(folder / "model.safetensors")


def config_of(**values) -> TrainConfig:
    settings = {"ovis_pretrained_path": "base", "lora_r": 4, "learning_rate": 1e-3, **values}
    return TrainConfig.parse(settings, where="test")


def tiny_model() -> Ovis2_5ForConditionalGeneration:
    return Ovis2_5ForConditionalGeneration(tiny_config(build_tokenizer()))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("lora_modules", "targets"),
    [
        ("llm", LLM),
        ("visual_tokenizer", VIT | HEAD),
        ("visual_tokenizer.vit", VIT),
        ("visual_tokenizer.vit.last_block", LAST_BLOCK),
        ("visual_tokenizer.head", HEAD),
        ("llm|visual_tokenizer.head", LLM | HEAD),
        ("all", LLM | VIT | HEAD),
    ],
)
def test_a_module_name_puts_adapters_on_exactly_its_linear_layers(lora_modules, targets):
    with torch.device("meta"):
        model = tiny_model()
    config = config_of(lora_modules=lora_modules)
    assert set(find_targets(model, config)) == targets
    before = {name for name, _ in model.named_parameters()}
    add_adapters(model, config)
    names = [name for name, _ in model.named_parameters()]
    added = {name for name in names if name.replace(".base_layer", "") not in before}
    assert added == {f"{name}.lora_{part}.default.weight" for name in targets for part in "AB"}
    assert learning_rates(names, config).keys() == added


def test_adapters_on_the_language_model_touch_no_tensor_of_the_tower(world):
    before = weights(world.base)
    report = run(world, weight_decay=0.1)
    moved = {
        name for name, tensor in weights(world.output).items() if not tensor.equal(before[name])
    }
    assert moved == {f"{name}.weight" for name in LLM}
    assert [(entry.module, entry.learning_rate) for entry in report.modules] == [
        ("llm adapters", 5e-3)
    ]
    assert report.trainable_parameters == report.modules[0].parameters == 4096
    assert report.parameters == sum(tensor.numel() for tensor in before.values()) + 4096


def rates_of(**values):
    model = tiny_model()
    config = config_of(**values)
    add_adapters(model, config)
    rates = learning_rates([name for name, _ in model.named_parameters()], config)
    return {
        (name.split(".lora_")[0] + " adapter" if ".lora_" in name else name): rate
        for name, rate in rates.items()
    }, what_learns(rates, num_blocks=2)


def test_other_modules_train_fully_beside_adapters_and_names_give_adapters_their_rate():
    rates, learning = rates_of(train_modules="llm:1e-4|visual_tokenizer.head|vte:1e-5")
    assert rates == {
        **{f"{name} adapter": 1e-4 for name in LLM},
        **{f"visual_tokenizer.head.{name}": 1e-3 for name in ("0.weight", "1.weight", "1.bias")},
        "vte.weight": 1e-5,
    }
    assert learning == Learning(weights=frozenset({"head", "vte"}), adapters=frozenset({"llm"}))


def test_all_is_all_adapters_and_the_most_specific_name_sets_their_rate():
    rates, learning = rates_of(
        lora_modules="llm|visual_tokenizer.vit",
        train_modules="all:2e-3|visual_tokenizer.vit.last_block:3e-3",
    )
    assert rates == {
        **{f"{name} adapter": 2e-3 for name in LLM | VIT},
        **{f"{name} adapter": 3e-3 for name in LAST_BLOCK},
    }
    assert learning.weights == frozenset()
    assert learning.adapters == {"llm", "vit"}


def test_a_freeze_flag_wins_over_adapters():
    rates, _ = rates_of(lora_modules="all", freeze_vision_tower=True)
    assert rates.keys() == {f"{name} adapter" for name in LLM | HEAD}
    with pytest.raises(ConfigError, match=r"lora_modules='llm', freeze_llm=True .* no layer"):
        find_targets(tiny_model(), config_of(freeze_llm=True))


@pytest.mark.parametrize(
    ("lora_modules", "message"),
    [
        ("lm", "lora_modules: unknown key 'lm'; did you mean 'llm'"),
        ("llm|llm", "lora_modules: 'llm' is named twice"),
        ("llm:1e-4", "'llm' has a rate; adapters get theirs from .* train_modules: llm:1e-4"),
        ("vte", "'vte' is a table, not a linear layer; name it in train_modules"),
    ],
)
def test_a_bad_entry_of_lora_modules_is_explained(lora_modules, message):
    with pytest.raises(ConfigError, match=message):
        find_targets(tiny_model(), config_of(lora_modules=lora_modules))


@pytest.mark.parametrize(
    "setting", [{"lora_alpha": 8}, {"lora_dropout": 0.1}, {"lora_variant": "dora"}]
)
def test_a_key_of_adapters_without_adapters_is_refused(setting):
    (key,) = setting
    with pytest.raises(ConfigError, match=f"{key} has no effect without adapters; set lora_r"):
        config_of(lora_r=0, **setting)


def inputs_of(trainer):
    batch = trainer.data_collator([trainer.train_dataset[index] for index in (0, 12, 16)])
    names = ("input_ids", "attention_mask", "pixel_values", "grid_thws")
    return {name: batch[name] for name in names}


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits


# PeftModel asks the model a question by a name that transformers has replaced.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "variant",
    [
        {"lora_variant": "lora", "lora_alpha": 16, "lora_dropout": 0.2},
        {"lora_variant": "rslora", "train_modules": "all|vte"},
        {"lora_variant": "dora"},
    ],
    ids=lambda settings: settings["lora_variant"],
)
def test_merged_weights_and_a_reloaded_adapter_give_the_logits_of_the_trained_model(
    world, variant
):
    settings = {"lora_modules": "all", "max_steps": 4, **variant}
    with prepared_trainer(world.config(lora_r=4, **settings), world.data) as trainer:
        trainer.train()
        inputs = inputs_of(trainer)
        expected = logits_of(trainer.network.eval(), inputs)
        scales = {
            layer.scaling["default"]
            for layer in trainer.network.modules()
            if isinstance(layer, LoraLayer)
        }
    run(world, **settings)  # the same training once more, and saved
    assert scales == {{"lora": 4.0, "rslora": 4.0, "dora": 2.0}[settings["lora_variant"]]}
    merged = logits_of(load_model(world.output), inputs)
    assert merged.allclose(expected, atol=1e-4)
    base = load_model(world.base)
    assert not logits_of(base, inputs).allclose(expected, atol=1e-2)
    if "train_modules" not in settings:  # what trained fully is in the merged weights alone
        adapted = PeftModel.from_pretrained(base, world.output / "adapter").eval()
        assert logits_of(adapted, inputs).allclose(expected, atol=1e-4)


def test_the_folder_has_the_official_layout_and_the_adapter_beside(world):
    run(world, max_steps=1)
    assert weights(world.output).keys() == weights(world.base).keys()
    adapter = load_file(world.output / "adapter" / "adapter_model.safetensors")
    assert adapter.keys() == {
        f"base_model.model.{name}.lora_{part}.weight" for name in LLM for part in "AB"
    }
    settings = json.loads((world.output / "adapter" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 8)
    assert settings["base_model_name_or_path"] == world.base.name
    listed = set(json.loads((world.output / "manifest.json").read_text())["files"])
    assert "adapter/adapter_model.safetensors" in listed


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_adapters_learn_the_same_at_every_zero_stage(world, stage):
    run(world, gradient_checkpointing=True)
    plain = weights(world.output)
    run(world, deepspeed=world.deepspeed(stage), gradient_checkpointing=True)
    staged = weights(world.output)
    for name, tensor in plain.items():
        assert tensor.allclose(staged[name], atol=1e-4), name


def test_adapters_of_a_16_bit_model_learn_in_16_bits_and_are_rounded_once(world):
    report = run(world, deepspeed=world.deepspeed(2), bf16=True, max_steps=30)
    assert report.final_loss < report.first_loss
    assert {str(tensor.dtype) for tensor in weights(world.output).values()} == {"torch.bfloat16"}


def test_the_running_optimizer_decays_matrices_of_adapters_and_no_magnitude(world):
    settings = world.config(lora_r=4, lora_variant="dora", weight_decay=0.1, max_steps=1)
    with prepared_trainer(settings, world.data) as trainer:
        trainer.train()
        found = running_groups(trainer)
    decays = {
        name.split(".lora_")[1].split(".")[0]: one.weight_decay for name, one in found.items()
    }
    assert decays == {"A": 0.1, "B": 0.1, "magnitude_vector": 0.0}


@pytest.mark.parametrize("stage", [None, 2, 3])
def test_an_interrupted_training_of_adapters_resumes_to_the_very_same_bytes(world, stage):
    deepspeed = None if stage is None else world.deepspeed(stage)
    settings = {"deepspeed": deepspeed, "save_steps": 8, "lora_dropout": 0.1}
    run(world, **settings)
    uninterrupted = sha256_of_folder(world.output)
    # A folder that must not be replaced stops the run after its last step.
    shutil.rmtree(world.output)
    world.output.mkdir()
    (world.output / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="files that are no checkpoint"):
        run(world, **settings)
    assert checkpoints.folder_of(world.resume, 8).is_dir()
    (world.output / "notes.txt").unlink()
    run(world, **settings)
    assert sha256_of_folder(world.output) == uninterrupted


def test_quantised_weights_give_way_to_those_of_the_base_before_merging(world):
    base = weights(world.base)
    adapter = {"llm.model.layers.0.mlp.up_proj.lora_A.default.weight": torch.ones(4, 32)}
    trained = {"vte.weight": base["vte.weight"] + 1}
    quantised = {
        "llm.model.layers.0.mlp.up_proj.base_layer.weight": torch.ones(1024, 1, dtype=torch.uint8),
        "llm.model.layers.0.mlp.up_proj.base_layer.weight.absmax": torch.ones(32),
    }
    kept = {"llm.model.embed_tokens.weight": base["llm.model.embed_tokens.weight"].bfloat16()}
    found = with_base_weights({**adapter, **trained, **quantised, **kept}, world.base)
    assert found.keys() == base.keys() | adapter.keys()
    assert found["vte.weight"].equal(trained["vte.weight"])
    name = "llm.model.layers.0.mlp.up_proj.weight"
    assert found[name].equal(base[name].bfloat16())
