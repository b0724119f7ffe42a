"""The only reader of params.yaml: strict about keys, duplicates and numbers.

YAML 1.1, which PyYAML speaks, reads `1e-4` as text, and keeps the last of two equal keys
without a word.  DVC reads the same file as YAML 1.2, where `1e-4` is a number; and it writes
numbers that way (`dvc exp run -S train.learning_rate=1e-5`).  Here both readings agree.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ovis_model.config import (
    EvaluateConfig,
    ExtractConfig,
    RegisterConfig,
    StepConfig,
    ValidateConfig,
    unknown_key,
)
from ovis_model.errors import ConfigError
from ovis_model.train_config import OUTSIDE_PIPELINE, TrainConfig
from tasks.artifacts import PARAMS
from tasks.masking import is_secret

#: A number with an exponent, with or without a point: 1e-4, 1.0E+3, -2.e5.
EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")

CONFIGS: dict[str, type[StepConfig]] = {
    "validate": ValidateConfig,
    "extract": ExtractConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "register": RegisterConfig,
}


class Params(BaseModel):
    """All five sections, checked.

    Two fields are not named as their section, because pydantic's classes already have a
    `validate` and a `register`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: ValidateConfig = Field(alias="validate")
    extract: ExtractConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    register_: RegisterConfig = Field(alias="register")

    @classmethod
    def read(cls, path: Path = PARAMS) -> Self:
        """Read and check every section.

        Raises:
            ConfigError: If the file, a section or a value cannot be used; unknown names are
                answered with the nearest known one.
        """
        sections = read_yaml(path)
        for name in sections:
            if name not in CONFIGS:
                raise ConfigError(f"{path}: section: {unknown_key(str(name), CONFIGS)}")
        missing = [name for name in CONFIGS if name not in sections]
        if missing:
            raise ConfigError(f"{path}: missing section(s): {', '.join(missing)}")
        _refuse_secrets(sections, where=str(path))
        parsed: dict[str, Any] = {}
        for name, config in CONFIGS.items():
            values = sections[name]
            if not isinstance(values, dict):
                raise ConfigError(f"{path}: section {name!r} must hold keys, it holds {values!r}")
            parsed[name] = config.parse(values, where=f"{path}: {name}")
        _check_train(parsed["train"], where=f"{path}: train")
        return cls(**parsed)


def _check_train(config: TrainConfig, *, where: str) -> None:
    """Refuse keys that nothing would read here."""
    given = [
        f"{key} ({instead})"
        for key, instead in OUTSIDE_PIPELINE.items()
        if getattr(config, key) != TrainConfig.model_fields[key].default
    ]
    if given:
        raise ConfigError(
            f"{where}: these keys are for a training outside the pipeline; in brackets what says "
            f"it here: {', '.join(given)}"
        )


def _refuse_secrets(values: Any, *, where: str, name: str = "") -> None:
    """Refuse what is copied to git, DVC, MLflow and the model's folder from here."""
    if isinstance(values, Mapping | list):
        items = values.items() if isinstance(values, Mapping) else enumerate(values)
        for key, value in items:
            _refuse_secrets(value, where=where, name=f"{name}.{key}" if name else str(key))
    elif isinstance(values, str) and is_secret(name, values):
        raise ConfigError(
            f"{where}: {name} holds a password or a key, and this file goes into git, MLflow and "
            "the model's folder. Set an environment variable instead, such as HF_TOKEN, and make "
            "the old value invalid"
        )


class StrictLoader(yaml.SafeLoader):
    """Safe YAML without the two traps named at the top of this file."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.value in seen:
            raise ConfigError(
                f"{_place(key_node)}: key {key_node.value!r} is written twice; keep one of them"
            )
        seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _text(loader: StrictLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if EXPONENT.match(text):
        raise ConfigError(f"{_place(node)}: {text!r} is text, not a number; remove the quotes")
    return text


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}, line {node.start_mark.line + 1}"


StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
StrictLoader.add_constructor("tag:yaml.org,2002:str", _text)
StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level holds keys.

    Raises:
        ConfigError: If the file is missing, is not YAML, repeats a key, or quotes a number.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = yaml.load(file, Loader=StrictLoader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing; run from the repository root") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: keys at the top level are expected, it holds {values!r}")
    return values
