"""`ovis plan`: what a training will need and take, before anything heavy is loaded.

    config.json, headers of the weights -> parameters, states
    headers of the media                -> tokens, steps, arithmetic, the largest micro-batch
    the device's memory                 -> does it fit, and what to change if not

Start with `make_plan`.
"""

import math
import os
from pathlib import Path

import torch

from ovis_model.errors import CheckpointError
from ovis_model.flops import count_patches, peak_flops
from ovis_model.modeling.weight_files import find_tensors
from ovis_model.planning.activations import PaddedBatch, worst_batch
from ovis_model.planning.changes import cheapest_changes
from ovis_model.planning.memory import Outline, Site, plan_memory, read_model_config
from ovis_model.planning.packed import PlannedRows
from ovis_model.planning.report import DevicePlan, MemoryPlan, Plan, WorkPlan
from ovis_model.planning.states import ADAM, Engine
from ovis_model.planning.work import MeasuredData, batch_at_the_limits, plan_data, plan_work
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import STATE_BYTES
from ovis_model.training.visual_cache import bytes_per_token, choose_kind

#: Keys of the train section that an outline follows from.
DECIDE_WHAT_LEARNS = (
    "train_modules",
    "freeze_llm",
    "freeze_vision_tower",
    "lora_r",
    "lora_modules",
    "lora_variant",
)


def find_device(*, memory_gb: float | None = None, gpu: str | None = None) -> DevicePlan:
    """Describe what training will run on.

    Args:
        memory_gb: Of a GPU that is elsewhere, in 10^9 bytes.
        gpu: Its name, for its peak.

    Returns:
        The GPU described; else the GPU of this machine with the least memory, else its CPU.
    """
    if memory_gb is not None:
        name = gpu or "a GPU"
        return DevicePlan(
            kind="cuda",
            name=name,
            memory_bytes=int(memory_gb * 1e9),
            peak_flops=peak_flops(name),
        )
    if torch.cuda.is_available():  # pragma: no cover - gpu
        found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        least = min(found, key=lambda one: one.total_memory)
        name = gpu or least.name
        return DevicePlan(
            kind="cuda",
            name=name,
            memory_bytes=least.total_memory,
            peak_flops=peak_flops(name),
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return DevicePlan(
        kind="cpu",
        name=f"CPU, {os.cpu_count()} cores",
        memory_bytes=memory,
        peak_flops=None if gpu is None else peak_flops(gpu),
    )


def make_plan(
    config: TrainConfig,
    data: MeasuredData | None,
    *,
    device: DevicePlan,
    processes: int,
    presets: Path,
) -> Plan:
    """Plan a training.

    Args:
        config: The train section.
        data: Measured samples; without them the batch that the limits allow is planned for.
        device: That it runs on.
        processes: That train together; on a CPU they share its memory.
        presets: Folder of the DeepSpeed configurations that a change may name.

    Raises:
        ConfigError: If the configuration cannot be used.
        CheckpointError: If the base model has no config.json.
        DataError: If samples are packed and there are too few of them for so many processes.
    """
    planner = _Planner(config, data, device, processes)
    memory = planner.memory_of(config)
    sharing = processes if device.kind == "cpu" else 1
    needed = memory.peak_device_bytes * sharing
    changes, rest = cheapest_changes(
        config,
        lambda changed: planner.memory_of(changed).peak_device_bytes,
        room=device.memory_bytes // sharing,
        site=planner.site_of(config),
        presets=presets,
        longest=planner.longest_sample(config),
    )
    engine = Engine.of(config, hidden_size=1, processes=processes)
    outline = planner.outline_of(config)
    rows = planner.rows_of(config)
    return Plan(
        base_model=config.ovis_pretrained_path,
        modules=list(outline.modules),
        parameters=outline.parameters,
        trainable_parameters=outline.trainable,
        processes=processes,
        engine=engine.name,
        precision=engine.precision,
        memory=memory,
        batch=_describe_batch(planner.batch_of(config), config, measured=data is not None),
        data=None if data is None else plan_data(data, config),
        packing=None if rows is None else rows.plan(),
        work=planner.work_of(config),
        device=device,
        needed_bytes=needed,
        margin_bytes=device.memory_bytes - needed,
        fits=needed <= device.memory_bytes,
        changes=changes,
        needed_besides=rest,
        warnings=_warnings(config, outline, engine),
    )


class _Planner:
    """Plans the memory of variants of one training."""

    def __init__(
        self, config: TrainConfig, data: MeasuredData | None, device: DevicePlan, processes: int
    ) -> None:
        self._model = read_model_config(Path(config.ovis_pretrained_path))
        self._data = data
        self._device = device
        self._processes = processes
        self._outlines: dict[tuple[object, ...], Outline] = {}
        self._rows: dict[int, PlannedRows] = {}

    def outline_of(self, config: TrainConfig) -> Outline:
        """Build the model's outline, once for each choice of what learns."""
        key = tuple(getattr(config, name) for name in DECIDE_WHAT_LEARNS)
        if key not in self._outlines:
            self._outlines[key] = Outline.of(self._model, config)
        return self._outlines[key]

    def rows_of(self, config: TrainConfig) -> PlannedRows | None:
        """Pack the samples, once for each length of a row; None if they are not packed."""
        if self._data is None or not config.packing:
            return None
        length = config.row_capacity
        if length not in self._rows:
            self._rows[length] = PlannedRows.of(
                self._data, config, self._model, processes=self._processes
            )
        return self._rows[length]

    def longest_sample(self, config: TrainConfig) -> int:
        """Return the tokens that a packed row must have room for."""
        if self._data is None:
            return config.multimodal_max_length
        return max(one.num_tokens for one in self._data.extents)

    def batch_of(self, config: TrainConfig) -> PaddedBatch:
        """Return the micro-batch that memory must be there for."""
        return max(
            self._large_batches(config),
            key=lambda batch: self._memory_of(config, batch).peak_device_bytes,
        )

    def _large_batches(self, config: TrainConfig) -> list[PaddedBatch]:
        if self._data is None:
            return [batch_at_the_limits(config)]
        rows = self.rows_of(config)
        if rows is not None:
            return rows.largest()
        return [worst_batch(self._data.shapes, config.per_device_train_batch_size)]

    def memory_of(self, config: TrainConfig) -> MemoryPlan:
        """Plan the memory of one process."""
        return self._memory_of(config, self.batch_of(config))

    def _memory_of(self, config: TrainConfig, batch: PaddedBatch) -> MemoryPlan:
        return plan_memory(config, self.outline_of(config), batch, self.site_of(config))

    def work_of(self, config: TrainConfig) -> WorkPlan | None:
        """Count what there is to do; None without data."""
        if self._data is None:
            return None
        rows = self.rows_of(config)
        return plan_work(
            config,
            self.outline_of(config),
            self._data,
            processes=self._processes,
            peak_flops=self._device.peak_flops,
            num_rows=None if rows is None else len(rows.rows),
        )

    def site_of(self, config: TrainConfig) -> Site:
        """Describe where it runs."""
        cached = 0
        if self._data is not None and config.cache_encoded_samples:
            cached = self._data.cached_bytes
        if config.cache_visual_tokens:
            cached += self._visual_bytes(config)
        return Site(self._processes, self._device.kind, cached)

    def _visual_bytes(self, config: TrainConfig) -> int:
        """Count what is kept of every picture; one that comes twice is counted twice."""
        engine = Engine.of(config, hidden_size=1, processes=self._processes)
        kind = choose_kind(self.outline_of(config).learning, zero_stage=engine.stage or 0)
        number = 2 if engine.autocast else engine.weight_bytes
        shapes = () if self._data is None else self._data.shapes
        patches = sum(count_patches(shape.grids) for shape in shapes)
        size = bytes_per_token(kind, self._model, number=number)
        return patches // self._model.vit.hidden_stride**2 * size


def _describe_batch(batch: PaddedBatch, config: TrainConfig, *, measured: bool) -> str:
    samples = len(batch.shape.sequences)
    if config.packing:
        rows = f"a row of {batch.positions:,} positions, {samples} samples"
        source = "the largest of the rows"
    else:
        rows = f"{samples} x {batch.longest:,} positions"
        source = (
            "the largest that these samples can make" if measured else "no data: at the limits"
        )
    return f"{rows}, {batch.patches:,} patches, {batch.shape.num_supervised:,} learned ({source})"


def _warnings(config: TrainConfig, outline: Outline, engine: Engine) -> list[str]:
    """Say what the plan does not know, or what training will stumble over."""
    base = Path(config.ovis_pretrained_path)
    found = _about_adapters(config)
    if config.cache_visual_tokens:
        found.append(
            "cache_visual_tokens: operations and hours are counted as if nothing were kept"
        )
    try:
        stored = find_tensors(base)
    except CheckpointError as error:
        found.append(f"the weights cannot be loaded: {error}")
    else:
        numbers = sum(math.prod(tensor.shape) for tensor in stored.values())
        described = outline.parameters - outline.added
        if numbers != described:
            found.append(
                f"{base} stores {numbers:,} numbers, its config.json describes {described:,}; "
                "loading will name the difference"
            )
    if engine.optimizer not in (*ADAM, *STATE_BYTES):
        found.append(f"optim {engine.optimizer!r} is not known here; it is taken to be like Adam")
    return found


def _about_adapters(config: TrainConfig) -> list[str]:
    if not config.lora_r:
        return []
    found = ["adapters keep as much here as layers that learn: up to a fifth is counted too much"]
    if config.lora_dropout or config.lora_variant == "dora":
        found.append(
            "lora_dropout and lora_variant: dora keep more than that for every adapter, which is "
            "not counted: leave room for twice the activations"
        )
    if config.quantize_base != "none":
        found.append("quantize_base is not counted: weights are planned at their full size")
    return found
