"""Which parameters learn, and at which rate.

`train_modules` is `all`, or names joined by `|`, each with an optional learning rate:
`llm:1e-5|vte|visual_tokenizer.head:1e-4`.  The most specific name decides about a parameter,
and a freeze flag beats every name.

With adapters (`lora_r`) the weights of the modules in `lora_modules` stay as they are: a name in
`train_modules` then gives their adapters a rate, trains other modules fully beside them, and `all`
means all adapters.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ovis_model.config import unknown_key
from ovis_model.errors import ConfigError
from ovis_model.flops import Learning, Part
from ovis_model.train_config import TrainConfig

LAST_BLOCK = "visual_tokenizer.vit.last_block"
#: Name in `train_modules` to the prefix its parameters share.
MODULES: dict[str, str] = {
    "all": "",
    "llm": "llm.",
    "visual_tokenizer": "visual_tokenizer.",
    "visual_tokenizer.head": "visual_tokenizer.head.",
    "visual_tokenizer.vit": "visual_tokenizer.vit.",
    LAST_BLOCK: "visual_tokenizer.vit.vision_model.encoder.layers.{last}.",
    "vte": "vte.",
}
#: The modules a report tells apart: they share no parameter and cover the model.
REPORTED = ("llm", "visual_tokenizer.vit", "visual_tokenizer.head", "vte")
BLOCKS = "visual_tokenizer.vit.vision_model.encoder.layers."
#: Stored in every checkpoint and skipped by the forward pass: it never gets a gradient.
NEVER_TRAINED = "visual_tokenizer.vit.vision_model.post_layernorm."
#: Part of the name of every parameter that PEFT adds.
ADAPTER_MARK = ".lora_"


@dataclass(frozen=True)
class ModuleRate:
    """One entry of `train_modules`."""

    name: str
    learning_rate: float


def parse_train_modules(text: str, *, learning_rate: float) -> tuple[ModuleRate, ...]:
    """Read the `train_modules` setting.

    Args:
        text: The setting, e.g. `llm:1e-5|vte`.
        learning_rate: Rate of the entries that name none.

    Raises:
        ConfigError: For an unknown or repeated name, or a rate that is no number >= 0.

    Example:
        >>> parse_train_modules("llm:1e-5|vte", learning_rate=2e-4)
        (ModuleRate(name='llm', learning_rate=1e-05), ModuleRate(name='vte', learning_rate=0.0002))
    """
    return tuple(
        ModuleRate(name, learning_rate if rate is None else _parse_rate(name, rate))
        for name, rate in _parse_names(text, key="train_modules").items()
    )


def _parse_names(text: str, *, key: str) -> dict[str, str | None]:
    """Read names joined by `|` and what follows the colon of each, None without one."""
    entries: dict[str, str | None] = {}
    for part in text.split("|"):
        name, colon, rate = (piece.strip() for piece in part.partition(":"))
        if name not in MODULES:
            raise ConfigError(f"{key}: {unknown_key(name, MODULES)}")
        if name in entries:
            raise ConfigError(f"{key}: {name!r} is named twice in {text!r}")
        entries[name] = rate if colon else None
    return entries


def _parse_rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise ConfigError(
            f"train_modules: the learning rate of {name!r} must be a number >= 0, got {text!r}; "
            f"write it as {name}:1e-5"
        )
    return rate


def adapted_prefixes(names: Iterable[str], config: TrainConfig) -> tuple[str, ...]:
    """Return the prefixes of the modules that hold adapters; none without `lora_r`.

    Args:
        names: All parameter names of the model.
        config: `lora_r` and `lora_modules`.

    Raises:
        ConfigError: For a name that is unknown, repeated, has a rate, or cannot hold an adapter.
    """
    if not config.lora_r:
        return ()
    chosen = _parse_names(config.lora_modules, key="lora_modules")
    for name, rate in chosen.items():
        if rate is not None:
            raise ConfigError(
                f"lora_modules: {name!r} has a rate; adapters get theirs from learning_rate, or "
                f"from train_modules: {name}:{rate}"
            )
        if name == "vte":
            raise ConfigError(
                "lora_modules: 'vte' is a table, not a linear layer; name it in train_modules to "
                "train it fully beside the adapters"
            )
    last = _last_block(names)
    return tuple(MODULES[name].format(last=last) for name in chosen)


def is_adapter(name: str) -> bool:
    """Say whether a parameter was added by PEFT."""
    return ADAPTER_MARK in name


def learning_rates(names: Iterable[str], config: TrainConfig) -> dict[str, float]:
    """Give each parameter that learns its rate; the others are left out.

    Args:
        names: All parameter names of the model, those of adapters included.
        config: `train_modules`, `learning_rate`, `lora_modules` and the freeze flags.

    Raises:
        ConfigError: For a bad `train_modules`, or when nothing would learn.
    """
    names = list(names)
    chosen = parse_train_modules(config.train_modules, learning_rate=config.learning_rate)
    last = _last_block(names)
    # The longest prefix is the most specific name, so it is asked first.
    rules = sorted(
        ((MODULES[entry.name].format(last=last), entry.learning_rate) for entry in chosen),
        key=lambda rule: -len(rule[0]),
    )
    adapted, frozen = adapted_prefixes(names, config), frozen_prefixes(config)
    of_adapters = [*rules, ("", config.learning_rate)]
    of_weights = [rule for rule in rules if rule[0] or not adapted]
    rates: dict[str, float] = {}
    for name in names:
        is_added = is_adapter(name)
        stays = name.startswith(frozen) or (name.startswith(adapted) and not is_added)
        applying = () if stays else of_adapters if is_added else of_weights
        rate = next((rate for prefix, rate in applying if name.startswith(prefix)), None)
        if rate is not None:
            rates[name] = rate
    if not rates:
        raise ConfigError(
            f"train_modules={config.train_modules!r}, freeze_llm={config.freeze_llm} and "
            f"freeze_vision_tower={config.freeze_vision_tower} together leave nothing to train; "
            "a freeze flag wins over train_modules"
        )
    return rates


def frozen_prefixes(config: TrainConfig) -> tuple[str, ...]:
    """Return the prefixes of what does not learn, whatever the other keys say."""
    prefixes = [NEVER_TRAINED]
    if config.freeze_llm:
        prefixes.append(MODULES["llm"])
    if config.freeze_vision_tower:
        prefixes.append(MODULES["visual_tokenizer.vit"])
    return tuple(prefixes)


def _last_block(names: Iterable[str]) -> int:
    blocks = [int(name[len(BLOCKS) :].split(".")[0]) for name in names if name.startswith(BLOCKS)]
    return max(blocks, default=0)


def freeze_others(model: nn.Module, rates: Mapping[str, float]) -> None:
    """Let exactly the parameters in `rates` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in rates)


def what_learns(rates: Mapping[str, float], *, num_blocks: int) -> Learning:
    """Say which parts learn, for counting their work.

    Args:
        rates: Learning rate of each parameter that learns, by name.
        num_blocks: Of the vision tower.
    """
    prefixes: dict[Part, str] = {
        "vit": MODULES["visual_tokenizer.vit"],
        "head": MODULES["visual_tokenizer.head"],
        "vte": MODULES["vte"],
        "llm": MODULES["llm"],
    }
    tower = [name for name in rates if name.startswith(prefixes["vit"])]
    first = min((_block_number(name) for name in tower), default=0)
    own = [name for name in rates if not is_adapter(name)]
    added = [name for name in rates if is_adapter(name)]

    def parts_of(names: list[str]) -> frozenset[Part]:
        found = (p for p, prefix in prefixes.items() if any(n.startswith(prefix) for n in names))
        return frozenset(found)

    return Learning(
        weights=parts_of(own),
        adapters=parts_of(added),
        vit_blocks=None if first < 0 or not tower else num_blocks - first,
    )


def _block_number(name: str) -> int:
    """Return the number of a tower parameter's block, -1 for what comes before all blocks."""
    return int(name[len(BLOCKS) :].split(".", maxsplit=1)[0]) if name.startswith(BLOCKS) else -1


def optimizer_groups(
    model: nn.Module, rates: Mapping[str, float], *, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the parameters that learn by rate and weight decay, for a torch optimizer.

    Vectors (norms, biases) are never decayed: decay would pull their scale to zero.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in rates:
            decay = weight_decay if len(full_shape(parameter)) > 1 else 0.0
            groups.setdefault((rates[name], decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rates_by_module(model: nn.Module, rates: Mapping[str, float]) -> dict[tuple[str, float], int]:
    """Count the trained scalars by top-level module and rate, in the model's order."""
    counts: dict[tuple[str, float], int] = {}
    for name, parameter in model.named_parameters():
        if name in rates:
            key = (module_of(name), rates[name])
            counts[key] = counts.get(key, 0) + math.prod(full_shape(parameter))
    return counts


def module_of(name: str) -> str:
    """Return the reported module that a parameter is of, and whether of its adapters."""
    module = next((label for label in REPORTED if name.startswith(MODULES[label])), "other")
    return f"{module} adapters" if is_adapter(name) else module


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return a parameter's shape even while ZeRO-3 holds it in pieces."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Count scalar parameters, each once even when tied."""
    return sum(
        math.prod(full_shape(parameter))
        for parameter in model.parameters()
        if parameter.requires_grad or not trainable_only
    )
