import pytest
import torch
from torch import nn

from ovis_model.errors import ConfigError
from ovis_model.flops import Learning
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.train_config import TrainConfig
from ovis_model.training.train_modules import (
    MODULES,
    ModuleRate,
    count_parameters,
    freeze_others,
    learning_rates,
    optimizer_groups,
    parse_train_modules,
    rates_by_module,
    what_learns,
)
from tests.support.tiny_model import build_tokenizer, tiny_config

VIT = "visual_tokenizer.vit.vision_model."
NAMES = [
    "llm.model.embed_tokens.weight",
    "llm.model.norm.weight",
    f"{VIT}embeddings.patch_embedding.weight",
    f"{VIT}encoder.layers.0.mlp.fc1.weight",
    f"{VIT}encoder.layers.9.mlp.fc1.weight",
    f"{VIT}encoder.layers.10.mlp.fc1.weight",
    f"{VIT}post_layernorm.weight",
    "visual_tokenizer.head.0.weight",
    "vte.weight",
]


def config(**values):
    return TrainConfig.parse({"ovis_pretrained_path": "base", **values}, where="test")


def trained(**values):
    return [NAMES.index(name) for name in learning_rates(NAMES, config(**values))]


@pytest.mark.parametrize(
    ("train_modules", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 7, 8]),
        ("llm", [0, 1]),
        ("visual_tokenizer", [2, 3, 4, 5, 7]),
        ("visual_tokenizer.head", [7]),
        ("visual_tokenizer.vit", [2, 3, 4, 5]),
        ("visual_tokenizer.vit.last_block", [5]),
        ("vte", [8]),
        ("vte|llm", [0, 1, 8]),
    ],
)
def test_a_module_name_trains_exactly_its_parameters(train_modules, expected):
    assert trained(train_modules=train_modules) == expected


TOWER = "visual_tokenizer.vit.vision_model"
LAYER = [
    *(f"self_attn.{one}_proj.weight" for one in "qkvo"),
    *("self_attn.q_norm.weight", "self_attn.k_norm.weight"),
    *(f"mlp.{one}_proj.weight" for one in ("gate", "up", "down")),
    *("input_layernorm.weight", "post_attention_layernorm.weight"),
]
BLOCK = [
    f"{module}.{kind}"
    for module in (
        *("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"),
        *(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")),
    )
    for kind in ("weight", "bias")
]
#: The tensors of a released checkpoint's layout, for two layers and two blocks.
LLM = {
    *("llm.model.embed_tokens.weight", "llm.model.norm.weight", "llm.lm_head.weight"),
    *(f"llm.model.layers.{number}.{name}" for number in (0, 1) for name in LAYER),
}
LAST_BLOCK = {f"{TOWER}.encoder.layers.1.{name}" for name in BLOCK}
VIT_MODULE = LAST_BLOCK | {
    *(f"{TOWER}.encoder.layers.0.{name}" for name in BLOCK),
    *(f"{TOWER}.embeddings.patch_embedding.{kind}" for kind in ("weight", "bias")),
    f"{TOWER}.embeddings.position_embedding.weight",
}
HEAD = {f"visual_tokenizer.head.{name}" for name in ("0.weight", "1.weight", "1.bias")}
VTE = {"vte.weight"}
GOLDEN = {
    "all": LLM | VIT_MODULE | HEAD | VTE,
    "llm": LLM,
    "visual_tokenizer": VIT_MODULE | HEAD,
    "visual_tokenizer.head": HEAD,
    "visual_tokenizer.vit": VIT_MODULE,
    "visual_tokenizer.vit.last_block": LAST_BLOCK,
    "vte": VTE,
}


@pytest.mark.parametrize("train_modules", MODULES)
def test_a_module_name_trains_exactly_these_tensors_of_a_real_model(train_modules):
    with torch.device("meta"):
        model = Ovis2_5ForConditionalGeneration(tiny_config(build_tokenizer()))
    names = [name for name, _ in model.named_parameters()]
    rates = learning_rates(names, config(train_modules=train_modules))
    freeze_others(model, rates)
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    assert learning == rates.keys() == GOLDEN[train_modules]


def test_freeze_flags_win_over_train_modules():
    assert trained(freeze_llm=True) == [2, 3, 4, 5, 7, 8]
    assert trained(freeze_vision_tower=True) == [0, 1, 7, 8]
    assert trained(freeze_vision_tower=True, train_modules="visual_tokenizer") == [7]


def test_freezing_everything_is_an_error_that_names_the_settings():
    with pytest.raises(ConfigError, match=r"train_modules='llm', freeze_llm=True .* nothing"):
        trained(train_modules="llm", freeze_llm=True)


def test_the_most_specific_name_sets_the_rate():
    rates = learning_rates(
        NAMES,
        config(
            train_modules="all|visual_tokenizer:1e-3|visual_tokenizer.vit.last_block:5",
            learning_rate=1e-2,
        ),
    )
    assert [rates.get(name) for name in NAMES] == [
        *(1e-2, 1e-2, 1e-3, 1e-3, 1e-3),
        *(5.0, None, 1e-3, 1e-2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lm", "unknown key 'lm'; did you mean 'llm'"),
        ("llm|llm:1e-5", "'llm' is named twice"),
        ("llm:fast", "learning rate of 'llm' must be a number >= 0, got 'fast'"),
        ("llm:", "got ''"),
        ("llm:-1", "got '-1'"),
        ("llm:nan", "got 'nan'"),
        ("", "unknown key ''"),
    ],
)
def test_a_bad_entry_is_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_train_modules(text, learning_rate=1e-4)


def test_spaces_around_names_do_not_matter():
    assert parse_train_modules(" llm : 1e-5 | vte", learning_rate=1) == (
        ModuleRate("llm", 1e-5),
        ModuleRate("vte", 1),
    )


def small_model():
    return nn.ModuleDict({"llm": nn.Linear(3, 2), "vte": nn.Linear(2, 2, bias=False)})


def test_vectors_are_not_decayed_and_equal_rates_share_a_group():
    model = small_model()
    rates = {"llm.weight": 1e-3, "llm.bias": 1e-3, "vte.weight": 1e-3}
    groups = optimizer_groups(model, rates, weight_decay=0.1)
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups] == [
        (2, 1e-3, 0.1),
        (1, 1e-3, 0.0),
    ]
    torch.optim.AdamW(groups)


def test_parameters_without_a_rate_are_frozen_and_not_counted():
    model = small_model()
    freeze_others(model, {"vte.weight": 1e-3})
    assert count_parameters(model) == 12
    assert count_parameters(model, trainable_only=True) == 4
    assert rates_by_module(model, {"vte.weight": 1e-3}) == {("vte", 1e-3): 4}


@pytest.mark.parametrize(
    ("train_modules", "expected"),
    [
        ("all", Learning()),
        ("llm|vte", Learning(weights=frozenset({"llm", "vte"}))),
        ("visual_tokenizer", Learning(weights=frozenset({"vit", "head"}))),
        ("visual_tokenizer.head", Learning(weights=frozenset({"head"}))),
        (
            "visual_tokenizer.vit.last_block",
            Learning(weights=frozenset({"vit"}), vit_blocks=1),
        ),
    ],
)
def test_what_learns_is_told_to_the_counter_of_work(train_modules, expected):
    config = TrainConfig(ovis_pretrained_path="x", train_modules=train_modules)
    rates = learning_rates(NAMES, config)
    assert what_learns(rates, num_blocks=11) == expected
