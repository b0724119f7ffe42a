"""The answer to a step that does not fit into memory: a smaller micro-batch, or a sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils.memory import should_reduce_batch_size
from transformers import TrainingArguments

from ovis_model.errors import OutOfMemoryError, TrainingError, list_examples
from ovis_model.train_config import TrainConfig
from ovis_model.training.micro_batch import Reduction, divided, remember
from ovis_model.training.throughput import peak_memory
from ovis_model.training.trainer import OvisTrainer


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device or the machine had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


@contextmanager
def answering_out_of_memory(
    config: TrainConfig, trainer: OvisTrainer, resume: Path
) -> Iterator[None]:
    """Turn an error for want of memory into a decision and a message.

    Args:
        config: As it is used: with the reductions so far.
        trainer: Whose training runs inside.
        resume: Folder of its checkpoints.

    Raises:
        OutOfMemoryError: If the next start goes on with a smaller micro-batch.
        TrainingError: If that is not possible; says what is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"{_describe(trainer)} ({str(error).strip().splitlines()[0]})"
        if (obstacle := _obstacle(config, trainer.args)) is not None:
            raise TrainingError(f"{what}. {obstacle}") from error
        size, accumulation = divided(config)
        reduction = Reduction(
            step=trainer.state.global_step + 1,
            process=trainer.args.process_index,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        remember(resume, reduction)
        raise OutOfMemoryError(
            f"{what}. From the last checkpoint on, per_device_train_batch_size is {size} and "
            f"gradient_accumulation_steps {accumulation}: as many samples per step as before. Run "
            "the same command again, unless it does so by itself"
        ) from error


def _describe(trainer: OvisTrainer) -> str:
    device = trainer.args.device
    held, room = peak_memory(device) / 1e9, total_memory(device) / 1e9
    ids, num_tokens, (rows, positions) = trainer.in_work
    return (
        f"step {trainer.state.global_step + 1} ran out of memory: {device} held {held:.2f} GB of "
        f"{room:.2f} GB at the most; in work were {rows} row(s) of {positions} positions with "
        f"{num_tokens} tokens, samples {list_examples(ids)}"
    )


def total_memory(device: torch.device) -> int:
    """Return the bytes of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory  # pragma: no cover - gpu
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _obstacle(config: TrainConfig, arguments: TrainingArguments) -> str | None:
    """Say why the micro-batch cannot be smaller, and what would help instead."""
    besides = (
        "turn on gradient_checkpointing, lower the pixel limits, freeze modules, or take a "
        "DeepSpeed file that shards more or offloads"
    )
    if config.packing:
        room = config.pack_length or config.multimodal_max_length
        return f"A packed row is never cut: lower pack_length (now {room}), {besides}"
    if config.per_device_train_batch_size == 1:
        longest = config.multimodal_max_length
        return f"One sample cannot be halved: lower multimodal_max_length ({longest}), {besides}"
    size, accumulation = divided(config)
    by_hand = (
        f"say per_device_train_batch_size: {size} and gradient_accumulation_steps: {accumulation}"
    )
    if not config.auto_micro_batch:
        return f"auto_micro_batch is off: {by_hand} for the same samples per step"
    if arguments.dataloader_drop_last:
        return f"With dataloader_drop_last that would drop other samples: {by_hand}"
    fixed = arguments.deepspeed if isinstance(arguments.deepspeed, dict) else {}
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        if fixed.get(key, "auto") != "auto":
            return f'{config.deepspeed} fixes {key}: set it to "auto", and {by_hand}'
    return None
