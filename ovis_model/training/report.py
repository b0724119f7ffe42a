"""What a training says about itself, and the job file it is started with.

Free of torch, so that the step that starts a training and reads its report stays quick.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.errors import ConfigError
from ovis_model.reports import Report, write_text
from ovis_model.training.micro_batch import Reduction


class ModuleReport(Report):
    """How one module was trained; the rate is the one before warm-up and decay."""

    module: str
    learning_rate: float
    parameters: int


class StageReport(Report):
    """One training of several behind each other."""

    changes: dict[str, Any]
    """The keys in which it differs from the train section."""
    steps: int
    epochs: float
    first_loss: float
    final_loss: float
    holdout_loss: float | None
    trainable_parameters: int
    modules: list[ModuleReport]


class PackingReport(Report):
    """The rows of an epoch."""

    rows: int
    fill: float
    """Share of their room that is taken."""
    imbalance: float
    """How much longer an epoch takes because processes wait for the slowest; 1 is not at all."""


class TrainReport(Report):
    """The same inputs give the same report: durations and speed are in the metrics log.

    Losses are per supervised token, in nats.
    """

    steps: int
    epochs: float
    data_name: str = ""
    samples: int
    holdout_samples: int
    tokens: int
    supervised_tokens: int
    longest_sample_tokens: int
    first_loss: float
    final_loss: float
    holdout_loss: float | None
    weights_step: int
    """Step of the weights handed over; below `steps` where those were not the best."""
    parameters: int
    trainable_parameters: int
    modules: list[ModuleReport]
    world_size: int
    effective_batch_size: int
    """Samples per optimizer step; with packing, rows."""
    deepspeed: bool
    zero_stage: int
    dtype: str
    attn_implementation: dict[str, str]
    execution: dict[str, str] = Field(default_factory=dict)
    """What was picked for precision, kernels and memory, and why."""
    device: str
    packing: PackingReport | None = None
    stages: list[StageReport] = Field(default_factory=list)
    """If there were several: steps, epochs and first loss above are those of all together, the
    rest is the last one's."""
    micro_batch_reductions: tuple[Reduction, ...] = ()
    """What was done about a lack of memory; the samples of a step stayed the same."""


class TrainJob(BaseModel):
    """Everything one training needs to know: the single argument of `ovis_model.training`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]
    data: Path
    output: Path
    resume: Path
    metrics_log: Path
    report: Path
    loss_csv: Path
    xray: Path | None = None
    inputs_digest: str = ""

    def write(self, path: Path) -> None:
        """Write the job file."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str) -> Self:
        """Build a job from decoded JSON.

        Raises:
            ConfigError: Naming every key that is missing, unknown or of a wrong type.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            findings = "; ".join(
                f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
                for one in error.errors()
            )
            raise ConfigError(f"{where} is not a training job: {findings}") from error
