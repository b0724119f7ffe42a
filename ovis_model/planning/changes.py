"""What to change when a training does not fit, the cheapest first."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ovis_model.planning.memory import Site
from ovis_model.planning.report import Change
from ovis_model.planning.states import Engine
from ovis_model.train_config import TrainConfig

#: A change must save this share of what is missing to be worth a line.
WORTH = 0.01
MOST_CHANGES = 3

Attempt = tuple[str, str, TrainConfig]


def cheapest_changes(  # noqa: PLR0913 - the last four by name
    config: TrainConfig,
    peak_of: Callable[[TrainConfig], int],
    *,
    room: int,
    site: Site,
    presets: Path,
    longest: int,
) -> tuple[list[Change], list[str]]:
    """Find settings that make a training fit, one on top of the other.

    In this order: what costs nothing, what costs time, what costs much time, what changes the
    result.  A setting that saves next to nothing is passed over.

    Args:
        config: That does not fit.
        peak_of: Plans the peak of one process under another configuration, in bytes.
        room: Bytes one process may have.
        site: Where it is.
        presets: Folder of the DeepSpeed configurations.
        longest: Tokens that a packed row must have room for.

    Returns:
        The first `MOST_CHANGES` of them, and the names of those that are needed besides; if all
        of them together do not suffice, no change says that it fits, and the names end with what
        remains to be done.
    """
    found: list[Change] = []
    peak = peak_of(config)
    while peak > room:
        target = peak - WORTH * (peak - room)
        better = _next_change(_attempts(config, site, presets, longest), target, peak_of)
        if better is None:
            break
        (setting, cost, config), peak = better
        found.append(Change(setting=setting, cost=cost, peak_device_bytes=peak, fits=peak <= room))
    rest = [change.setting for change in found[MOST_CHANGES:]]
    if peak > room:
        rest.append("more or larger GPUs, lower pixel limits, or a smaller model")
    return found[:MOST_CHANGES], rest


def _next_change(
    attempts: Iterable[Attempt], target: float, peak_of: Callable[[TrainConfig], int]
) -> tuple[Attempt, int] | None:
    for attempt in attempts:
        lower = peak_of(attempt[2])
        if lower < target:
            return attempt, lower
    return None


def _attempts(config: TrainConfig, site: Site, presets: Path, longest: int) -> Iterator[Attempt]:
    """Yield changes from the cheapest to the dearest."""
    yield from _for_nothing(config, site, presets, longest)
    if set(config.checkpointed_parts) != {"llm", "vit"}:
        yield (
            "gradient_checkpointing: true",
            "about a third more computing",
            _with(config, gradient_checkpointing=True, vit_gradient_checkpointing=None),
        )
    stage = _stage(config)
    if site.processes > 1 and stage is not None and stage < 3:
        yield from _with_preset(config, presets, "zero3.json", "weights are sent at every layer")
    if site.device == "cuda":
        for name, cost in (
            ("zero2_offload.json", "every step waits for the host's memory"),
            ("zero3_offload.json", "every layer waits for the host's memory"),
        ):
            yield from _with_preset(config, presets, name, cost)
    if not config.freeze_vision_tower:
        yield (
            "freeze_vision_tower: true",
            "the vision tower learns nothing",
            _with(config, freeze_vision_tower=True),
        )


def _for_nothing(
    config: TrainConfig, site: Site, presets: Path, longest: int
) -> Iterator[Attempt]:
    stage = _stage(config)
    if site.device == "cuda" and not config.bf16:
        yield (
            "bf16: true",
            "16-bit arithmetic, which is also faster",
            _with(config, bf16=True),
        )
    rows = config.per_device_train_batch_size
    if rows > 1:
        steps = config.gradient_accumulation_steps * rows
        yield (
            f"per_device_train_batch_size: 1, gradient_accumulation_steps: {steps}",
            "smaller batches at a time, the same batch per step",
            _with(config, per_device_train_batch_size=1, gradient_accumulation_steps=steps),
        )
    half = config.row_capacity // 2
    if config.packing and half >= longest:
        steps = config.gradient_accumulation_steps * 2
        yield (
            f"pack_length: {half}, gradient_accumulation_steps: {steps}",
            "shorter rows, about the same samples per step",
            _with(config, pack_length=half, gradient_accumulation_steps=steps),
        )
    if stage is None or stage < 2:
        yield from _with_preset(config, presets, "zero2.json", "hardly any time")


def _stage(config: TrainConfig) -> int | None:
    return Engine.of(config, hidden_size=1, processes=1).stage


def _with(config: TrainConfig, **values: object) -> TrainConfig:
    return config.model_copy(update=values)


def _with_preset(config: TrainConfig, presets: Path, name: str, cost: str) -> list[Attempt]:
    """Name a DeepSpeed configuration, if it is there and not the one in use."""
    file = presets / name
    if not file.is_file() or (config.deepspeed is not None and Path(config.deepspeed) == file):
        return []
    path = file.as_posix()
    return [(f"deepspeed: {path}", cost, _with(config, deepspeed=path))]
