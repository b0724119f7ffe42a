"""Write the sample dataset and its benchmarks: real handwritten digits in every kind of sample.

    digits/train/         annotations.json (the seed's format), images/, videos/
    digits/benchmarks/    <name>.yaml, <name>.jsonl, images/, videos/

The two share no digit.  The same parameters give the same bytes, on any run.
"""

import argparse
import json
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import digit_exercises as exercises
import yaml
from digit_exercises import Exercise
from digit_media import Digit, MediaFolder, load_distinct_digits, split_digits
from pydantic import BaseModel, ConfigDict, Field

HERE = Path(__file__).parent
#: System prompts, and whether the answer is then a word.
SYSTEM_PROMPTS = (
    ("Answer with an English word.", True),
    ("Answer with a numeral.", False),
)

Drawn = TypeVar("Drawn")

log = logging.getLogger(__name__)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoConfig(_Section):
    """How a video shows its digits."""

    digits: int = Field(default=4, gt=0)
    frames_per_digit: int = Field(default=3, gt=0)
    fps: int = Field(default=6, gt=0)


class TrainCounts(_Section):
    """Samples of each kind; None takes every digit there is."""

    single_digits: int | None = Field(default=None, ge=0, description="each told twice")
    multi_image: int = Field(default=600, ge=0)
    video_files: int = Field(default=60, ge=0)
    video_frame_lists: int = Field(default=500, ge=0)
    grounding: int = Field(default=900, ge=0)
    text_only: int = Field(default=150, ge=0)
    system_prompt: int = Field(default=100, ge=0)
    multi_turn: int = Field(default=150, ge=0)


class BenchmarkCounts(_Section):
    """Items of each benchmark; None takes every held-out digit."""

    digits_single: int | None = Field(default=None, ge=0)
    digits_multi_image: int = Field(default=60, ge=0)
    digits_video: int = Field(default=30, ge=0)
    digits_grounding: int = Field(default=60, ge=0)


class DigitsConfig(_Section):
    """Section `digits` of params.yaml."""

    seed: int = 0
    image_pixels: int = Field(default=32, gt=0, multiple_of=32)
    benchmark_fraction: float = Field(default=0.2, gt=0, lt=1)
    video: VideoConfig = VideoConfig()
    train: TrainCounts = TrainCounts()
    benchmarks: BenchmarkCounts = BenchmarkCounts()

    @classmethod
    def read(cls, params: Path) -> "DigitsConfig":
        """Read the section, refusing keys it does not know."""
        return cls.model_validate(yaml.safe_load(params.read_text(encoding="utf-8"))["digits"])


@dataclass(frozen=True)
class Workshop:
    """What every maker of samples needs."""

    config: DigitsConfig
    rng: random.Random
    digits: Sequence[Digit]
    media: MediaFolder

    @classmethod
    def open(cls, config: DigitsConfig, digits: Sequence[Digit], root: Path) -> "Workshop":
        """Start an empty dataset in `root`."""
        media = MediaFolder(
            root,
            side=config.image_pixels,
            fps=config.video.fps,
            frames_per_digit=config.video.frames_per_digit,
        )
        return cls(config, random.Random(config.seed), digits, media)

    def choose(self, count: int | None) -> list[Digit]:
        """Pick `count` digits, or all."""
        chosen = self.digits if count is None else self.draw(self.digits, count, what="digits")
        return sorted(chosen, key=lambda digit: digit.index)

    def draw(self, source: Sequence[Drawn], count: int, *, what: str) -> list[Drawn]:
        """Pick without repeating any; ValueError if there are not enough."""
        if count > len(source):
            raise ValueError(
                f"params.yaml asks for {count} different {what}, but there are {len(source)}"
            )
        return self.rng.sample(source, count)

    def watch(self, name: str, *, as_file: bool) -> Exercise:
        """Make a video exercise of the configured length."""
        shown = self.rng.sample(self.digits, self.config.video.digits)
        return exercises.watch(self.rng, shown, self.media, name=name, as_file=as_file)


def make_train_samples(shop: Workshop) -> Iterator[dict[str, Any]]:
    """Yield the samples of every kind the seed names; most kinds think every other time."""
    counts = shop.config.train
    yield from _single_samples(shop)
    for n in range(counts.multi_image):
        exercise = exercises.read_many(
            shop.rng, shop.digits, shop.media, name=f"multi_image_{n:04d}"
        )
        yield exercise.to_sample(think=n % 2 == 0)
    for n in range(counts.video_files):
        yield shop.watch(f"video_file_{n:04d}", as_file=True).to_sample(think=n % 2 == 0)
    for n in range(counts.video_frame_lists):
        yield shop.watch(f"video_frames_{n:04d}", as_file=False).to_sample(think=n % 2 == 0)
    for n in range(counts.grounding):
        exercise = exercises.find(shop.rng, shop.digits, shop.media, name=f"grounding_{n:04d}")
        yield exercise.to_sample(think=n % 2 == 0)
    yield from _text_samples(shop)
    yield from _system_prompt_samples(shop)
    yield from _multi_turn_samples(shop)


def _single_samples(shop: Workshop) -> Iterator[dict[str, Any]]:
    for digit in shop.choose(shop.config.train.single_digits):
        for think, suffix in ((True, "think"), (False, "plain")):
            name = f"single_{digit.index:04d}_{suffix}"
            exercise = exercises.read_one(shop.rng, digit, shop.media, name=name)
            yield exercise.to_sample(think=think)


def _text_samples(shop: Workshop) -> Iterator[dict[str, Any]]:
    count = shop.config.train.text_only
    told = [
        (exercise, think) for exercise in exercises.all_text_exercises() for think in (True, False)
    ]
    for n, (exercise, think) in enumerate(shop.draw(told, count, what="text-only samples")):
        yield replace(exercise, id=f"text_{n:04d}").to_sample(think=think)


def _system_prompt_samples(shop: Workshop) -> Iterator[dict[str, Any]]:
    for n, digit in enumerate(shop.choose(shop.config.train.system_prompt)):
        system, as_word = shop.rng.choice(SYSTEM_PROMPTS)
        exercise = exercises.read_one(shop.rng, digit, shop.media, name=f"system_{n:04d}")
        if as_word:
            exercise = replace(exercise, answer=exercises.WORDS[digit.label])
        yield exercise.to_sample(think=n % 2 == 0, system=system)


def _multi_turn_samples(shop: Workshop) -> Iterator[dict[str, Any]]:
    for n, digit in enumerate(shop.choose(shop.config.train.multi_turn)):
        exercise = exercises.read_one(shop.rng, digit, shop.media, name=f"multi_turn_{n:04d}")
        yield exercise.to_sample(think=n % 2 == 0, follow_up=exercises.ask_parity(digit))


@dataclass(frozen=True)
class Benchmark:
    """A named list of items and the way they are marked."""

    name: str
    metric: str
    description: str
    items: list[Exercise]

    def write(self, folder: Path) -> None:
        """Write `<name>.yaml` and the items it points at."""
        head = {
            "name": self.name,
            "version": 1,
            "items": f"{self.name}.jsonl",
            "metric": self.metric,
            "description": self.description,
        }
        (folder / f"{self.name}.yaml").write_text(
            yaml.safe_dump(head, sort_keys=False, width=100), encoding="utf-8"
        )
        lines = [json.dumps(item.to_item(), ensure_ascii=False) for item in self.items]
        (folder / f"{self.name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_benchmarks(shop: Workshop) -> list[Benchmark]:
    """Make one benchmark per kind of picture, out of held-out digits alone."""
    counts = shop.config.benchmarks
    source = (shop.rng, shop.digits, shop.media)
    single = [
        exercises.read_one(shop.rng, digit, shop.media, name=f"single_{digit.index:04d}")
        for digit in shop.choose(counts.digits_single)
    ]
    multi_image = [
        exercises.read_many(*source, name=f"multi_image_{n:04d}")
        for n in range(counts.digits_multi_image)
    ]
    video = [shop.watch(f"video_{n:04d}", as_file=True) for n in range(counts.digits_video)]
    grounding = [
        exercises.find(*source, name=f"grounding_{n:04d}") for n in range(counts.digits_grounding)
    ]
    return [
        Benchmark("digits_single", "exact", "One unseen handwritten digit.", single),
        Benchmark("digits_multi_image", "exact", "Two or three images in order.", multi_image),
        Benchmark("digits_video", "exact", "A clip of several digits in order.", video),
        Benchmark(
            "digits_grounding",
            "iou",
            "The box around the digit on a canvas of nine cells.",
            grounding,
        ),
    ]


def make_digits(config: DigitsConfig, output: Path) -> None:
    """Write `output`/train and `output`/benchmarks; a reader never sees half of either."""
    train, held_out = split_digits(
        load_distinct_digits(),
        benchmark_fraction=config.benchmark_fraction,
        seed=config.seed,
    )
    with written_whole(output / "train") as root:
        samples = list(make_train_samples(Workshop.open(config, train, root)))
        text = json.dumps({"conversations": samples}, indent=2, ensure_ascii=False)
        (root / "annotations.json").write_text(text + "\n", encoding="utf-8")
    log.info("%s: %d samples from %d digits", output / "train", len(samples), len(train))
    with written_whole(output / "benchmarks") as root:
        benchmarks = make_benchmarks(Workshop.open(config, held_out, root))
        for benchmark in benchmarks:
            benchmark.write(root)
    sizes = ", ".join(f"{len(benchmark.items)} {benchmark.name}" for benchmark in benchmarks)
    log.info("%s: %s from %d other digits", output / "benchmarks", sizes, len(held_out))


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give a sibling `.partial` folder to write, and put it in place when all went well."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def main() -> None:
    """Command line: `python make_digits.py [--params params.yaml] [--output digits]`."""
    parser = argparse.ArgumentParser(description="Write the sample dataset and its benchmarks.")
    parser.add_argument("--params", type=Path, default=HERE / "params.yaml")
    parser.add_argument("--output", type=Path, default=HERE / "digits")
    arguments = parser.parse_args()
    make_digits(DigitsConfig.read(arguments.params), arguments.output)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
