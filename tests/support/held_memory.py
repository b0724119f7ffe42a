"""What a running engine holds, and how far a training's memory rises: to compare plans with.

    look_while_training(config, data)                          in this process
    python -m tests.support.held_memory JOB.json OUT           in one of its own, or in several

JOB.json holds "config" and "data"; each process writes OUT.<rank>.json.  A training here ends
after two steps; what is held is looked at between the micro-batches of the second.
"""

import ctypes
import gc
import json
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from tests.support.running_trainer import about_to_prepare

SUBSTEPS_BEFORE = 2


def bytes_of(tensors: Iterable[Tensor | None]) -> int:
    """Sum the memory behind tensors, shared memory once."""
    storages = {}
    for tensor in tensors:
        if tensor is not None:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


class Look(TrainerCallback):
    """Measures once, where gradients are there and the optimizer has made a step."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.num_substeps = 0
        self.held: dict[str, int] = {}

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.num_substeps += 1
        if self.num_substeps == SUBSTEPS_BEFORE:
            self.held = held_by(self.trainer)


def held_by(trainer: Any) -> dict[str, int]:
    """Measure weights, gradients, float32 masters and optimizer states of one process."""
    parameters = list(trainer.network.parameters())
    # Under ZeRO-3 a parameter is gathered now and then; its own part is what stays.
    weights = [getattr(one, "ds_tensor", one) for one in parameters]
    engine = trainer.model_wrapped
    outer = getattr(engine, "optimizer", None) or trainer.optimizer
    inner = outer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    masters = getattr(outer, "fp32_partitioned_groups_flat", None)  # ZeRO-3
    if masters is None:
        optimized = [one for group in inner.param_groups for one in group["params"]]
        own = {one.data_ptr() for one in parameters}
        masters = [one for one in optimized if one.data_ptr() not in own]
    moments = [
        value
        for state in inner.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    return {
        "weights": bytes_of(weights),
        "gradients": bytes_of([*(one.grad for one in parameters), *partitions_of(outer)]),
        "masters": bytes_of(masters),
        "moments": bytes_of(moments),
    }


def partitions_of(optimizer: Any) -> list[Tensor]:
    """Return the gradients that ZeRO-2 and ZeRO-3 keep apart from the parameters."""
    found = []
    for name in ("averaged_gradients", "all_grad_tensors"):
        for tensors in (getattr(optimizer, name, None) or {}).values():
            found.extend(tensors or [])
    return found


def look_while_training(config: dict[str, Any], data: Path) -> dict[str, int]:
    """Train for two steps and return what was held, and how far memory rose meanwhile."""
    with about_to_prepare({**config, "max_steps": 2}, data) as prepare:
        before = resident_bytes("VmRSS")
        trainer = prepare()
        look = Look(trainer)
        trainer.add_callback(look)
        # What loading needed for a moment is given back, and not counted.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        trainer.train()
        risen = resident_bytes("VmHWM") - before
    held = look.held
    del trainer, look
    gc.collect()
    return {**held, "risen": risen}


def resident_bytes(name: str) -> int:
    """Read a line of this process's status: VmRSS now, VmHWM at most since it was reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = look_while_training(job["config"], Path(job["data"]))
    rank = os.environ.get("RANK", "0")
    Path(f"{sys.argv[2]}.{rank}.json").write_text(json.dumps(found), encoding="utf-8")
