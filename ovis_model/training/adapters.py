"""Low-rank adapters (LoRA, rsLoRA, DoRA) on the linear layers of chosen modules, through PEFT.

The weights of such a layer stay as they are and a product of two thin matrices learns beside
them.  A finished training adds the product to the weights, so that its folder has the official
layout; the adapters alone lie in its sub-folder `adapter`, as PEFT writes and reads them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ovis_model.errors import ConfigError
from ovis_model.modeling.loss import LanguageModelHead
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.strict_loading import EMBEDDINGS
from ovis_model.modeling.weight_files import StoredTensor, find_tensors
from ovis_model.train_config import TrainConfig
from ovis_model.training.train_modules import (
    ADAPTER_MARK,
    adapted_prefixes,
    frozen_prefixes,
    is_adapter,
)

if TYPE_CHECKING:
    from peft import LoraConfig

FOLDER = "adapter"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: What PEFT calls an adapter when nobody gives it a name; part of parameter names.
ADAPTER = "default"
#: Where PEFT puts the layer that an adapter stands beside.
BASE_LAYER = ".base_layer."
#: Every parameter of a model that PEFT has wrapped begins so, and its files say it.
WRAPPED = "base_model.model."


def find_targets(model: nn.Module, config: TrainConfig) -> list[str]:
    """Name the linear layers that get an adapter.

    The language model's head and the tables are none of them: `train_modules` trains those.

    Args:
        model: Without adapters.
        config: `lora_modules` and the freeze flags.

    Raises:
        ConfigError: For a bad `lora_modules`, or if no layer is left.
    """
    names = [name for name, _ in model.named_parameters()]
    prefixes, frozen = adapted_prefixes(names, config), frozen_prefixes(config)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, LanguageModelHead)
        and name.startswith(prefixes)
        and not name.startswith(frozen)
    ]
    if not targets:
        raise ConfigError(
            f"lora_modules={config.lora_modules!r}, freeze_llm={config.freeze_llm} and "
            f"freeze_vision_tower={config.freeze_vision_tower} together leave no layer for an "
            "adapter; a freeze flag wins over lora_modules"
        )
    return targets


def add_adapters(model: Ovis2_5ForConditionalGeneration, config: TrainConfig) -> None:
    """Put an adapter beside every chosen layer; at first it changes nothing.

    Their random numbers follow from the seed alone, on every process alike.

    Args:
        model: Changed in place.
        config: The LoRA keys, the freeze flags and the seed.

    Raises:
        ConfigError: As `find_targets` does.
    """
    # Imported here: it takes seconds, which a training without adapters need not wait.
    from peft import inject_adapter_in_model  # noqa: PLC0415

    settings = _settings(find_targets(model, config), config)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    dtype = model.vte.weight.dtype  # PEFT makes adapters of 16-bit weights in float32
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    if config.quantize_base != "none":  # pragma: no cover - gpu
        # What transformers asks for before it trains a quantised model.
        model._hf_peft_config_loaded = True


def _settings(targets: list[str], config: TrainConfig) -> "LoraConfig":
    from peft import LoraConfig  # noqa: PLC0415

    alpha: Any = 2 * config.lora_r if config.lora_alpha is None else config.lora_alpha
    return LoraConfig(
        r=config.lora_r,
        lora_alpha=alpha,  # PEFT takes fractions, too, whatever its annotation says
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        use_rslora=config.lora_variant == "rslora",
        use_dora=config.lora_variant == "dora",
    )


def with_base_weights(state: Mapping[str, Tensor], base: Path) -> dict[str, Tensor]:
    """Put the base checkpoint's weights in the place of quantised ones.

    Adapters are then merged into the weights that were never rounded to a few bits.

    Args:
        state: Gathered weights of a model with adapters, parts of it quantised.
        base: The checkpoint it was loaded from.

    Returns:
        Adapters, and every tensor of the base: as trained where it has floating point numbers.
    """
    whole = {
        name.replace(BASE_LAYER, "."): tensor
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }
    result = {name: tensor for name, tensor in whole.items() if is_adapter(name)}
    dtype = whole[EMBEDDINGS].dtype
    for name, stored in find_tensors(base).items():
        result[name] = whole[name] if name in whole else _read(stored).to(dtype)
    return result


def _read(stored: StoredTensor) -> Tensor:
    with safe_open(stored.file, "pt") as file:
        tensor: Tensor = file.get_tensor(stored.name)
    return tensor


def merge_adapters(state: Mapping[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """Add every adapter to the weights it stands beside.

    Layer by layer, in float32, rounded once: whole models need no second place in memory.

    Args:
        state: Gathered weights of a model with adapters.
        config: The LoRA keys.

    Returns:
        Weights under the official names, in the precision they had.
    """
    merged = {}
    adapters: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        if is_adapter(name):
            layer, part = name.split(ADAPTER_MARK)
            adapters[layer]["lora_" + part] = tensor
        else:
            merged[name.replace(BASE_LAYER, ".")] = tensor
    for layer, parts in adapters.items():
        name = f"{layer}.weight"
        merged[name] = _merge_layer(merged[name], parts, config)
    return merged


@torch.no_grad()
def _merge_layer(weight: Tensor, parts: Mapping[str, Tensor], config: TrainConfig) -> Tensor:
    from peft import inject_adapter_in_model  # noqa: PLC0415

    rows, columns = weight.shape
    # On the meta device nothing is filled with random numbers first.
    with torch.device("meta"):
        holder: Any = nn.ModuleDict({"layer": nn.Linear(columns, rows, bias=False)})
    holder["layer"].weight = nn.Parameter(weight.float(), requires_grad=False)
    inject_adapter_in_model(_settings(["layer"], config), holder, adapter_name=ADAPTER)
    own = {f"layer.{name}": tensor.float() for name, tensor in parts.items()}
    unknown = holder.load_state_dict(own, strict=False).unexpected_keys
    assert not unknown  # both come from the same version of PEFT
    holder["layer"].merge(safe_merge=True)
    result: Tensor = holder["layer"].get_base_layer().weight
    return result.detach().to(weight.dtype)


def write_adapters(
    model: Ovis2_5ForConditionalGeneration,
    state: Mapping[str, Tensor],
    folder: Path,
    *,
    base: str,
) -> None:
    """Write the adapters alone, for `peft.PeftModel.from_pretrained`.

    Args:
        model: With adapters.
        state: Its gathered weights.
        folder: To be made.
        base: What they belong to, for whoever reads the folder.
    """
    from peft import get_peft_model_state_dict  # noqa: PLC0415

    own = {name: tensor for name, tensor in state.items() if is_adapter(name)}
    weights = get_peft_model_state_dict(
        model, state_dict=own, adapter_name=ADAPTER, save_embedding_layers=False
    )
    folder.mkdir(parents=True)
    save_file(
        {f"{WRAPPED}{name}": tensor.contiguous() for name, tensor in weights.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    described: Any = model.peft_config
    settings = described[ADAPTER].to_dict()
    settings |= {"base_model_name_or_path": base, "inference_mode": True}
    settings["target_modules"] = sorted(settings["target_modules"])
    text = json.dumps(settings, indent=2, sort_keys=True, default=list)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
