"""What an epoch of a variant is, and what `ovis plan` says of it before it begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from benchmarks.machine import ROOT
from benchmarks.training.variants import REFERENCE, ROWS, Variant, our_settings
from benchmarks.training.world import World
from ovis_model.data.dataset import Extent
from ovis_model.flops import FlopCounter, count_patches
from ovis_model.planning.memory import Outline, read_model_config
from ovis_model.planning.plan import find_device, make_plan
from ovis_model.planning.work import MeasuredData
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.processing.visual_tokens import HIDDEN_STRIDE
from ovis_model.train_config import TrainConfig
from ovis_model.training.inputs import read_annotations

PRESETS = ROOT / "config" / "deepspeed"


@dataclass(frozen=True)
class Expected:
    """An epoch.

    Attributes:
        micro_batches: Of it.
        samples, tokens, atoms, labels: Of all samples together, without padding.
        positions: With padding.
        useful_flops: Of the forward and backward passes, as the trainer's log counts them; with
            cached visual tokens those of any epoch but the first.
        peak_bytes: Planned, of the process at its highest; None for a trainer that is not ours.
    """

    micro_batches: int
    samples: int
    tokens: int
    atoms: int
    labels: int
    positions: int
    useful_flops: float
    peak_bytes: int | None


@lru_cache(maxsize=1)
def measure(world: World) -> MeasuredData:
    """Measure the samples of a world."""
    inputs = read_annotations(world.annotations, world.root)
    return MeasuredData.measure(
        inputs.train,
        folder=world.root,
        media=world.root,
        processor=Ovis2_5Processor.from_pretrained(world.base),
    )


def expect(variant: Variant, world: World) -> Expected:
    """Plan an epoch of one optimizer step."""
    data = measure(world)
    settings = {**our_settings(variant, world), "num_train_epochs": 1}
    if variant.trainer == REFERENCE:
        # It trains on the same samples and as much is useful of what it does.
        settings = {**settings, "packing": False}
    batches = -(-len(data.extents) // ROWS)
    config = TrainConfig.parse(settings, where=variant.name)
    plan = make_plan(config, data, device=find_device(), processes=1, presets=PRESETS)
    if plan.packing is not None:
        batches = plan.packing.rows
    if batches > 1:
        config = TrainConfig.parse(
            {**settings, "gradient_accumulation_steps": batches}, where=variant.name
        )
        plan = make_plan(config, data, device=find_device(), processes=1, presets=PRESETS)
    lengths = [one.num_tokens for one in data.extents]
    return Expected(
        micro_batches=batches,
        samples=len(lengths),
        tokens=sum(lengths),
        atoms=sum(count_patches(one.grids) for one in data.extents) // HIDDEN_STRIDE**2,
        labels=sum(one.num_supervised for one in data.extents),
        positions=sum(lengths) if variant.is_packed else padded_positions(data.extents),
        useful_flops=_useful_flops(config, data, world),
        peak_bytes=None if variant.trainer == REFERENCE else plan.memory.peak_device_bytes,
    )


def _useful_flops(config: TrainConfig, data: MeasuredData, world: World) -> float:
    """Count an epoch; what is kept of a frozen tower is not computed again."""
    outline = Outline.of(read_model_config(world.base), config)
    counter = FlopCounter(outline.config)
    parts = [counter.of(shape, learning=outline.learning) for shape in data.shapes]
    return sum(one.total - one.vision * config.cache_visual_tokens for one in parts)


def padded_positions(extents: Sequence[Extent]) -> int:
    """Count positions where samples are padded, `ROWS` at a time, in file order."""
    lengths = [one.num_tokens for one in extents]
    batches = [lengths[start : start + ROWS] for start in range(0, len(lengths), ROWS)]
    return sum(len(batch) * max(batch) for batch in batches)
