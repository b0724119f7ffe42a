"""Which keys of a configuration are in effect, and which are set and decide nothing.

A key without effect is no error: `learning_rate` may stand beside a `train_modules` whose every
entry has a rate of its own.  It is said, so that nobody waits for what it will not do.
"""

from collections.abc import Callable
from typing import Any

from ovis_model.train_config import TrainConfig
from ovis_model.training.train_modules import parse_train_modules

#: Key, whether something else decides in its place, and what.
RULES: tuple[tuple[str, Callable[[TrainConfig], bool], str], ...] = (
    ("pack_length", lambda c: not c.packing, "packing is false"),
    ("num_train_epochs", lambda c: c.max_steps > 0, "max_steps decides"),
    ("save_steps", lambda c: _extra(c, "save_strategy") == "epoch", "save_strategy is epoch"),
    (
        "warmup_steps",
        lambda c: c.lr_scheduler_type == "constant",
        "lr_scheduler_type has no warm-up",
    ),
    (
        "early_stopping_threshold",
        lambda c: c.early_stopping_patience is None,
        "early_stopping_patience is not set",
    ),
    (
        "learning_rate",
        lambda c: c.lora_r == 0 and _has_every_rate(c),
        "every entry of train_modules has a rate of its own",
    ),
)


def without_effect(config: TrainConfig) -> dict[str, str]:
    """Return the keys that differ from their default and decide nothing, each with the reason.

    Example:
        >>> config = TrainConfig(ovis_pretrained_path="base", pack_length=512)
        >>> without_effect(config)
        {'pack_length': 'packing is false'}
    """
    return {key: why for key, is_idle, why in RULES if _is_set(config, key) and is_idle(config)}


def _is_set(config: TrainConfig, key: str) -> bool:
    return bool(getattr(config, key) != TrainConfig.model_fields[key].default)


def _extra(config: TrainConfig, key: str) -> Any:
    return config.training_arguments.get(key)


def _has_every_rate(config: TrainConfig) -> bool:
    first = parse_train_modules(config.train_modules, learning_rate=1.0)
    return first == parse_train_modules(config.train_modules, learning_rate=2.0)
