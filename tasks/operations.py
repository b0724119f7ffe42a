"""The only reader of operations.yaml: when to run, whom to ask and whom to tell.

Kept apart from params.yaml because nothing here changes what a run computes, so no DVC stage
depends on it.
"""

from pathlib import Path
from typing import Self

from pydantic import Field

from ovis_model.config import StepConfig
from tasks.artifacts import OPERATIONS
from tasks.params import read_yaml


class ScheduleConfig(StepConfig):
    """When a retrain is due by the clock."""

    cron: str = "0 2 * * 1"
    timezone: str = "UTC"


class Operations(StepConfig):
    """All sections; one that is left out has its defaults."""

    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)

    @classmethod
    def read(cls, path: Path = OPERATIONS) -> Self:
        """Read and check the file.

        Raises:
            ConfigError: If it, a section or a value cannot be used; unknown names are answered
                with the nearest known one.
        """
        return cls.parse(read_yaml(path), where=str(path))
