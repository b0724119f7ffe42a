"""From benchmarks and settings to exams: which questions, asked how, marked by which rule.

    own             the settings of the `evaluate` section; what follows the thought is marked
    other presets   official settings; official post-processing decides what is marked

Presets are explained in `protocol`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ovis_model.config import EvaluateConfig, FrameSampling
from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.exam import Exam, Question, seeds_of
from ovis_model.evaluation.grouping import cluster_name, groups_of, parts_of, slices_of
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.item_media import load_media
from ovis_model.evaluation.marking import PRESET, Marker
from ovis_model.evaluation.protocol import Preset, Protocol, model_size
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile
from ovis_model.inference.engine import OWN_PIXELS, Pixels
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.pictures import Media
from ovis_model.model_folder import digest_of
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config


@dataclass(frozen=True)
class Way:
    """How one benchmark is asked and marked.

    Attributes:
        settings: Lengths and decoding.
        protocol: What of it goes into the fingerprint.
        pixels: Smallest and largest area of a picture.
        seeds: Every question is asked once with each.
        profile: The revision that official rules follow.
        official: Whether official post-processing decides what is marked.
    """

    settings: GenerationSettings
    protocol: Mapping[str, Any]
    pixels: Pixels = OWN_PIXELS
    seeds: tuple[int, ...] = (0,)
    profile: Profile = DEFAULT_PROFILE
    official: bool = False


def build_exams(
    benchmarks: Sequence[Benchmark], config: EvaluateConfig, *, model: Path
) -> list[Exam]:
    """Prepare benchmarks to be asked.

    Args:
        benchmarks: Read and checked.
        config: How they are asked.
        model: The checkpoint that the preset `published` is chosen for.

    Raises:
        DataError: If a medium of a benchmark is missing.
        ConfigError: If the preset does not say what to do with such a model.
    """
    return [build_exam(one, choose_way(one, config, model=model)) for one in benchmarks]


def choose_way(benchmark: Benchmark, config: EvaluateConfig, *, model: Path) -> Way:
    """Decide how a benchmark is asked.

    Raises:
        ConfigError: If the preset does not say what to do with such a model.
    """
    if config.preset == "own":
        settings = own_settings(config)
        seeds = seeds_of(settings, config.seed, config.num_seeds)
        return Way(settings, describe_protocol(config), seeds=seeds)
    protocol = official_protocol(config.preset, model)
    chosen = protocol.settings(benchmark.header)
    limits = chosen.pixel_limits
    seeds = seeds_of(chosen.generation, config.seed, config.num_seeds)
    described = {**chosen.to_json(), "seeds": list(seeds), "profile": protocol.profile.name}
    return Way(
        settings=chosen.generation,
        protocol=described,
        pixels=(limits.single_image_min_pixels, limits.single_image_max_pixels),
        seeds=seeds,
        profile=protocol.profile,
        official=True,
    )


def official_protocol(preset: Preset, model: Path) -> Protocol:
    """Return the settings of a preset for a checkpoint."""
    shape = Ovis2_5Config.from_pretrained(model).llm
    return Protocol(preset, model_size(shape.num_hidden_layers, shape.hidden_size))


def own_settings(config: EvaluateConfig) -> GenerationSettings:
    """Read the settings of the `evaluate` section."""
    return GenerationSettings(
        max_new_tokens=config.max_new_tokens,
        enable_thinking=config.enable_thinking,
        thinking_budget=config.budget,
        do_sample=config.do_sample,
        temperature=config.temperature,
    )


def describe_protocol(config: EvaluateConfig) -> dict[str, Any]:
    """Return what decides how answers are generated, and nothing else."""
    if config.preset != "own":
        return {PRESET: config.preset}
    seeds = seeds_of(own_settings(config), config.seed, config.num_seeds)
    return {
        "enable_thinking": config.enable_thinking,
        "thinking_budget": config.budget,
        "max_new_tokens": config.max_new_tokens,
        "do_sample": config.do_sample,
        "temperature": config.temperature if config.do_sample else None,
        "seed": (seeds[0] if len(seeds) == 1 else list(seeds)) if config.do_sample else None,
    }


def build_exam(benchmark: Benchmark, way: Way) -> Exam:
    """Prepare one benchmark to be asked.

    Raises:
        DataError: If a medium is missing.
    """
    # Before any model is loaded: a missing file should cost seconds, not an evaluation.
    fingerprint = benchmark.fingerprint(way.protocol)
    digests: dict[str, str] = {}
    return Exam(
        name=benchmark.name,
        fingerprint=fingerprint,
        metric=benchmark.header.metric,
        questions=[_question(benchmark, item, digests) for item in benchmark.items],
        settings=way.settings,
        mark=Marker(benchmark, way.profile, official=way.official),
        pixels=way.pixels,
        seeds=way.seeds,
        parts=parts_of(benchmark.header.aggregate_name, benchmark.items),
        scorer=way.profile.name,
    )


def _question(benchmark: Benchmark, item: BenchmarkItem, digests: dict[str, str]) -> Question:
    """Put one question.

    Args:
        benchmark: Whose it is.
        item: Of it.
        digests: sha256 of media by name, which this adds to.
    """
    prompt = benchmark.prompt(item)
    # A prompt may show an image twice, or not at all.
    shown = item.model_copy(update={"image": prompt.image})
    for name in (*item.media, *shown.media):
        if name not in digests:
            digests[name] = benchmark.media.sha256(name)
    own = [digests[name] for name in item.media]
    aggregate = benchmark.header.aggregate_name
    return Question(
        index=item.id,
        prompt=prompt.text,
        messages=[prompt.message],
        truth=item.answer,
        media=tuple(digests[name] for name in shown.media),
        open_media=partial(_open_media, benchmark, shown),
        row_hash=digest_of([item.exam_content, own]),
        cluster=cluster_name(item, aggregate, own),
        groups=groups_of(item, aggregate),
        slices=slices_of(item, benchmark.header.slices, ()),
    )


def _open_media(benchmark: Benchmark, item: BenchmarkItem, sampling: FrameSampling) -> Media:
    return load_media(benchmark, item, sampling)


def with_budget(exam: Exam, budget: int) -> Exam:
    """Ask the same with another thinking budget; the room for the answer stays as it is.

    Args:
        exam: Under its own settings.
        budget: Tokens of thinking; 0 asks without thinking.
    """
    settings = exam.settings
    room = settings.max_new_tokens - (settings.thinking_budget or 0)
    changed = replace(
        settings,
        enable_thinking=budget > 0,
        thinking_budget=budget or None,
        max_new_tokens=budget + room,
    )
    fingerprint = digest_of([exam.fingerprint, budget])
    return replace(exam, settings=changed, fingerprint=fingerprint)
