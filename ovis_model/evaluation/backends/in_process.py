"""Our own model, in this process: batches by tokens, one reading of media that are shared."""

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.generation.streamers import BaseStreamer

from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.exam import Answer, Answered, Asked, Failure, seen_media
from ovis_model.evaluation.predictions import SeenMedium, TokenCounts
from ovis_model.inference.defaults import SamplingDefaults, SettingsChooser
from ovis_model.inference.engine import BatchLimit, Engine, Pixels
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.results import InferenceResult
from ovis_model.model_folder import digest_of, digest_of_folder
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor

#: Batches that are encoded, and sorted by length, together: pixels of a whole benchmark would
#: not fit into memory, those of a few batches do.
BATCHES_PER_WINDOW = 8


@dataclass(frozen=True)
class _Prepared:
    """A question with its prompt, encoded, and what was shown."""

    asked: Asked
    prompt: EncodedSample
    media: tuple[SeenMedium, ...]


class FirstToken(BaseStreamer):
    """Notes when a batch has its first new tokens."""

    def __init__(self) -> None:
        """Nothing was generated yet."""
        self.restart()

    def restart(self) -> None:
        """Start the clock of the next batch."""
        self._num_calls = 0
        self.started = time.perf_counter()
        self.seconds: float | None = None

    def put(self, value: Tensor) -> None:  # noqa: ARG002
        """Take ids; those of the prompt come first, and are none."""
        self._num_calls += 1
        if self._num_calls == 2:
            self.seconds = time.perf_counter() - self.started

    def end(self) -> None:
        """Nothing is left to do."""


@dataclass(frozen=True)
class TransformersBackend:
    """A loaded model.

    Attributes:
        engine: What answers.
        model: Digest of its folder.
        limit: How much is generated together.
    """

    engine: Engine
    model: str
    limit: BatchLimit

    @classmethod
    def load(
        cls, path: Path, *, seen_as: Path, limit: BatchLimit, device: torch.device | None = None
    ) -> Self:
        """Load a checkpoint.

        Args:
            path: The checkpoint; its own tokenizer and chat template are used.
            seen_as: The checkpoint whose pixel limits and frame sampling are used.  A base
                checkpoint's own may be many times larger: two models that are compared have to
                see the same pixels.
            limit: How much is generated together.
            device: None takes the GPU if there is one.

        Raises:
            CheckpointError: If the folder is not a complete checkpoint.
        """
        eyes = Ovis2_5Processor.from_pretrained(seen_as)
        processor = Ovis2_5Processor.from_pretrained(path).with_settings(
            pixel_limits=eyes.pixel_limits, frame_sampling=eyes.frame_sampling
        )
        digest = digest_of_folder(path)
        model = load_model(path)
        if device is None and torch.cuda.is_available():
            device = torch.device("cuda")
        if device is not None:
            nn.Module.to(model, device)  # transformers' own `to` hides its signature
        chooser = SettingsChooser(SamplingDefaults.read(path))
        return cls(Engine(model, processor, chooser), digest, limit)

    @cached_property
    def conditions(self) -> Mapping[str, str]:
        """What must be equal to compare two runs."""
        processor = self.engine.processor
        seen = [processor.pixel_limits.model_dump(), processor.frame_sampling.model_dump()]
        return {
            "backend": "transformers",
            "dtype": str(self._parameter.dtype).removeprefix("torch."),
            "pixels_and_frames": digest_of(seen),
        }

    @cached_property
    def provenance(self) -> Mapping[str, str]:
        """What may differ."""
        device = self._parameter.device
        on_gpu = device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "torch": torch.__version__,
            "batch_size": str(self.limit.rows),
            "batch_tokens": str(self.limit.tokens),
        }

    @property
    def _parameter(self) -> nn.Parameter:
        return next(self.engine.model.parameters())

    def check(self, settings: GenerationSettings) -> None:
        """Refuse settings that leave no room for an answer.

        Raises:
            ConfigError: With the numbers.
        """
        try:
            settings.check(self.engine.processor.token_ids)
        except ValueError as error:
            raise ConfigError(f"evaluate: {error}") from error

    def answer(
        self, asked: Sequence[Asked], settings: GenerationSettings, pixels: Pixels
    ) -> Iterator[Sequence[Answered]]:
        """Answer questions; those that show the same are read together."""
        window: list[_Prepared] = []
        for _, alike in groupby(_beside_each_other(asked), key=_shows):
            if len(window) >= self.limit.rows * BATCHES_PER_WINDOW:
                yield from self._generate(window, settings)
                window = []
            prepared, failed = self._prepare(list(alike), settings, pixels)
            window += prepared
            if failed:
                yield failed
        yield from self._generate(window, settings)

    def _prepare(
        self, alike: Sequence[Asked], settings: GenerationSettings, pixels: Pixels
    ) -> tuple[list[_Prepared], list[Answered]]:
        """Encode questions that show the same; their media are opened and kept once."""
        prepared: list[_Prepared] = []
        failed: list[Answered] = []
        processor = self.engine.processor
        try:
            media = alike[0].question.open_media(processor.frame_sampling)
        except DataError as error:
            return [], [(one, Failure(str(error))) for one in alike]
        for one in alike:
            try:
                prompt = self.engine.encode(one.question.messages, settings, media, pixels)
            except (DataError, ValueError) as error:
                failed.append((one, Failure(f"item {one.question.index!r}: {error}")))
                continue
            shared = prepared[0].prompt.pixel_values if prepared else prompt.pixel_values
            grids = [] if prompt.grid_thws is None else prompt.grid_thws.tolist()
            seen = tuple(seen_media(one.question, media, grids))
            prepared.append(_Prepared(one, replace(prompt, pixel_values=shared), seen))
        return prepared, failed

    def _generate(
        self, window: Sequence[_Prepared], settings: GenerationSettings
    ) -> Iterator[Sequence[Answered]]:
        if not window:
            return
        clock = FirstToken()
        batches = self.engine.answer_batches(
            [one.prompt for one in window],
            settings,
            self.limit,
            row_seeds=[one.asked.row_seed for one in window] if settings.do_sample else None,
            streamer=clock,
        )
        for batch in batches:
            latency = time.perf_counter() - clock.started
            yield [
                (
                    window[index].asked,
                    Answer(
                        output=result.output,
                        tokens=_token_counts(result),
                        media=window[index].media,
                        latency_s=latency,
                        ttft_s=clock.seconds,
                        batch_rows=len(batch),
                    ),
                )
                for index, result in batch
            ]
            clock.restart()


def _token_counts(result: InferenceResult) -> TokenCounts:
    usage = result.usage
    return TokenCounts(
        prompt=usage.prompt_tokens,
        visual=usage.visual_tokens,
        thinking=usage.thinking_tokens,
        answer=usage.answer_tokens,
        generated=usage.generated_tokens,
    )


def _shows(asked: Asked) -> Hashable:
    """Identify what a question shows; text alone shares nothing."""
    return asked.question.media or asked.question.index


def _beside_each_other(asked: Sequence[Asked]) -> list[Asked]:
    """Order questions so that those which show the same follow each other."""
    first: dict[Any, int] = {}
    places = [first.setdefault(_shows(one), place) for place, one in enumerate(asked)]
    return [one for _, one in sorted(zip(places, asked, strict=True), key=lambda pair: pair[0])]
