"""What counts as drift.  Apart from the comparison, so that reading a setting needs no scipy."""

from pydantic import Field

from ovis_model.config import StepConfig


class DriftRules(StepConfig):
    """Limits that a difference has to reach to be called drift."""

    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="chance of an alarm, over all features, if none is"
    )
    min_effect: float = Field(
        default=0.1, ge=0, le=1, description="share of samples that has to be elsewhere"
    )
    min_samples: int = Field(
        default=100, gt=0, description="independent samples that each side needs"
    )
