"""What an engine holds between two batches: weights, gradients, optimizer states, buffers.

    P   parameters               T   those of them that learn
    N   processes                w   bytes of a weight: 2 in bfloat16 under DeepSpeed, else 4

                    weights   gradients     float32 masters   Adam's two moments
    no DeepSpeed    4 P       4 T           -                 8 T
    ZeRO 0          w P       w T           4 T if w is 2     8 T
    ZeRO 1          w P       w T           4 T / N           8 T / N
    ZeRO 2          w P       w T / N       4 T / N           8 T / N
    ZeRO 3          w P / N   w T / N       4 T / N           8 T / N

ZeRO 1 to 3 keep float32 masters even of float32 weights.  Read off the engines of DeepSpeed
0.19.8 while they ran; tests compare the sums byte for byte.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from ovis_model.planning.report import MemoryItem
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import deepspeed_config, optimizer_state_bytes

#: DeepSpeed's defaults, in numbers.
REDUCE_BUCKET, MAX_LIVE, SUB_GROUP = 500_000_000, 1_000_000_000, 1_000_000_000
ADAM = ("adamw_torch", "adamw_torch_fused", "adamw_apex_fused")
#: Adam's count of steps: one float32 for every tensor that the optimizer sees.
STEP_BYTES = 4


@dataclass(frozen=True)
class Engine:
    """How a training holds its model.

    Attributes:
        processes: That share the work.
        stage: Of ZeRO; None without DeepSpeed.
        weight_bytes: Of one weight.
        autocast: Whether products are computed in 16 bits from weights of 32.
        optimizer: As transformers names it.
        accumulates: Whether a step has several micro-batches.
        offload_optimizer, offload_params: Whether DeepSpeed keeps them in the host's memory.
        bucket: Numbers in one buffer for reducing gradients.
        buckets: How many such buffers there are.
        max_live: Numbers that ZeRO-3 gathers at a time, at most.
    """

    processes: int = 1
    stage: int | None = None
    weight_bytes: int = 4
    autocast: bool = False
    optimizer: str = "adamw_torch_fused"
    accumulates: bool = False
    offload_optimizer: bool = False
    offload_params: bool = False
    bucket: int = 0
    buckets: int = 0
    max_live: int = MAX_LIVE

    @classmethod
    def of(cls, config: TrainConfig, *, hidden_size: int, processes: int) -> Self:
        """Read a configuration.

        Args:
            config: The train section.
            hidden_size: Of the language model, from which "auto" bucket sizes follow.
            processes: That train together, on all machines.

        Raises:
            ConfigError: If the DeepSpeed file cannot be used.
        """
        extra = config.training_arguments
        half = config.bf16 or bool(extra.get("fp16"))
        settings = deepspeed_config(config.deepspeed)
        plain = cls(
            processes=processes,
            autocast=half,
            optimizer=str(extra.get("optim", cls.optimizer)),
            accumulates=config.gradient_accumulation_steps > 1,
        )
        if settings is None:
            return plain
        zero = settings["zero_optimization"]
        stage = int(zero.get("stage", 0))
        # DeepSpeed's own defaults: contiguous buffers always, overlap at stage 3 only, where
        # there is one buffer all the same.
        contiguous = stage > 0 and zero.get("contiguous_gradients", True)
        overlaps = stage < 3 and bool(zero.get("overlap_comm"))
        return replace(
            plain,
            stage=stage,
            weight_bytes=2 if half else 4,
            autocast=False,
            offload_optimizer=stage > 0 and _is_on_cpu(zero, "offload_optimizer"),
            offload_params=stage == 3 and _is_on_cpu(zero, "offload_param"),
            bucket=_number(zero, "reduce_bucket_size", REDUCE_BUCKET, auto=hidden_size**2),
            buckets=(1 + overlaps) if contiguous else 0,
            max_live=_number(zero, "stage3_max_live_parameters", MAX_LIVE, auto=MAX_LIVE),
        )

    @property
    def name(self) -> str:
        """For people."""
        if self.stage is None:
            return "plain" if self.processes == 1 else "distributed data parallel"
        moved = [
            name
            for name, is_moved in (
                ("optimizer", self.offload_optimizer),
                ("parameters", self.offload_params),
            )
            if is_moved
        ]
        return f"DeepSpeed ZeRO-{self.stage}" + (
            f", {' and '.join(moved)} in host memory" if moved else ""
        )

    @property
    def precision(self) -> str:
        """For people."""
        if self.autocast:
            return "16 bits by autocast, weights in float32"
        return "16 bits" if self.weight_bytes == 2 else "float32"

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state per number."""
        return optimizer_state_bytes(self.optimizer)

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients are there before the backward pass begins."""
        return self.accumulates or self.stage == 3


def _is_on_cpu(zero: dict[str, Any], key: str) -> bool:
    return (zero.get(key) or {}).get("device", "none") in ("cpu", "nvme")


def _number(zero: dict[str, Any], key: str, default: int, *, auto: int) -> int:
    value = zero.get(key, default)
    return auto if value == "auto" else int(value)


@dataclass(frozen=True)
class States:
    """What stays, in bytes per process.

    Attributes:
        weights, gradients, masters, moments: See the table above.
        buffers: For reducing gradients, and for gathering parameters (ZeRO-3).
        step: What the optimizer's step needs beside all of them.
    """

    weights: int
    gradients: int
    masters: int
    moments: int
    buffers: int
    step: int


def count_states(
    groups: Sequence[Sequence[int]], num_frozen: int, engine: Engine, *, on_cpu: bool
) -> States:
    """Count what one process holds; of unequal ones, the one that holds the most.

    Args:
        groups: Numbers in each tensor that learns, by optimizer group, in the model's order.
        num_frozen: Numbers that do not learn.
        engine: That holds them.
        on_cpu: A CPU has memory for those pages of a buffer only that were written to.
    """
    tensors = [size for group in groups for size in group]
    learning, n, w = sum(tensors), engine.processes, engine.weight_bytes
    per_number, step_tensors = engine.state_bytes, len(groups)
    own = learning  # numbers whose optimizer state is here
    weights, gradients = w * (learning + num_frozen), w * learning
    step = 0
    if not engine.stage:
        step_tensors = len(tensors)
    elif engine.stage == 3:
        own = sum(-(-size // n) for size in tensors)
        weights, gradients = w * (own + -(-num_frozen // n)), w * own
        step = 4 * min(own, SUB_GROUP)
    else:
        aligned = [math.ceil(sum(group) / (2 * n)) * 2 * n for group in groups]
        own = sum(aligned) // n
        weights = w * (sum(aligned) + num_frozen)
        if engine.stage == 2:
            gradients = w * largest_share(groups, n)
        # In float32 ZeRO-2's gradients are already what the optimizer takes.
        copies = (4 if w == 2 else 0) + (w if engine.stage == 1 else 0)
        step = copies * max(aligned, default=0) // n
    has_masters = w == 2 if engine.stage == 0 else engine.stage is not None
    count = STEP_BYTES * step_tensors if engine.optimizer in ADAM else 0
    return States(
        weights=weights,
        gradients=gradients,
        masters=4 * own if has_masters else 0,
        moments=per_number * own + count,
        buffers=_buffers(engine, learning, learning + num_frozen, on_cpu=on_cpu),
        step=step,
    )


def largest_share(groups: Sequence[Sequence[int]], processes: int) -> int:
    """Count the gradients of the process that keeps the most of them under ZeRO-2.

    Each group's tensors, laid out one after another, are cut into equal parts; a tensor that
    lies across a cut is kept whole on both sides of it.

    Example:
        >>> largest_share([[4, 8, 4]], 2)
        12
    """
    shares = [0] * processes
    for group in groups:
        part = math.ceil(sum(group) / (2 * processes)) * 2
        begin = 0
        for size in group:
            end = begin + size
            for rank in range(begin // part, min(processes - 1, (end - 1) // part) + 1):
                shares[rank] += size
            begin = end
    return max(shares)


def _buffers(engine: Engine, learning: int, parameters: int, *, on_cpu: bool) -> int:
    w, n = engine.weight_bytes, engine.processes
    if engine.stage is None:
        return w * learning if n > 1 else 0  # what DDP reduces is a second copy
    bucket = min(engine.bucket, learning) if on_cpu else engine.bucket
    gathered = min(parameters, engine.max_live) if engine.stage == 3 and n > 1 else 0
    if engine.offload_params:
        gathered = min(parameters, engine.max_live)
    return w * (bucket * engine.buckets + gathered)


def place_states(states: States, engine: Engine) -> list[MemoryItem]:
    """Say what of it is on the device and what in the host's memory."""
    optimizer = states.masters + states.moments
    on_host = engine.offload_optimizer
    items = [
        MemoryItem(
            name="weights",
            device_bytes=0 if engine.offload_params else states.weights,
            host_bytes=states.weights if engine.offload_params else 0,
        ),
        MemoryItem(
            name="gradients",
            device_bytes=0 if on_host else states.gradients,
            # Float32 for the optimizer, and a copy of its result in the weights' precision.
            host_bytes=states.masters * (4 + engine.weight_bytes) // 4 if on_host else 0,
        ),
        MemoryItem(
            name="optimizer",
            device_bytes=0 if on_host else optimizer,
            host_bytes=optimizer if on_host else 0,
            note="float32 masters included" if states.masters else "",
        ),
    ]
    if states.buffers:
        items.append(
            MemoryItem(
                name="buffers",
                device_bytes=states.buffers,
                note="to exchange data",
            )
        )
    return items
