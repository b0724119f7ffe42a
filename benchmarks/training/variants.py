"""Who trains, against whom, and what must come out.

A race is between variants that take turns; the first is what the others are measured against.
To run another trainer beside them, add an entry to `trainers.TRAINERS` and variants that name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.training.world import PIXEL_LIMITS, World

#: The same for all: one optimizer step per epoch, at a rate at which losses fall and agree.
OPTIMIZER: Mapping[str, Any] = {
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "seed": 0,
}
#: Rows of a micro-batch where samples are padded, and tokens of a row where they are packed.
ROWS, PACK_LENGTH = 2, 2048
PADDED: Mapping[str, Any] = {
    "per_device_train_batch_size": ROWS,
    "train_sampling_strategy": "sequential",
}
PACKED: Mapping[str, Any] = {
    "per_device_train_batch_size": 1,
    "packing": True,
    "pack_length": PACK_LENGTH,
}
ZERO_1: Mapping[str, Any] = {"deepspeed": str(ROOT / "config" / "deepspeed" / "zero1.json")}
#: Nothing visual learns: neither the tower nor its head nor the visual embeddings.
FROZEN: Mapping[str, Any] = {"train_modules": "llm"}
CACHED: Mapping[str, Any] = {"cache_visual_tokens": True}
CHECKPOINTED: Mapping[str, Any] = {"gradient_checkpointing": True}
BF16: Mapping[str, Any] = {"bf16": True}

REFERENCE, OURS = "reference", "ours"
#: Largest difference of a loss, relative to the loss it should be.  Under autocast trainers round
#: in different places; an engine also rounds the weights, and sums gradients in bfloat16.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-3}
TOLERANCE_OF_ROUNDED_WEIGHTS = 5e-3


@dataclass(frozen=True)
class Variant:
    """A trainer and its settings.

    Attributes:
        name: Unique in its race.
        trainer: A key of `trainers.TRAINERS`.
        settings: Keys of a training configuration.
        like: The variant whose losses it must find; None for what the race is measured against.
        like_at_first: Only in the first epoch: it learns something else.
    """

    name: str
    trainer: str
    settings: Mapping[str, Any]
    like: str | None = None
    like_at_first: bool = False

    @property
    def dtype(self) -> str:
        """In which products are computed."""
        return "bfloat16" if self.settings.get("bf16") else "float32"

    @property
    def tolerance(self) -> float:
        """How far its losses may be from those it should find, relative to them."""
        if self.dtype == "bfloat16" and "deepspeed" in self.settings:
            return TOLERANCE_OF_ROUNDED_WEIGHTS
        return TOLERANCE[self.dtype]

    @property
    def is_packed(self) -> bool:
        """Whether a micro-batch is a row of whole samples."""
        return bool(self.settings.get("packing"))


@dataclass(frozen=True)
class Limit:
    """What a race is to show of a variant.

    Attributes:
        goal: Its name in the reference notes.
        variant: The one that is judged.
        against: The one it is compared with; None for a number of its own.
        measure: "speed" (how many times less time), "memory" (share of its peak), "overhead" (how
            many times more time) or "share" (of the measured ceiling, in per cent).
        bound: At least, of speed and share; at most, of memory and overhead.
    """

    goal: str
    variant: str
    against: str | None
    measure: str
    bound: float


@dataclass(frozen=True)
class Race:
    """Variants that take turns."""

    name: str
    variants: tuple[Variant, ...]
    limits: tuple[Limit, ...] = ()
    #: Timed epochs, where fewer than asked for will do; None for as many as asked for.
    rounds: int | None = field(default=None)

    @property
    def goals(self) -> set[str]:
        """Of its limits."""
        return {limit.goal for limit in self.limits}


def our_settings(variant: Variant, world: World) -> dict[str, Any]:
    """Return the training configuration of one of ours."""
    base = {"ovis_pretrained_path": str(world.base), "logging_steps": 1, **PIXEL_LIMITS}
    return {**base, **OPTIMIZER, **variant.settings}


_PACKED_32 = "ours, packed"
_PACKED_16 = "ours, packed, bf16"
_FROZEN = "ours, packed, frozen vision"


def races() -> list[Race]:
    """List the races in the order of the table."""
    return [_equal_batch(), _bfloat16(), _frozen(), _memory()]


def _equal_batch() -> Race:
    official = "official way, padded"
    ours = "ours, padded"
    return Race(
        "equal batches",
        (
            Variant(official, REFERENCE, PADDED),
            Variant(ours, OURS, PADDED, like=official),
        ),
        (
            Limit("T1", ours, official, "speed", 1.8),
            Limit("T3", ours, official, "memory", 0.65),
        ),
    )


def _bfloat16() -> Race:
    official = "official way, padded, bf16"
    engine = "ours, packed, bf16, ZeRO-1"
    return Race(
        "bfloat16",
        (
            Variant(official, REFERENCE, {**PADDED, **BF16}),
            Variant(_PACKED_16, OURS, {**PACKED, **BF16}, like=official),
            Variant(engine, OURS, {**PACKED, **BF16, **ZERO_1}, like=official),
        ),
        (
            Limit("T2", _PACKED_16, official, "speed", 2.7),
            Limit("T5", engine, _PACKED_16, "overhead", 1.3),
            Limit("T6", _PACKED_16, None, "share", 28.0),
        ),
    )


def _frozen() -> Race:
    engine = "ours, packed, ZeRO-1"
    cached = "ours, packed, frozen and cached"
    return Race(
        "frozen vision",
        (
            Variant(_PACKED_32, OURS, PACKED),
            Variant(engine, OURS, {**PACKED, **ZERO_1}, like=_PACKED_32),
            Variant(_FROZEN, OURS, {**PACKED, **FROZEN}, like=_PACKED_32, like_at_first=True),
            Variant(cached, OURS, {**PACKED, **FROZEN, **CACHED}, like=_FROZEN),
        ),
        (
            Limit("T4", _FROZEN, _PACKED_32, "speed", 1.5),
            Limit("T4", cached, _PACKED_32, "speed", 2.2),
            Limit("T5", engine, _PACKED_32, "overhead", 1.1),
            Limit("T6", _PACKED_32, None, "share", 65.0),
        ),
    )


def _memory() -> Race:
    """Trainings that only planned peaks are compared with."""
    padded = "ours, padded, checkpointing"
    return Race(
        "checkpointing",
        (
            Variant(padded, OURS, {**PADDED, **CHECKPOINTED}),
            Variant("ours, packed, checkpointing", OURS, {**PACKED, **CHECKPOINTED}, like=padded),
        ),
        rounds=1,
    )
