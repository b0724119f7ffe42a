"""One frozen class per step: what params.yaml may say, checked before any work starts.

Nothing here imports torch, so that reading a configuration stays instant.  The class of the
train step, by far the longest, is in `ovis_model.train_config`.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ovis_model.errors import ConfigError


class StepConfig(BaseModel):
    """Frozen, and unknown keys are errors: a typo must not train a model for a day."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Build the config, turning every finding into one ConfigError.

        Args:
            values: Keys and values as read from YAML or JSON.
            where: File and section, for the message.

        Raises:
            ConfigError: Listing every bad key, with the nearest known name for unknown ones.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            findings = [_explain(finding, cls) for finding in error.errors()]
            raise ConfigError(f"{where}: " + "; ".join(findings)) from error


def _explain(finding: Any, config: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in finding["loc"])
    if finding["type"] == "extra_forbidden":
        *outer, name = finding["loc"]
        place = ".".join(map(str, outer))
        hint = unknown_key(str(name), _known_keys(config, outer))
        return f"{place}: {hint}" if place else hint
    message = finding["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {finding['input']!r})" if key else message


def _known_keys(config: type[BaseModel], place: Iterable[Any]) -> Iterable[str]:
    """List the keys of a section, or of the class of sections that lies at a place in it."""
    for part in place:
        if isinstance(part, int):
            continue
        field = config.model_fields[part].annotation
        inner = [found for found in (field, *get_args(field)) if isinstance(found, type)]
        config = next((found for found in inner if issubclass(found, BaseModel)), config)
    return config.model_fields


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is unknown and name the nearest known one.

    Example:
        >>> unknown_key("learning_rat", ["learning_rate", "seed"])
        "unknown key 'learning_rat'; did you mean 'learning_rate'?"
    """
    nearest = difflib.get_close_matches(key, list(known), n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "; no known key is close to it"
    return f"unknown key {key!r}{hint}"


class PixelLimits(StepConfig):
    """Smallest and largest area a medium is resized to, in pixels; the seed's six keys.

    A negative limit for several images or a video is derived: the minimum becomes the single
    image's, the maximum the single image's divided by the number of images or frames.
    """

    single_image_min_pixels: int = Field(default=448 * 448, gt=0)
    single_image_max_pixels: int = Field(default=1792 * 1792, gt=0)
    multiple_image_min_pixels: int = 448 * 448
    multiple_image_max_pixels: int = 896 * 896
    video_min_pixels: int = Field(default=448 * 448, description="per frame")
    video_max_pixels: int = Field(default=896 * 896, description="per frame")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for kind in ("single_image", "multiple_image", "video"):
            low, high = self.bounds(kind)
            if low > high or 0 in (low, high):
                raise ValueError(
                    f"{kind}_min_pixels ({low} px) and {kind}_max_pixels ({high} px) must be "
                    "above 0 and in this order"
                )
        return self

    def bounds(self, kind: str, count: int = 1) -> tuple[int, int]:
        """Return (min, max) pixels of each of `count` images or frames.

        Args:
            kind: 'single_image', 'multiple_image' or 'video'.
            count: Images of the sample, or frames of the video.
        """
        low, high = getattr(self, f"{kind}_min_pixels"), getattr(self, f"{kind}_max_pixels")
        if low < 0:
            low = self.single_image_min_pixels
        if high < 0:
            high = max(low, self.single_image_max_pixels // count)
        return low, high


class FrameSampling(StepConfig):
    """How many frames stand for a video; the same in extraction, training and inference."""

    min_frames: int = Field(default=8, gt=0)
    max_frames: int = Field(default=8, gt=0)

    @model_validator(mode="after")
    def _ordered_frames(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(
                f"min_frames ({self.min_frames}) is above max_frames ({self.max_frames})"
            )
        return self


class ThinkingConfig(StepConfig):
    """How long the model may think before it must answer."""

    enable_thinking: bool = True
    enable_thinking_budget: bool = True
    thinking_budget: int = Field(default=2048, gt=0, description="tokens, thinking only")
    max_new_tokens: int = Field(default=3072, gt=0, description="tokens, thinking + answer")

    @model_validator(mode="after")
    def _room_for_an_answer(self) -> Self:
        if self.budget is not None and self.thinking_budget >= self.max_new_tokens:
            raise ValueError(
                f"thinking_budget ({self.thinking_budget} tokens) leaves no room for an answer "
                f"within max_new_tokens ({self.max_new_tokens} tokens); raise max_new_tokens"
            )
        return self

    @property
    def budget(self) -> int | None:
        """The thinking budget in tokens, or None when thinking is off or unbounded."""
        bounded = self.enable_thinking and self.enable_thinking_budget
        return self.thinking_budget if bounded else None


class MediaLimits(StepConfig):
    """What a file may cost before it is refused: nobody knows who made it."""

    max_image_bytes: int = Field(default=64 * 2**20, gt=0)
    max_video_bytes: int = Field(default=4 * 2**30, gt=0)
    max_pixels: int = Field(
        default=64_000_000, gt=0, description="per picture; 192 MB in RGB, twice a phone's largest"
    )
    min_side: int = Field(default=2, gt=0, description="px")
    max_video_seconds: float = Field(default=4 * 3600.0, gt=0)
    decode_seconds: float = Field(default=60.0, gt=0, description="wall time per file")
    decode_memory_gb: float = Field(
        default=4.0, gt=0, description="address space of a decoding process"
    )


class SourceConfig(StepConfig):
    """One of several sets of annotations that are trained on together."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    annotations: str = Field(description="file below raw_data")
    format: str = Field(default="auto", description="see ovis_model/data/formats")
    media: str = Field(default="", description="folder below raw_data that its paths start from")
    weight: float = Field(
        default=1.0, gt=0, description="copies of each sample per epoch; below 1, a share of them"
    )
    max_samples: int | None = Field(default=None, gt=0, description="a cap, before the weight")
    licence: str = Field(default="", description="of these data; the model card tells it")


OverLength = Literal["error", "drop", "shrink_pixels", "fewer_frames", "truncate_text"]


class ValidateConfig(StepConfig):
    """Step 1: which raw data, and how much bad data stops the run."""

    raw_data: str = Field(description="folder with the annotations and all media")
    annotations: str = Field(default="annotations.json", description="file below raw_data")
    format: str = Field(default="auto", description="see ovis_model/data/formats")
    data_name: str | None = Field(
        default=None, description="names of a datainfo file, joined by '|'; all by default"
    )
    coordinates: str = Field(
        default="ovis",
        description="how boxes are written: ovis, absolute, normalised, permille; or their xywh",
    )
    sources: tuple[SourceConfig, ...] = Field(
        default=(), description="several sets of annotations; `annotations` is then not read"
    )
    mix_seed: int = 0
    holdout_fraction: float = Field(default=0.05, ge=0, lt=1)
    split_seed: int = 0
    max_bad_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of samples that may be quarantined"
    )
    severity: dict[str, Literal["stop", "quarantine", "warn"]] = Field(
        default_factory=dict, description="reason code to weight; see ovis_model/data/reasons.py"
    )
    over_length: OverLength = Field(
        default="error", description="what becomes of a sample that is too long"
    )
    media_check: Literal["decode", "header"] = Field(
        default="decode", description="header: faster; damage further in is found by extract"
    )
    limits: MediaLimits = Field(default_factory=MediaLimits)
    workers: int = Field(default=2, gt=0, description="decoding processes")
    dask_scheduler: str | None = Field(
        default=None, description="address of a Dask scheduler whose workers decode instead"
    )

    @model_validator(mode="after")
    def _one_name_per_source(self) -> Self:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"sources: more than one is named {', '.join(twice)}; caps, weights and reports "
                "go by name: give each its own"
            )
        return self


class ExtractConfig(FrameSampling):
    """Step 2: frames out of videos, images content-addressed."""

    workers: int = Field(default=2, gt=0, description="decoding processes")
    dask_scheduler: str | None = Field(
        default=None, description="address of a Dask scheduler whose workers decode instead"
    )
    video_reader: Literal["pyav", "moviepy"] = "pyav"
    max_bad_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="share of samples whose files may fail to decode"
    )
    shards: bool = Field(default=False, description="pack pictures into tar files for DVC")


class EvaluateConfig(ThinkingConfig):
    """Step 4: benchmarks, with thinking enabled by default."""

    benchmarks: str = Field(description="folder of benchmark YAML files")
    limit: int | None = Field(default=None, gt=0, description="items per benchmark; None is all")
    preset: Literal["own", "published", "thinking_on", "thinking_off"] = Field(
        default="own", description="own: the keys of this section; else official settings"
    )
    batch_size: int = Field(default=32, gt=0, description="items generated together")
    batch_tokens: int = Field(
        default=131_072, gt=0, description="positions generated together, padding included"
    )
    do_sample: bool = False
    temperature: float = Field(default=0.6, gt=0)
    seed: int = Field(default=0, description="the first one of sampling")
    num_seeds: int | None = Field(
        default=None, gt=0, description="answers per item when sampling; None is 3"
    )
    thinking_off: bool = Field(
        default=False, description="ask the tuned model without thinking, too, and compare"
    )
    contamination: bool = Field(
        default=True, description="look for the benchmarks' items in the training data"
    )


Role = Literal["target", "guard"]


class ComparisonRules(StepConfig):
    """What a candidate must show against another model; numbers are points, 0 to 100."""

    targets: tuple[str, ...] = Field(
        default=(), description="benchmarks that must improve; the others are guards"
    )
    margin: float = Field(default=1.0, gt=0, description="a guard may lose less than this")
    margins: dict[str, float] = Field(default_factory=dict, description="by guard, if another")
    gain: float = Field(default=2.0, gt=0, description="smallest gain of a target worth having")
    max_forced_close_increase: float = Field(default=2.0, ge=0)
    max_invalid_increase: float = Field(default=1.0, ge=0)
    slices_may_regress: bool = True

    def role_of(self, benchmark: str) -> Role:
        """Tell what a benchmark is compared for."""
        return "target" if benchmark in self.targets else "guard"

    def sought(self, benchmark: str) -> float:
        """Return the gain or the loss, in points, that the rows of a benchmark should show."""
        if self.role_of(benchmark) == "target":
            return self.gain
        return self.margins.get(benchmark, self.margin)


class GateConfig(ComparisonRules):
    """What a candidate must show before `champion` may move to it.

    The inherited keys are about the champion; `margin` and `margins` about the base model, too.
    """

    min_score: dict[str, float] = Field(default_factory=dict, description="percent")
    max_forced_close_fraction: float = Field(default=1.0, ge=0, le=1)
    max_invalid_fraction: float = Field(default=1.0, ge=0, le=1)
    max_tokens_ratio: float | None = Field(
        default=None, gt=0, description="new tokens per answer, as a multiple of the champion's"
    )

    @property
    def against_champion(self) -> ComparisonRules:
        """The inherited keys."""
        return ComparisonRules(**self.model_dump(include=set(ComparisonRules.model_fields)))

    @property
    def against_base(self) -> ComparisonRules:
        """No benchmark may lose more than its margin.

        How the base thinks, and how often it has no answer, is no measure for a tuned model.
        """
        return ComparisonRules(
            margin=self.margin,
            margins=self.margins,
            max_forced_close_increase=100,
            max_invalid_increase=100,
        )


class RegisterConfig(StepConfig):
    """Step 5: where the model is registered, and the gate it must pass."""

    model_name: str = Field(default="ovis2_5", pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    promotion: Literal["automatic", "by_approval"] = Field(
        default="automatic", description="what follows a passing gate: the alias moves, or waits"
    )
    keep_best: int = Field(
        default=0, ge=0, description="best versions that keep their files without an alias"
    )
    gate: GateConfig = Field(default_factory=GateConfig)
