"""How a benchmark is run: the settings behind Ovis2.5's published numbers, and variations.

    published      thinking on or off for each benchmark, as the authors' code does
    thinking_on    thinking on everywhere
    thinking_off   thinking off everywhere

Everything else is the same in all three: 8192 new tokens, 6144 of them for thinking, images of
1024 x 1024 to 1792 x 1792 pixels, smaller ones allowed where text is read.

The authors' code gives an answer after a full thought 8192 - 6144 tokens.  Here the closing
sentence is taken from the same count: some 25 tokens fewer.

Source: VLMEvalKit @ 6f67cef5, class `Ovis2_5`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from ovis_model.config import PixelLimits
from ovis_model.errors import ConfigError
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile
from ovis_model.inference.generation import GenerationSettings

Preset = Literal["published", "thinking_on", "thinking_off"]
ModelSize = Literal["2B", "9B"]

MAX_NEW_TOKENS = 8192
THINKING_BUDGET = 6144
MIN_PIXELS, MAX_PIXELS = 1024 * 1024, 1792 * 1792
#: Where text is read small images are not blown up as far.
MIN_PIXELS_OF: Mapping[str, int] = MappingProxyType({"OCRBench": 448 * 448})

#: Layers and width of the language model, by which the authors' code tells the sizes.
SIZES: Mapping[tuple[int, int], ModelSize] = MappingProxyType({(28, 2048): "2B", (36, 4096): "9B"})
_THINKING_2B = (
    "HallusionBench",
    "MMStar",
    "MMMU",
    "MathVista",
    "MathVerse",
    "MathVision",
    "LogicVista",
    "WeMath",
    "DynaMath",
)
#: Beginnings of the names of benchmarks that a size thinks about.
THINKING: Mapping[ModelSize, tuple[str, ...]] = MappingProxyType(
    {"2B": _THINKING_2B, "9B": ("MMBench", *_THINKING_2B)}
)


def model_size(num_layers: int, hidden_size: int) -> ModelSize | None:
    """Tell which released model this is, None if it is neither.

    Args:
        num_layers: Of the language model.
        hidden_size: Of the language model.
    """
    return SIZES.get((num_layers, hidden_size))


@dataclass(frozen=True)
class RunSettings:
    """How one benchmark is run.

    Attributes:
        generation: Lengths and decoding.
        pixel_limits: Of every image and frame, however many there are.
    """

    generation: GenerationSettings
    pixel_limits: PixelLimits

    def to_json(self) -> dict[str, Any]:
        """What decides how answers are generated, for fingerprints."""
        generation = self.generation
        sampling = {
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "top_k": generation.top_k,
            "seed": generation.seed,
        }
        return {
            "enable_thinking": generation.enable_thinking,
            "thinking_budget": generation.thinking_budget,
            "max_new_tokens": generation.max_new_tokens,
            "do_sample": generation.do_sample,
            "repetition_penalty": generation.repetition_penalty,
            **(sampling if generation.do_sample else {}),
            **self.pixel_limits.model_dump(),
        }


@dataclass(frozen=True)
class Protocol:
    """The settings of an evaluation.

    Attributes:
        preset: See the module's table.
        size: Which released model the one evaluated is like; needed by `published` only.
        profile: The revision that the rules of marking follow.
        max_new_tokens: Tokens for thought and answer.
        thinking_budget: Tokens for the thought alone.
    """

    preset: Preset = "published"
    size: ModelSize | None = None
    profile: Profile = DEFAULT_PROFILE
    max_new_tokens: int = MAX_NEW_TOKENS
    thinking_budget: int = THINKING_BUDGET

    def settings(self, header: BenchmarkHeader, *, seed: int | None = None) -> RunSettings:
        """Decide how a benchmark is run.

        Args:
            header: The benchmark's; its own `thinking` and `min_pixels` come first.
            seed: Of sampling; None goes on with torch's own random numbers.

        Raises:
            ConfigError: If the preset does not say whether a model of this size thinks.
        """
        least = header.min_pixels or _min_pixels(header.official_name)
        return RunSettings(
            self._thinking(seed) if self._thinks(header) else self._direct(), _pixel_limits(least)
        )

    def _thinks(self, header: BenchmarkHeader) -> bool:
        if self.preset != "published":
            return self.preset == "thinking_on"
        if header.thinking is not None:
            return header.thinking
        if self.size is None:
            raise ConfigError(
                "the preset 'published' says for 2B and 9B which benchmarks they think about, and "
                "this model has the layers of neither; use thinking_on or thinking_off, or say "
                "which size it should be treated as"
            )
        return header.official_name.startswith(THINKING[self.size])

    def _thinking(self, seed: int | None) -> GenerationSettings:
        return GenerationSettings(
            max_new_tokens=self.max_new_tokens,
            enable_thinking=True,
            thinking_budget=self.thinking_budget,
            do_sample=True,
            temperature=0.6,
            top_p=0.95,
            top_k=20,
            repetition_penalty=1.05,
            seed=seed,
        )

    def _direct(self) -> GenerationSettings:
        return GenerationSettings(max_new_tokens=self.max_new_tokens)


def _min_pixels(name: str) -> int:
    for beginning, pixels in MIN_PIXELS_OF.items():
        if name.startswith(beginning):
            return pixels
    return MIN_PIXELS


def _pixel_limits(least: int) -> PixelLimits:
    return PixelLimits(
        single_image_min_pixels=least,
        single_image_max_pixels=MAX_PIXELS,
        multiple_image_min_pixels=least,
        multiple_image_max_pixels=MAX_PIXELS,
        video_min_pixels=least,
        video_max_pixels=MAX_PIXELS,
    )
