"""A model that sits an exam: its checkpoint, its processor, and the items it answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Self

import torch
from PIL import Image
from torch import nn

from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import read_frames
from ovis_model.data.media.images import load_rgb
from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.inference.generation import GenerationSettings, generate_outputs
from ovis_model.inference.pictures import Media
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor

#: Batches that are encoded, and sorted by length, together: pixels of a whole benchmark would
#: not fit into memory, those of a few batches do.
BATCHES_PER_WINDOW = 8


def load_media(benchmark: Benchmark, item: BenchmarkItem, sampling: FrameSampling) -> Media:
    """Decode the media of an item.

    Args:
        benchmark: Knows the folder.
        item: Names the files.
        sampling: How many frames stand for a video file; a list of frames is taken whole.

    Raises:
        DataError: Naming the item, if a file is missing or broken.
    """
    try:
        if isinstance(item.video, str):
            path = benchmark.source_of(item.video)
            assert isinstance(path, Path)
            return Media(frames=tuple(read_frames(path, sampling)))
        pictures = tuple(_load_picture(benchmark, name) for name in item.media)
    except DataError as error:
        raise DataError(f"benchmark {benchmark.name!r}, item {item.id!r}: {error}") from error
    return Media(images=pictures) if item.video is None else Media(frames=pictures)


def _load_picture(benchmark: Benchmark, name: str) -> Image.Image:
    source = benchmark.source_of(name)
    return load_rgb(source, name=name if isinstance(source, bytes) else None)


@dataclass(frozen=True)
class Question:
    """An item as it goes into the model.

    Attributes:
        encoded: The prompt.
        names: Of the media that are shown, as the benchmark calls them.
        sizes: Width and height of every picture before resizing.
    """

    encoded: EncodedSample
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Answered:
    """An item, answered.

    Attributes:
        question: What was asked.
        settings: How.
        output: What was generated.
        latency_s: Seconds that its batch took.
        batch_rows: Items of the batch.
    """

    question: Question
    settings: GenerationSettings
    output: ParsedOutput
    latency_s: float
    batch_rows: int


class Candidate:
    """A loaded model with the settings it answers under."""

    def __init__(
        self,
        model: Ovis2_5ForConditionalGeneration,
        processor: Ovis2_5Processor,
        settings: GenerationSettings,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.processor = processor
        self._model = model
        self._settings = settings
        self._batch_size = batch_size
        self._seed = seed

    @classmethod
    def load(
        cls, path: Path, settings: GenerationSettings, *, seen_as: Path, batch_size: int, seed: int
    ) -> Self:
        """Load a checkpoint, on the GPU if there is one.

        Args:
            path: The checkpoint; its own tokenizer and chat template are used.
            settings: Lengths and decoding.
            seen_as: The checkpoint whose pixel limits and frame sampling are used.  A base
                checkpoint's own may be many times larger: two models that are compared have to
                see the same pixels.
            batch_size: Items generated together.
            seed: Of sampling.

        Raises:
            CheckpointError: If the folder is not a complete checkpoint.
            ConfigError: If the settings leave this model no room for an answer.
        """
        eyes = Ovis2_5Processor.from_pretrained(seen_as)
        processor = Ovis2_5Processor.from_pretrained(path).with_settings(
            pixel_limits=eyes.pixel_limits, frame_sampling=eyes.frame_sampling
        )
        try:
            settings.check(processor.token_ids)
        except ValueError as error:
            raise ConfigError(f"evaluate: {error}") from error
        model = load_model(path)
        if torch.cuda.is_available():
            nn.Module.to(model, "cuda")  # transformers' own `to` hides its signature
        return cls(model, processor, settings, batch_size=batch_size, seed=seed)

    def answer(self, benchmark: Benchmark, on_progress: Callable[[int], object]) -> list[Answered]:
        """Answer every item, in the benchmark's order.

        Args:
            benchmark: The items.
            on_progress: Called with the number of items just answered.

        Raises:
            DataError: Naming the item whose media cannot be used.
        """
        torch.manual_seed(self._seed)
        answered: dict[int, Answered] = {}
        for batch in self._batches(benchmark):
            prompts = [question.encoded for _, question in batch]
            start = perf_counter()
            outputs = generate_outputs(self._model, self.processor, prompts, self._settings)
            seconds = perf_counter() - start
            for (index, question), output in zip(batch, outputs, strict=True):
                answered[index] = Answered(question, self._settings, output, seconds, len(batch))
            on_progress(len(batch))
        return [answered[index] for index in range(len(benchmark.items))]

    def _batches(self, benchmark: Benchmark) -> Iterator[Sequence[tuple[int, Question]]]:
        """Encode items and group those of similar length; each keeps its index."""
        window_size = self._batch_size * BATCHES_PER_WINDOW
        for first in range(0, len(benchmark.items), window_size):
            items = benchmark.items[first : first + window_size]
            window = [
                (first + offset, self._encode(benchmark, item))
                for offset, item in enumerate(items)
            ]
            window.sort(key=lambda entry: len(entry[1].encoded.input_ids))
            for start in range(0, len(window), self._batch_size):
                yield window[start : start + self._batch_size]

    def _encode(self, benchmark: Benchmark, item: BenchmarkItem) -> Question:
        prompt = benchmark.prompt(item)
        # A prompt may show an image twice, or not at all.
        shown = item.model_copy(update={"image": prompt.image})
        media = load_media(benchmark, shown, self.processor.frame_sampling)
        encoded = self.processor.encode_prompt(
            [prompt.message],
            images=media.images,
            frames=media.frames,
            enable_thinking=self._settings.enable_thinking,
        )
        sizes = tuple(picture.size for picture in media.pictures)
        return Question(encoded, shown.media, sizes)
