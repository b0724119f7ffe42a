"""Configurations of the released models, and choices of what learns.

released("2b")                        a configuration, without weights
learn(model, LEARNING["last block"])  lets exactly that learn
"""

from ovis_model.flops import Learning
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration

LEARNING = {
    "all": Learning(),
    "language model": Learning(weights=frozenset({"llm"})),
    "vision tower": Learning(weights=frozenset({"vit"})),
    "last block": Learning(weights=frozenset({"vit"}), vit_blocks=1),
    "head": Learning(weights=frozenset({"head"})),
    "visual embeddings": Learning(weights=frozenset({"vte"})),
    "head and language model": Learning(weights=frozenset({"head", "llm"})),
}


def learn(model: Ovis2_5ForConditionalGeneration, learning: Learning) -> None:
    """Let exactly these parts require gradients."""
    prefixes = {
        "vit": "visual_tokenizer.vit.",
        "head": "visual_tokenizer.head.",
        "vte": "vte.",
        "llm": "llm.",
    }
    wanted = [prefixes[part] for part in learning.weights]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(wanted)))
    if learning.vit_blocks is not None:
        first = model.config.vit.num_hidden_layers - learning.vit_blocks
        for name, parameter in model.named_parameters():
            if name.startswith(prefixes["vit"]) and f"layers.{first}." not in name:
                parameter.requires_grad_(False)


def released(size: str) -> Ovis2_5Config:
    """The released configurations, as far as they decide about work."""
    small = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
    llm = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36}
    heads = {"2b": 16, "9b": 32}
    llm = small if size == "2b" else llm
    llm |= {"num_attention_heads": heads[size], "num_key_value_heads": 8, "head_dim": 128}
    return Ovis2_5Config(llm_config={**llm, "vocab_size": 151936})
