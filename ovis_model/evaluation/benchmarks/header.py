"""What a benchmark's YAML may say; `docs/evaluation.md` has the table."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ovis_model.evaluation.prompts import PromptStyle
from ovis_model.evaluation.scoring.aggregates import AggregateName
from ovis_model.evaluation.scoring.metrics import METRICS, Metric, MetricOptions
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile

Format = Literal["jsonl", "vlmevalkit", "conversations"]
_FORMAT_OF_SUFFIX: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".tsv": "vlmevalkit",
    ".json": "conversations",
    ".parquet": "conversations",
}
#: Keys that came later and decide what a score means: part of a fingerprint once they are set.
_LATER = {
    "dataset",
    "prompt",
    "split",
    "aggregate",
    "drop_without_image",
    "na_compat",
    "tolerance",
    "relative_tolerance",
    "pattern",
    "field",
    "thinking",
    "min_pixels",
}


class BenchmarkHeader(BaseModel):
    """What the YAML says.

    Attributes:
        name: What scores are filed under.
        version: Raised when items change on purpose.
        items: The file with the items, absolute or relative to the YAML.
        metric: A name of `METRICS`.
        description: For people.
        format: How the items are written; None tells it from the file's ending.
        media: Folder of files that items name, absolute or relative to the YAML; None is where
            the items are.
        catalogue: The entry of the shipped catalogue that everything else comes from.
        dataset: The official name; it decides thinking and pixels under official settings.
        prompt: How a question is put.
        split: Only rows whose column `split` is one of these; empty takes all.
        aggregate: How marks become a score; None leaves it to the metric.
        drop_without_image: Leave out rows without an image, and count them, instead of refusing.
        na_compat: "vlmevalkit" takes cells such as None and NA for empty ones, as it does.
        tolerance: Of metric `number`.
        relative_tolerance: Of metric `number`, as a fraction of the true one.
        pattern: Of metric `regex`.
        field: Of metric `json_field`.
        thinking: Overrides whether the model thinks under official settings.
        min_pixels: Overrides the smallest area of an image under official settings.
        slices: Columns to tell scores apart by.
        md5: Of the official file.
        published: The name of the published number that this benchmark is about.
        not_comparable: Why it can never be compared with it; empty if it can.
        judge: Whether an official run asks a judge model: for what the rule cannot tell
            ("fallback"), to take answers out of texts ("extraction"), or not at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    version: int = Field(ge=1)
    items: str
    metric: str
    description: str = ""
    format: Format | None = None
    media: str | None = None
    catalogue: str | None = None
    dataset: str = ""
    prompt: PromptStyle = "verbatim"
    split: tuple[str, ...] = ()
    aggregate: AggregateName | None = None
    drop_without_image: bool = False
    na_compat: Literal["none", "vlmevalkit"] = "none"
    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    pattern: str = ""
    field: str = ""
    thinking: bool | None = None
    min_pixels: int | None = Field(default=None, gt=0)
    slices: tuple[str, ...] = ()
    md5: str = ""
    published: str = ""
    not_comparable: str = ""
    judge: Literal["none", "fallback", "extraction"] = "none"

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"there is no metric {value!r}; it is one of {', '.join(METRICS)}")
        return value

    @field_validator("split", "slices", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known_format(self) -> Self:
        if self.format is None and self._suffix not in _FORMAT_OF_SUFFIX:
            raise ValueError(
                f"items: {self.items!r} ends in none of {', '.join(_FORMAT_OF_SUFFIX)}; say with "
                "'format' what it is: jsonl, vlmevalkit or conversations"
            )
        return self

    @property
    def _suffix(self) -> str:
        return "." + self.items.rpartition(".")[2].lower()

    @property
    def items_format(self) -> Format:
        """How the items are written."""
        return self.format or _FORMAT_OF_SUFFIX[self._suffix]

    @property
    def rule(self) -> Metric:
        """The metric."""
        return METRICS[self.metric]

    @property
    def aggregate_name(self) -> AggregateName:
        """How marks become a score."""
        return self.aggregate or self.rule.aggregate

    @property
    def official_name(self) -> str:
        """The name that official settings go by; one's own benchmarks have their own."""
        return self.dataset or self.name

    def metric_options(self, profile: Profile = DEFAULT_PROFILE) -> MetricOptions:
        """What the metric needs besides answer and item."""
        return MetricOptions(
            tolerance=self.tolerance,
            relative_tolerance=self.relative_tolerance,
            pattern=self.pattern,
            field=self.field,
            profile=profile,
        )

    @property
    def exam_content(self) -> dict[str, Any]:
        """What of the header decides what a score means, for fingerprints."""
        later = self.model_dump(mode="json", include=_LATER, exclude_defaults=True)
        return {"name": self.name, "version": self.version, "metric": self.metric, **later}


def complete(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in what the catalogue says about a benchmark; the YAML's own keys come first.

    Raises:
        ValueError: If the catalogue has no such entry.
    """
    entry = values.get("catalogue")
    if entry is None:
        return values
    known = read_catalogue()
    if entry not in known:
        raise ValueError(f"catalogue: there is no {entry!r}; it has {', '.join(known)}")
    return {**known[entry], **values}


@cache
def read_catalogue() -> Mapping[str, Mapping[str, Any]]:
    """Read the benchmarks that are known by name: all but where their files are."""
    folder = files("ovis_model.evaluation.benchmarks") / "catalogue"
    entries = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.endswith(".yaml")
    )
    return {entry["name"]: entry for entry in entries}
