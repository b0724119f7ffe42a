"""The thinking budget that a sweep found best for a model: a small file beside its folder.

    models/finetuned/                the model
    models/finetuned.budget.json     {"model": "<digest>", "thinking_budget": 1024, ...}

Beside, because a model folder is what its manifest says, and the budget is found afterwards.
"""

from pathlib import Path

from pydantic import Field, ValidationError

from ovis_model.errors import ConfigError
from ovis_model.model_folder import digest_of_folder, listed_digest
from ovis_model.reports import Report


class AutoBudget(Report):
    """What a sweep recorded.

    Attributes:
        model: Digest of the model folder.
        thinking_budget: Tokens of thinking; 0 is no thinking.
        rule: Why this one.
        scores: Percent by budget.
    """

    model: str
    thinking_budget: int = Field(ge=0)
    rule: str = ""
    scores: dict[int, float] = Field(default_factory=dict)


def budget_file(model: Path) -> Path:
    """Return where a model's budget is recorded."""
    return model.with_name(f"{model.name}.budget.json")


def read_auto_budget(model: Path) -> int:
    """Return the budget recorded for a model.

    Raises:
        ConfigError: If none is recorded, or it is another model's.
    """
    path = budget_file(model)
    again = f"run `ovis eval sweep {model}`, or give a number"
    try:
        recorded = AutoBudget.read(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"thinking_budget 'auto' needs {path}, which is missing; {again}"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no record of a budget; {again}: {error}") from error
    if recorded.model != (listed_digest(model) or digest_of_folder(model)):
        raise ConfigError(f"{path} is about another model than the one in {model}; {again}")
    return recorded.thinking_budget
