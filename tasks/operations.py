"""The only reader of operations.yaml: when to run, whom to ask and whom to tell.

Kept apart from params.yaml because nothing here changes what a run computes, so no DVC stage
depends on it.
"""

import re
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, field_validator

from ovis_model.config import StepConfig
from ovis_model.drift.rules import DriftRules
from ovis_model.errors import ConfigError
from tasks.artifacts import OPERATIONS
from tasks.params import read_yaml


class ScheduleConfig(StepConfig):
    """When a retrain is due by the clock, and what becomes of one that cannot start then."""

    cron: str = "0 2 * * 1"
    timezone: str = "UTC"
    catch_up: Literal["one", "none"] = Field(
        default="one", description="after windows that were missed: a single run, or none"
    )
    late_minutes: int = Field(
        default=60, gt=0, description="how late a run may start before its window is missed"
    )
    overlap: Literal["queue", "skip"] = Field(
        default="queue", description="while another run has the working tree: wait, or leave out"
    )


class TriggersConfig(StepConfig):
    """What else is a reason to train again, and how often at most."""

    new_data: bool = Field(default=False, description="the raw data that params.yaml names change")
    drift: bool = Field(default=False, description="they do, and are not like the champion's")
    look_every_minutes: int = Field(default=10, gt=0)
    stable_minutes: int = Field(
        default=10, ge=0, description="how long new data must stay as they are"
    )
    per_day: int = Field(default=2, gt=0, description="retrains that triggers may start in 24 h")


class ApprovalConfig(StepConfig):
    """How long people have where params.yaml says `promotion: by_approval`."""

    timeout_hours: float = Field(default=72.0, gt=0, description="then the answer is no")


class TimeoutsConfig(StepConfig):
    """After how many hours a step of a flow is ended as one that hangs."""

    validate_: float = Field(default=24.0, gt=0, alias="validate")
    extract: float = Field(default=48.0, gt=0)
    train: float = Field(default=336.0, gt=0)
    evaluate: float = Field(default=48.0, gt=0)
    register_: float = Field(default=2.0, gt=0, alias="register")


#: What somebody may want to hear of.
Kind = Literal["failure", "gate_refused", "drift", "promoted", "rolled_back", "approval"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class ChannelConfig(StepConfig):
    """Which events one channel tells."""

    kinds: tuple[Kind, ...] = KINDS


class AddressConfig(ChannelConfig):
    """A channel to somewhere else; silent while its environment variable is not set."""

    address: str = Field(description="environment variable that holds the address, a secret")

    @field_validator("address")
    @classmethod
    def _names_a_variable(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # Not a ValueError, which would be told with the value: it may be the secret itself.
            raise ConfigError(
                "operations.yaml: notify: `address` must be the name of an environment variable, "
                "such as OVIS_WEBHOOK; the address itself is a secret and belongs into that "
                "variable"
            )
        return name


class NotifyConfig(StepConfig):
    """Whom to tell, and of what."""

    project: str = Field(default="", description="the working tree's folder if empty")
    log: ChannelConfig = Field(default_factory=ChannelConfig)
    file: ChannelConfig = Field(default_factory=ChannelConfig)
    webhook: AddressConfig = Field(default_factory=lambda: AddressConfig(address="OVIS_WEBHOOK"))
    slack: AddressConfig = Field(
        default_factory=lambda: AddressConfig(address="OVIS_SLACK_WEBHOOK")
    )
    seconds: float = Field(
        default=5.0, gt=0, le=60, description="how long all addresses together may take"
    )


class Operations(StepConfig):
    """All sections; one that is left out has its defaults."""

    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    notify: NotifyConfig = Field(default_factory=NotifyConfig)
    drift: DriftRules = Field(default_factory=DriftRules)
    triggers: TriggersConfig = Field(default_factory=TriggersConfig)
    approval: ApprovalConfig = Field(default_factory=ApprovalConfig)
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig)

    @classmethod
    def read(cls, path: Path = OPERATIONS) -> Self:
        """Read and check the file.

        Raises:
            ConfigError: If it, a section or a value cannot be used; unknown names are answered
                with the nearest known one.
        """
        return cls.parse(read_yaml(path), where=str(path))
