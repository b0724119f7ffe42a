"""Everything a training does, once, and nothing kept: data, configuration, model and one step.

    python -m ovis_model.training --dry-run config/train_config.json

The step is made without warm-up, so that what should move does.
"""
# ruff: noqa: ARG002 - transformers calls every callback with all of its arguments

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ovis_model.train_config import TrainConfig
from ovis_model.training.destination import Destination
from ovis_model.training.effective_keys import without_effect
from ovis_model.training.environment import forget_last_training, process_group
from ovis_model.training.inputs import TrainingInputs
from ovis_model.training.model_selection import check_holdout
from ovis_model.training.trainer import OvisTrainer
from ovis_model.training.training import prepare
from ovis_model.training.xray import read_rows


class _OneStep(TrainerCallback):
    """Ends training after its first step, before anything is written or measured."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop."""
        control.should_training_stop = True
        control.should_save = control.should_evaluate = False
        control.should_log = True


def dry_run(config: TrainConfig, inputs: TrainingInputs) -> str:
    """Prepare every stage on the base model and make one step of each.

    Args:
        config: The train section.
        inputs: The samples.

    Returns:
        What was found, as text; the same in every process but for the loss.

    Raises:
        OvisError: Whatever a training would raise up to its first step.
    """
    blocks = []
    stages = config.stage_configs()
    for stage in stages:
        check_holdout(stage, inputs.holdout)
    with process_group():
        for number, stage in enumerate(stages, start=1):
            heading = [f"stage {number} of {len(config.stages)}"] if config.stages else []
            blocks.append("\n".join([*heading, *_try(stage, inputs)]))
            forget_last_training()
    return "\n\n".join([*blocks, "dry run: nothing was saved"]) + "\n"


def _try(config: TrainConfig, inputs: TrainingInputs) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        where = Destination(root / "model", root / "resume", root / "log", root / "csv")
        prepared = prepare(config, inputs, where)
        trainer, extents = prepared.trainer, prepared.extents
        loader = trainer.get_train_dataloader()
        *_, steps = trainer.set_initial_training_values(trainer.args, loader)
        trainer.args.warmup_steps = 0
        trainer.add_callback(_OneStep())
        trainer.train()
        rows = read_rows(trainer, trainer.gathered_weights(), Path(config.ovis_pretrained_path))
    tokens = [extent.num_tokens for extent in extents]
    learned = sum(extent.num_supervised for extent in extents)
    return [
        *_keys(config),
        f"samples   {len(tokens):,} to learn from, {len(inputs.holdout):,} held out",
        f"tokens    {sum(tokens):,}, {learned:,} of them learned; longest sample {max(tokens):,}",
        f"steps     {steps:,} in all, each of {_batch(trainer)}",
        f"loss      {_first_loss(trainer):.4f} in the first step",
        "weights   module, rate, weight decay, parameters, after one step",
        *(
            f"  {row.module:<30} {_number(row.learning_rate):>8} {_number(row.weight_decay):>6} "
            f"{row.parameters:>15,}  {row.verdict}"
            for row in rows
        ),
    ]


def _keys(config: TrainConfig) -> Iterator[str]:
    yield "keys in effect that differ from their defaults"
    idle = without_effect(config)
    for key, value in config.model_dump(mode="json", exclude_defaults=True).items():
        if key not in idle:
            yield f"  {key}: {value}"
    yield "keys without effect: " + (
        "; ".join(f"{key} ({why})" for key, why in idle.items()) or "none"
    )


def _batch(trainer: OvisTrainer) -> str:
    args = trainer.args
    micro, accumulated = args.per_device_train_batch_size, args.gradient_accumulation_steps
    return f"{micro} x {accumulated} x {args.world_size} (in a micro-batch, of them, processes)"


def _first_loss(trainer: OvisTrainer) -> float:
    return float(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
