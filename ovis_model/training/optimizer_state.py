"""What the running optimizer does with each parameter: read back from it, not from settings.

DeepSpeed puts flat pieces of its own in the place of the parameters, one or several per group.
The order of the groups stays, and each of its optimizers remembers which parameters it took:

    plain, DDP, ZeRO-0 in float32   the optimizer's groups hold the parameters themselves
    ZeRO-0 in 16 bits               `fp16_groups`, one list per group
    ZeRO-1, ZeRO-2                  `bit16_groups`, likewise; `bf16_groups` where that is its name
    ZeRO-3                          `fp16_groups`, of which `sub_group_to_group_id` tells the group

Read off DeepSpeed 0.19.8.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ovis_model.errors import TrainingError
from ovis_model.training.trainer import OvisTrainer

#: Where DeepSpeed's optimizers remember the parameters of their groups.
REMEMBERED = ("bit16_groups", "bf16_groups", "fp16_groups")


@dataclass(frozen=True)
class RunningParameter:
    """How one parameter is trained at this moment.

    Attributes:
        group: Number of its group in the optimizer.
        learning_rate: Now.
        peak_learning_rate: Before warm-up and decay; equal to the one above without a schedule.
        weight_decay: Of AdamW and its like.
    """

    group: int
    learning_rate: float
    peak_learning_rate: float
    weight_decay: float


def running_groups(trainer: OvisTrainer) -> dict[str, RunningParameter]:
    """Read the live optimizer; works under DDP and at every ZeRO stage.

    Args:
        trainer: Whose training has begun.

    Returns:
        One entry per parameter that learns, by the model's name for it and in its order.

    Raises:
        TrainingError: If training has not begun, so that there is no optimizer yet, or if a
            parameter requires gradients and no group has it: it would stay as it is in silence.
    """
    optimizer: Any = trainer.optimizer
    if optimizer is None:
        raise TrainingError("there is no optimizer to read before training has begun")
    while not _remembers(optimizer) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer  # accelerate's wrapper
    found = {
        id(parameter): _describe(number, group)
        for number, group, parameters in _groups(optimizer)
        for parameter in parameters
    }
    wanted = [
        (name, id(parameter))
        for name, parameter in trainer.network.named_parameters()
        if parameter.requires_grad
    ]
    lost = [name for name, key in wanted if key not in found]
    if lost:
        raise TrainingError(
            f"{len(lost)} parameter(s) should learn but are in no group of the running "
            f"optimizer, {lost[0]} among them"
        )
    return {name: found[key] for name, key in wanted}


def _remembers(optimizer: Any) -> bool:
    return any(hasattr(optimizer, name) for name in REMEMBERED)


def _groups(optimizer: Any) -> Iterator[tuple[int, Mapping[str, Any], list[nn.Parameter]]]:
    """Yield each group's number, its settings, and parameters of it."""
    settings = optimizer.param_groups
    remembered = next((name for name in REMEMBERED if hasattr(optimizer, name)), None)
    if remembered is None:
        yield from ((i, group, group["params"]) for i, group in enumerate(settings))
        return
    pieces = getattr(optimizer, remembered)
    number_of = getattr(optimizer, "sub_group_to_group_id", range(len(pieces)))
    for piece, parameters in enumerate(pieces):
        number = number_of[piece]
        yield number, settings[number], parameters


def _describe(number: int, group: Mapping[str, Any]) -> RunningParameter:
    rate = float(group["lr"])
    return RunningParameter(
        group=number,
        learning_rate=rate,
        peak_learning_rate=float(group.get("initial_lr", rate)),
        weight_decay=float(group.get("weight_decay", 0.0)),
    )
