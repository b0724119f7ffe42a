"""The seed's default values, and what takes their place when the caller says nothing.

The seed's signatures give numbers where a fine-tuned checkpoint knows better, and a token limit
below its own thinking budget.  A `Default` is that number, and can be told from the same number
given by the caller.
"""

import difflib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

from ovis_model.errors import CheckpointError
from ovis_model.inference.generation import GenerationSettings

log = logging.getLogger(__name__)

GENERATION_CONFIG = "generation_config.json"


class Default(int):
    """A number nobody asked for."""


BUDGET = Default(2048)
#: Tokens, or what a sweep recorded for the model.
Budget = int | Literal["auto"]
MAX_NEW_TOKENS = Default(1024)
#: Room for the default budget and as long an answer as without thinking.
MAX_NEW_TOKENS_THINKING = 3072
MIN_PIXELS = Default(448 * 448)
SINGLE_MAX_PIXELS = Default(1792 * 1792)
MANY_MAX_PIXELS = Default(896 * 896)
NUM_FRAMES = Default(8)


class Options(TypedDict, total=False):
    """What every way of asking takes besides the seed's arguments."""

    system: str | None
    """A system message; Ovis2.5 has none of its own."""
    stop: str | Sequence[str]
    """Strings that end the answer and are not part of it."""
    seed: int | None
    """Of sampling; None goes on with torch's own random numbers."""
    top_p: float
    """Sample from the likeliest tokens of this total probability."""
    top_k: int
    """Sample from so many likeliest tokens."""
    repetition_penalty: float
    """Above 1, tokens already generated become less likely."""


def given(value: int) -> int | None:
    """Return a value the caller gave, None for a default.

    Example:
        >>> given(2048), given(BUDGET)
        (2048, None)
    """
    return None if isinstance(value, Default) else value


@dataclass(frozen=True)
class SamplingDefaults:
    """How a checkpoint's authors sample from it, as its generation_config.json says.

    Attributes:
        temperature: Only to compare: the seed's methods have a default of their own.
        top_p: For sampling, when the caller gives none; likewise the next two.
        top_k: See above.
        repetition_penalty: See above.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a checkpoint folder's file; without one there are no defaults.

        Raises:
            CheckpointError: If the file is no JSON object, or a value is no number.
        """
        path = folder / GENERATION_CONFIG
        if not path.is_file():
            return cls()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON ({error}); restore or delete it") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} is not a JSON object; restore or delete it")
        values = {
            field.name: found[field.name]
            for field in fields(cls)
            if found.get(field.name) is not None
        }
        for name, value in values.items():
            if not isinstance(value, int | float):
                raise CheckpointError(f"{path}: {name} is {value!r}, which is not a number")
        return cls(**values)


class SettingsChooser:
    """Settles what the caller's arguments and the checkpoint's defaults mean together."""

    def __init__(
        self, defaults: SamplingDefaults, auto_budget: Callable[[], int] | None = None
    ) -> None:
        """Remember the defaults, and that nobody has been told about them yet.

        Args:
            defaults: Of the checkpoint.
            auto_budget: Reads the budget that `auto` stands for; None if there can be none.
        """
        self._defaults = defaults
        self._auto_budget = auto_budget
        self._told: set[str] = set()

    def choose(
        self,
        thinking: tuple[bool, bool, Budget],
        max_new_tokens: int,
        temperature: float,
        do_sample: bool,
        options: Options,
    ) -> GenerationSettings:
        """Choose the settings of one answer.

        A checkpoint's sampling values are used when sampling alone: greedy decoding is the
        likeliest token and nothing else, unless the caller gives a repetition penalty.

        Args:
            thinking: enable_thinking, enable_thinking_budget and thinking_budget.  Giving a
                budget while thinking is enabled enables it; without thinking both are without
                effect.  "auto" is what a sweep recorded, which may be not to think.
            max_new_tokens: Tokens in all.
            temperature: Of sampling.
            do_sample: Whether to sample.
            options: What the caller gave.

        Raises:
            TypeError: If an option is unknown.
        """
        check_names(options)
        enable_thinking, enable_budget, asked_budget = thinking
        budget: int = BUDGET
        if asked_budget != "auto":
            budget = asked_budget
        elif enable_thinking:
            budget = self._read_auto()
            enable_thinking = budget > 0
        bounded = enable_thinking and (enable_budget or given(budget) is not None)
        if enable_thinking and given(max_new_tokens) is None:
            max_new_tokens = MAX_NEW_TOKENS_THINKING
        stop = options.get("stop", ())
        return GenerationSettings(
            max_new_tokens=int(max_new_tokens),
            enable_thinking=enable_thinking,
            thinking_budget=int(budget) if bounded else None,
            do_sample=do_sample,
            temperature=temperature,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            seed=options.get("seed"),
            **self._sampling(temperature, options, do_sample=do_sample),
        )

    def _read_auto(self) -> int:
        if self._auto_budget is None:
            raise ValueError("thinking_budget 'auto' needs a model in a folder; give a number")
        return self._auto_budget()

    def _sampling(
        self, temperature: float, options: Options, *, do_sample: bool
    ) -> dict[str, Any]:
        names = ("top_p", "top_k", "repetition_penalty")
        asked = {name: value for name, value in options.items() if name in names}
        if not do_sample:
            return asked
        own = {name: getattr(self._defaults, name) for name in names}
        taken = {name: own[name] for name in names if name not in asked and own[name] is not None}
        if taken:
            self._tell(f"sampling with {_listed(taken)} of the checkpoint's {GENERATION_CONFIG}")
        wanted = {"temperature": self._defaults.temperature, **own}
        for name, value in {"temperature": temperature, **asked}.items():
            if wanted[name] not in (None, value):
                self._tell(
                    f"sampling with {name}={value}, not with {wanted[name]} as the checkpoint's "
                    f"{GENERATION_CONFIG} says"
                )
        return {**taken, **asked}

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            log.info(message)


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse options that nobody knows, as Python does with arguments.

    Raises:
        TypeError: Naming the option, and the nearest one that exists.
    """
    known = list(Options.__annotations__)
    for name in options:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
            raise TypeError(f"unknown option {name!r}; {hint}")


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
