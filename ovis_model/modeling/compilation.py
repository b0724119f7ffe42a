"""Functions that torch.compile calls as they are.

Tables that are computed once per shape, and gradients written by hand: tracing either gains
nothing, and the compiler would trace through a cache as if it were not there.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def not_compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Keep a function out of compiled graphs."""
    disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return cast("Callable[Arguments, Result]", disabled)
