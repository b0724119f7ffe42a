"""A loaded model that answers questions: at once, piece by piece, or many together.

A `Question` is everything decided about one answer before the model runs; whatever is wrong with
it has been said by then.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_args

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from ovis_model.inference.defaults import (
    MIN_PIXELS,
    SINGLE_MAX_PIXELS,
    SettingsChooser,
    given,
)
from ovis_model.inference.generation import (
    GenerationSettings,
    eos_ids,
    generate_ids,
    generate_outputs,
    parse_row,
)
from ovis_model.inference.messages import Message, question_message, system_message
from ovis_model.inference.pictures import Media
from ovis_model.inference.prompt_groups import group_prompts
from ovis_model.inference.results import InferenceResult, Usage
from ovis_model.inference.streaming import AnswerStream, PieceReader
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.prompt_prefix import PromptPrefix
from ovis_model.processing.processing_ovis2_5 import EncodedSample, Ovis2_5Processor

Result = TypeVar("Result")
Pixels = tuple[int, int]
Row = tuple[int, EncodedSample]

#: Leaves both limits to the checkpoint.
OWN_PIXELS: Pixels = (MIN_PIXELS, SINGLE_MAX_PIXELS)


@dataclass(frozen=True)
class Question(Generic[Result]):
    """One answer to be generated.

    Attributes:
        prompt: Encoded, with its media.
        settings: Lengths and decoding, checked.
        wrap: Makes the result that the caller gets.
    """

    prompt: EncodedSample
    settings: GenerationSettings
    wrap: Callable[[ParsedOutput, Usage, GenerationSettings], Result]


@dataclass(frozen=True)
class BatchLimit:
    """How many prompts are generated together.

    Attributes:
        rows: At most so many.
        tokens: At most so many positions, padding included: rows times the longest prompt and
            what it may generate.  A prompt that needs more is generated alone.  None is no limit.
    """

    rows: int
    tokens: int | None = None

    def split(
        self, rows: Sequence[Row], prompts: Sequence[EncodedSample], max_new_tokens: int
    ) -> Iterator[Sequence[Row]]:
        """Split rows into batches, in their order.

        Args:
            rows: What is left of each prompt, with the prompt's index; shortest first.
            prompts: All prompts, whole.
            max_new_tokens: What each of them may generate.
        """
        start, longest = 0, 0
        for end, (index, _) in enumerate(rows):
            longest = max(longest, len(prompts[index].input_ids) + max_new_tokens)
            size = end + 1 - start
            if size > 1 and (size > self.rows or self._exceeds(size * longest)):
                yield rows[start:end]
                start, longest = end, len(prompts[index].input_ids) + max_new_tokens
        yield rows[start:]

    def _exceeds(self, positions: int) -> bool:
        return self.tokens is not None and positions > self.tokens


@dataclass(frozen=True)
class Engine:
    """A model in evaluation mode, its processor, and how its authors sample from it."""

    model: Ovis2_5ForConditionalGeneration
    processor: Ovis2_5Processor
    settings: SettingsChooser

    def encode(
        self,
        messages: Sequence[Message],
        settings: GenerationSettings,
        media: Media,
        pixels: Pixels = OWN_PIXELS,
    ) -> EncodedSample:
        """Encode messages and what they show.

        Args:
            messages: Chat messages up to the question.
            settings: How the answer is going to be generated.
            media: Images in placeholder order, or the frames of one video.
            pixels: Smallest and largest area of a picture; a `Default` leaves it to the
                checkpoint.

        Raises:
            ValueError: If the settings or the pixel limits cannot work.
            PlaceholderError: If placeholders and media disagree.
        """
        settings.check(self.processor.token_ids)
        low, high = pixel_bounds(self.processor, media, pixels)
        return self.processor.encode_prompt(
            messages,
            images=media.images,
            frames=media.frames,
            enable_thinking=settings.enable_thinking,
            min_pixels=low,
            max_pixels=high,
        )

    def answer(self, question: Question[Result]) -> Result:
        """Generate the whole answer."""
        rows = generate_ids(self.model, self.processor, [question.prompt], question.settings)
        return self._finish(question, rows[0].tolist())

    def stream(self, question: Question[Result]) -> AnswerStream[Result]:
        """Generate the answer piece by piece; the model starts with the first piece."""

        def generate(streamer: BaseStreamer) -> Tensor:
            return generate_ids(
                self.model,
                self.processor,
                [question.prompt],
                question.settings,
                streamer=streamer,
            )

        token_ids = self.processor.token_ids
        reader = PieceReader(
            self.processor.tokenizer,
            token_ids,
            eos_ids=eos_ids(token_ids),
            stop=question.settings.stop,
        )
        return AnswerStream(generate, reader, lambda row: self._finish(question, row))

    def answer_all(
        self, prompts: Sequence[EncodedSample], settings: GenerationSettings, *, batch_size: int
    ) -> list[InferenceResult]:
        """Answer many prompts in batches, in their order.

        Prompts that begin with the same media share one reading of them.

        Args:
            prompts: Encoded, without labels.
            settings: The same for all.
            batch_size: Prompts generated together.
        """
        answered: dict[int, InferenceResult] = {}
        for batch in self.answer_batches(prompts, settings, BatchLimit(batch_size)):
            answered.update(batch)
        return [answered[index] for index in range(len(prompts))]

    def answer_batches(
        self,
        prompts: Sequence[EncodedSample],
        settings: GenerationSettings,
        limit: BatchLimit,
        *,
        row_seeds: Sequence[int] | None = None,
        **extra: Any,
    ) -> Iterator[list[tuple[int, InferenceResult]]]:
        """Answer many prompts, and give every batch as soon as it is done.

        Prompts that begin with the same media share one reading of them.

        Args:
            prompts: Encoded, without labels.
            settings: The same for all.
            limit: How many are generated together.
            row_seeds: One per prompt, of sampling; see `generate_ids`.
            **extra: Handed on to `generate`, such as a streamer.

        Yields:
            Results with the indices of their prompts.
        """
        for group in group_prompts(prompts):
            prefix = None if group.prefix is None else self._read_prefix(group.prefix)
            for rows in limit.split(group.rows, prompts, settings.max_new_tokens):
                outputs = generate_outputs(
                    self.model,
                    self.processor,
                    [rest for _, rest in rows],
                    settings,
                    row_seeds=row_seeds and [row_seeds[index] for index, _ in rows],
                    prefix=prefix,
                    **extra,
                )
                yield [
                    (index, InferenceResult(output, Usage.of(prompts[index], output), settings))
                    for (index, _), output in zip(rows, outputs, strict=True)
                ]

    def _read_prefix(self, beginning: EncodedSample) -> PromptPrefix:
        device = next(self.model.parameters()).device
        media = (beginning.pixel_values, beginning.grid_thws)
        with torch.inference_mode():
            return self.model.encode_prefix(
                beginning.input_ids[None].to(device),
                *(None if tensor is None else tensor.to(device) for tensor in media),
            )

    def _finish(self, question: Question[Result], row: list[int]) -> Result:
        output = parse_row(self.processor, row, question.settings)
        return question.wrap(output, Usage.of(question.prompt, output), question.settings)


def pixel_bounds(processor: Ovis2_5Processor, media: Media, pixels: Pixels) -> Pixels:
    """Return the smallest and largest area of a picture; one that is given may move the other.

    Args:
        processor: Its limits take the place of a `Default`.
        media: How many pictures there are decides which limits.
        pixels: What was asked for.
    """
    count = len(media.pictures)
    several = "single_image" if count == 1 else "multiple_image"
    kind = several if media.frames is None else "video"
    own_low, own_high = processor.pixel_limits.bounds(kind, max(1, count))
    low, high = given(pixels[0]), given(pixels[1])
    if low is None:
        high = own_high if high is None else high
        return min(own_low, high), high
    return low, max(own_high, low) if high is None else high


def first_messages(text: str, media: Media, system: str | None = None) -> list[Message]:
    """Write a conversation's first question, after the system message if there is one.

    Raises:
        ValueError: If there is no text, or its placeholders do not fit the media.
    """
    question = question_message(
        text, num_images=len(media.images), num_videos=int(media.frames is not None)
    )
    return [question] if system is None else [system_message(system), question]


class HasEngine(Protocol):
    """Whatever builds questions for an engine."""

    @property
    def engine(self) -> Engine:
        """The engine that answers them."""
        ...


Asker = TypeVar("Asker", bound=HasEngine)
Arguments = ParamSpec("Arguments")


def answered(
    build: Callable[Concatenate[Asker, Arguments], Question[Result]],
) -> Callable[Concatenate[Asker, Arguments], Result]:
    """Make the method that answers what `build` asks, with the arguments of `build`."""

    @functools.wraps(build)
    def ask(asker: Asker, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return asker.engine.answer(build(asker, *args, **kwargs))

    _describe(ask, build, name=build.__name__.removeprefix("_"), returns=_result_of(build))
    return ask


def streamed(
    build: Callable[Concatenate[Asker, Arguments], Question[Result]],
) -> Callable[Concatenate[Asker, Arguments], AnswerStream[Result]]:
    """Make the method that streams the answer to what `build` asks, with its arguments.

    Wrong arguments are refused at the call, before the first piece is asked for.
    """

    @functools.wraps(build)
    def ask(
        asker: Asker, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> AnswerStream[Result]:
        return asker.engine.stream(build(asker, *args, **kwargs))

    name = f"{build.__name__.removeprefix('_')}_streaming"
    _describe(ask, build, name=name, returns=AnswerStream[_result_of(build)])  # type: ignore[misc]
    return ask


def _result_of(build: Callable[..., Any]) -> Any:
    """Return the `Result` of a function that returns a `Question[Result]`."""
    return get_args(inspect.signature(build).return_annotation)[0]


def _describe(
    method: Callable[..., Any], build: Callable[..., Any], *, name: str, returns: Any
) -> None:
    """Let `help` and editors show what a method is called with and what it returns."""
    signature = inspect.signature(build).replace(return_annotation=returns)
    method.__name__ = name
    method.__qualname__ = f"{build.__qualname__.rpartition('.')[0]}.{name}"
    method.__signature__ = signature  # type: ignore[attr-defined]
