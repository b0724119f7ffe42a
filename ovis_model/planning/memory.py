"""What one process holds at its peak, for a configuration, a model and a micro-batch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ovis_model.errors import CheckpointError
from ovis_model.flops import Learning
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.planning.activations import Circumstances, PaddedBatch, count_activations
from ovis_model.planning.report import MemoryItem, MemoryPlan, ModulePlan
from ovis_model.planning.states import Engine, count_states, place_states
from ovis_model.train_config import TrainConfig
from ovis_model.training.adapters import add_adapters
from ovis_model.training.train_modules import (
    MODULES,
    REPORTED,
    count_parameters,
    freeze_others,
    is_adapter,
    learning_rates,
    optimizer_groups,
    what_learns,
)

#: Of the process itself: Python and its libraries on a CPU, measured; CUDA's context and the
#: work spaces of its libraries on a GPU, a usual amount.
PROCESS_BYTES = {"cpu": 700_000_000, "cuda": 1_000_000_000}


@dataclass(frozen=True)
class Site:
    """Where and among how many a process trains.

    Attributes:
        processes: That train together.
        device: "cuda" or "cpu".
        cached_bytes: Of encoded samples that are kept in the host's memory.
    """

    processes: int
    device: str
    cached_bytes: int = 0


@dataclass(frozen=True)
class Outline:
    """A model without weights, and what of it learns under a configuration."""

    config: Ovis2_5Config
    modules: tuple[ModulePlan, ...]
    #: Numbers in each tensor that learns, by optimizer group.
    groups: tuple[tuple[int, ...], ...]
    parameters: int
    trainable: int
    learning: Learning
    #: Numbers in adapters, which no checkpoint of the base holds.
    added: int = 0

    @classmethod
    def of(cls, model_config: Ovis2_5Config, config: TrainConfig) -> "Outline":
        """Build the model on the meta device and freeze what does not learn.

        Raises:
            ConfigError: For a bad `train_modules`, or when nothing would learn.
        """
        with torch.device("meta"):
            model = Ovis2_5ForConditionalGeneration(model_config)
            if config.lora_r:
                add_adapters(model, config)
        rates = learning_rates([name for name, _ in model.named_parameters()], config)
        freeze_others(model, rates)
        groups = optimizer_groups(model, rates, weight_decay=config.weight_decay)
        return cls(
            config=model_config,
            modules=tuple(_describe(model, name, rates) for name in REPORTED),
            groups=tuple(tuple(one.numel() for one in group["params"]) for group in groups),
            parameters=count_parameters(model),
            trainable=count_parameters(model, trainable_only=True),
            learning=what_learns(rates, num_blocks=model_config.vit.num_hidden_layers),
            added=sum(one.numel() for name, one in model.named_parameters() if is_adapter(name)),
        )


def _describe(model: Any, module: str, rates: dict[str, float]) -> ModulePlan:
    own = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.startswith(MODULES[module])
    }
    return ModulePlan(
        module=module,
        parameters=sum(one.numel() for one in own.values()),
        trainable=sum(one.numel() for one in own.values() if one.requires_grad),
        learning_rates=sorted({rates[name] for name in own if name in rates}),
    )


def read_model_config(base: Path) -> Ovis2_5Config:
    """Read config.json of a checkpoint folder.

    Raises:
        CheckpointError: If there is none.
        ConfigError: If it is not of an Ovis2.5.
    """
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{base} has no config.json; train.ovis_pretrained_path must be the folder of a local "
            "Ovis2.5 checkpoint"
        )
    config: Ovis2_5Config = Ovis2_5Config.from_pretrained(str(base), local_files_only=True)
    return config


def plan_memory(
    config: TrainConfig,
    outline: Outline,
    batch: PaddedBatch,
    site: Site,
) -> MemoryPlan:
    """Plan the memory of one process.

    Args:
        config: The train section.
        outline: Of the model under the same configuration.
        batch: The micro-batch that memory must be there for.
        site: Where it is.

    Raises:
        ConfigError: If the DeepSpeed file cannot be used.
    """
    hidden: int = outline.config.llm.hidden_size
    engine = Engine.of(config, hidden_size=hidden, processes=site.processes)
    on_cpu = site.device == "cpu"
    frozen = outline.parameters - outline.trainable
    states = count_states(outline.groups, frozen, engine, on_cpu=on_cpu)
    under = Circumstances(
        engine=engine,
        learning=outline.learning,
        checkpointed=config.checkpointed_parts,
        device=site.device,
        eager=config.attn_implementation == "eager",
    )
    activations = count_activations(outline.config, batch, under)
    placed = place_states(states, engine)
    held = {item.name: item.device_bytes for item in placed}
    copies = 2 * outline.parameters if engine.autocast else 0
    kept = sum(held.values()) - held["gradients"] + PROCESS_BYTES[site.device]
    step = 0 if engine.offload_optimizer else states.step
    items = [*placed, *activations.items()]
    if copies:
        items.append(MemoryItem(name="autocast", device_bytes=copies, note="16-bit weights"))
    if step:
        items.append(
            MemoryItem(name="optimizer step", device_bytes=step, note="when activations are gone")
        )
    items.append(MemoryItem(name="process", device_bytes=PROCESS_BYTES[site.device]))
    if site.cached_bytes:
        items.append(MemoryItem(name="samples", device_bytes=0, host_bytes=site.cached_bytes))
    peak = kept + _most_at_a_time(
        held["gradients"], activations.peak + copies, step, keeps_gradients=engine.keeps_gradients
    )
    host = sum(item.host_bytes for item in items)
    if on_cpu:  # one memory
        items = [_on_one_memory(item) for item in items]
        peak, host = peak + host, 0
    return MemoryPlan(items=items, peak_device_bytes=peak, host_bytes=host)


def _most_at_a_time(gradients: int, activations: int, step: int, *, keeps_gradients: bool) -> int:
    """Combine what comes and goes.

    Without accumulation gradients appear while activations disappear, so the larger of them
    counts.
    """
    backward = activations + gradients if keeps_gradients else max(activations, gradients)
    return max(backward, gradients + step)


def _on_one_memory(item: MemoryItem) -> MemoryItem:
    return item.model_copy(
        update={"device_bytes": item.device_bytes + item.host_bytes, "host_bytes": 0}
    )
