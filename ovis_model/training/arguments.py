"""From our TrainConfig to transformers.TrainingArguments and a DeepSpeed configuration.

A key of the configuration reaches the Trainer or is an error; none is dropped in silence.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ovis_model.config import unknown_key
from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig
from ovis_model.training.environment import has_gpu
from ovis_model.training.other_names import INSTEAD

#: TrainingArguments that follow from how this project trains, with the reason a user reads.
DECIDED_HERE: dict[str, str] = {
    "logging_nan_inf_filter": "a loss that is no number stops the run instead of being hidden",
    "remove_unused_columns": "the collator's columns are exactly what the trainer reads",
    "resume_from_checkpoint": "the newest committed checkpoint of the same inputs is resumed",
    "push_to_hub": "models are published by the register step",
    "eval_on_start": "the first evaluation follows the first eval_steps",
    "greater_is_better": "models are compared by a loss",
    "auto_find_batch_size": "it would change the batch size, and with it the result, in silence",
    "save_only_model": "a checkpoint without the optimizer cannot be resumed",
    "label_names": "the collator names them",
    "label_smoothing_factor": "the loss is the model's own",
    "bf16_full_eval": "the holdout is measured in the precision of training",
    "fp16_full_eval": "the holdout is measured in the precision of training",
    "liger_kernel_config": "use_liger_kernel takes the kernels that fit: rope, rms_norm, swiglu",
    "do_eval": "the evaluate step does it",
    "do_predict": "the evaluate step does it",
    "do_train": "training is what this program does; --dry-run tries one step without saving",
    "use_cpu": "a GPU is used when there is one; hide it with CUDA_VISIBLE_DEVICES=",
    "disable_tqdm": "the progress bar is drawn by this project",
    "fsdp": "DeepSpeed shards the model",
    "fsdp_config": "DeepSpeed shards the model",
}
#: Values of them that say what happens anyway, as configurations of the seed do.
AS_DECIDED: dict[str, Any] = {
    "logging_nan_inf_filter": False,
    "remove_unused_columns": False,
    "push_to_hub": False,
    "eval_on_start": False,
    "greater_is_better": False,
    "auto_find_batch_size": False,
    "save_only_model": False,
    "label_smoothing_factor": 0.0,
    "do_eval": False,
    "do_predict": False,
    "do_train": True,
}
#: Keys with fewer choices than transformers has; the first is the default.
CHOICES = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "save_strategy": ("steps", "epoch"),
}
#: Old names that transformers still takes with a warning.
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name: field for field in dataclasses.fields(TrainingArguments) if field.init
}
#: Keys that order or drop samples, and what they may be where rows are planned.
UNLESS_PACKED = {"train_sampling_strategy": "random", "dataloader_drop_last": False}
#: Bytes of optimizer state per number that learns.  Others are taken to be like Adam.
STATE_BYTES = {
    "sgd": 0,
    "adagrad": 4,
    "rmsprop": 4,
    "lion_32bit": 4,
    "paged_lion_32bit": 4,
    "lion_8bit": 1,
    "paged_lion_8bit": 1,
    "adamw_bnb_8bit": 2,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
    "adafactor": 0,
}
ADAM_BYTES = 8
#: DeepSpeed prints a line every so many steps; our own log and progress bar say more.
SILENT_STEPS = 1_000_000_000


def training_arguments(config: TrainConfig, *, resume: Path) -> TrainingArguments:
    """Build the Trainer's arguments.

    The object must stay alive while a model is loaded: transformers looks up through it
    whether ZeRO-3 cuts the parameters into pieces.

    Args:
        config: The train section.
        resume: Folder of the checkpoints to resume from.

    Raises:
        ConfigError: For an unknown key, a key that cannot be set, or a value transformers or
            DeepSpeed refuses.
    """
    values = _values(config)
    values.update(
        output_dir=str(resume),
        deepspeed=deepspeed_config(config.deepspeed),
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        save_strategy=values.get("save_strategy", "steps"),
        # Weights are compared, kept and loaded by `model_selection`.
        load_best_model_at_end=False,
        metric_for_best_model=None,
        # Rotation is ours: transformers deletes the old before the new is known to be good.
        save_total_limit=None,
        use_cpu=not has_gpu(),
        dataloader_pin_memory=values.get("dataloader_pin_memory", has_gpu()),
        report_to=values.get("report_to", "none"),
        # Every micro-batch touches every parameter, so looking for unused ones is time lost.
        ddp_find_unused_parameters=values.get("ddp_find_unused_parameters", False),
        logging_first_step=values.get("logging_first_step", True),
    )
    if not has_gpu():
        values["ddp_backend"] = "gloo"
    try:
        return TrainingArguments(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"train: {error}") from error


def _values(config: TrainConfig) -> dict[str, Any]:
    extra = config.training_arguments
    check_keys(extra)
    shared = {name: getattr(config, name) for name in type(config).model_fields if name in FIELDS}
    shared["gradient_checkpointing"] = bool(config.checkpointed_parts)
    values = {RENAMED.get(name, name): value for name, value in {**shared, **extra}.items()}
    for key, choices in CHOICES.items():
        if values.get(key, choices[0]) not in choices:
            raise ConfigError(
                f"train: {key} is {values[key]!r}; choose one of {', '.join(choices)}"
            )
    for key, only in UNLESS_PACKED.items():
        if config.packing and values.get(key, only) != only:
            raise ConfigError(
                f"train: {key} is {values[key]!r}, but with packing every sample is in one of the "
                "planned rows, whose order is random; remove it, or say packing: false"
            )
    return values


def check_keys(extra: Mapping[str, Any]) -> None:
    """Check keys that must be fields of transformers.TrainingArguments.

    Raises:
        ConfigError: Naming all that are unknown, decided by this project or no number.
    """
    findings = [found for key, value in extra.items() if (found := _find_fault(key, value))]
    if findings:
        raise ConfigError("train: " + "; ".join(findings))


def _find_fault(key: str, value: object) -> str:
    """Say what is wrong with a key, "" if nothing is."""
    if key in INSTEAD:
        return f"{key!r} is not a key here: {INSTEAD[key]}"
    if key not in FIELDS:
        return unknown_key(key, [*TrainConfig.model_fields, *FIELDS])
    if key in DECIDED_HERE and not (key in AS_DECIDED and value == AS_DECIDED[key]):
        return f"{key!r} cannot be set: {DECIDED_HERE[key]}"
    if _is_number(FIELDS[key].default) and isinstance(value, str):
        return f"{key}: expected a number, got the text {value!r}"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def deepspeed_config(path: str | None) -> dict[str, Any] | None:
    """Read a DeepSpeed JSON file and fill in what this project's training relies on.

    Raises:
        ConfigError: If the file is missing or no JSON object, or brings its own optimizer or
            scheduler, which would leave the learning rates of `train_modules` unused.
    """
    if path is None:
        return None
    settings = _read_json_object(Path(path))
    for section in ("optimizer", "scheduler"):
        if section in settings:
            raise ConfigError(
                f"train.deepspeed: {path} has a section {section!r}; remove it. The {section} is "
                "built from learning_rate, train_modules, optim and lr_scheduler_type, and a "
                "second one would replace the learning rates of train_modules"
            )
    for key in (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    ):
        settings.setdefault(key, "auto")
    for precision in ("bf16", "fp16"):
        settings.setdefault(precision, {"enabled": "auto"})
    settings.setdefault("steps_per_print", SILENT_STEPS)
    # Ours is a torch optimizer with one group per learning rate: allowed, and never swapped
    # for DeepSpeed's own, which is compiled for minutes on first use.
    settings["zero_allow_untested_optimizer"] = True
    settings["zero_force_ds_cpu_optimizer"] = False
    zero = settings.setdefault("zero_optimization", {"stage": 0})
    if zero.get("stage") == 3:
        # Without it the trained model cannot be saved.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return settings


def _read_json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"train.deepspeed: there is no file {str(path)!r}; config/deepspeed holds one for "
            "each ZeRO stage, and no 'deepspeed' key at all trains without DeepSpeed"
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"train.deepspeed: {path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"train.deepspeed: {path} must hold a JSON object")
    return settings


def data_seed(arguments: TrainingArguments) -> int:
    """Return the seed of the order of the data."""
    return arguments.seed if arguments.data_seed is None else arguments.data_seed


def zero_stage(arguments: TrainingArguments) -> int | None:
    """Return the ZeRO stage, None without DeepSpeed."""
    settings = arguments.deepspeed
    if settings is None:
        return None
    assert isinstance(settings, dict)
    return int(settings.get("zero_optimization", {}).get("stage", 0))


def optimizer_state_bytes(optimizer: str) -> int:
    """Return the bytes of state that an optimizer, as transformers names it, keeps per number."""
    return STATE_BYTES.get(optimizer, ADAM_BYTES)
