"""What a model is asked: the questions of a benchmark, under the settings they are asked with.

Nothing here knows who answers.  A backend is given questions and gives `Answer`s or `Failure`s.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from ovis_model.config import FrameSampling
from ovis_model.evaluation.predictions import PredictionRow, SeenMedium, TokenCounts
from ovis_model.inference.defaults import given
from ovis_model.inference.engine import OWN_PIXELS, Pixels
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.messages import Message
from ovis_model.inference.pictures import Media
from ovis_model.inference.thinking import ParsedOutput

#: Seeds of a benchmark that is sampled, unless told otherwise: with fewer, the spread between
#: them says nothing.
SAMPLED_SEEDS = 3


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        index: Its index there, as text.
        prompt: The text that is asked, without the chat template.
        messages: The same as chat messages, with the media in their places.
        truth: The true answer.
        media: sha256 of every medium, in order.
        open_media: Decodes them; raises a DataError that names the item.
        row_hash: sha256 of question, true answer and media.
        cluster: See `PredictionRow`.
        groups: See `PredictionRow`.
        slices: See `PredictionRow`.
    """

    index: str
    prompt: str
    messages: Sequence[Message]
    truth: str
    media: tuple[str, ...]
    open_media: Callable[[FrameSampling], Media]
    row_hash: str
    cluster: str
    groups: Mapping[str, str] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exam:
    """A benchmark, ready to be asked.

    Attributes:
        name: Of the benchmark.
        fingerprint: See `BenchmarkRecord`; so is metric, and so are parts.
        metric: Name of the metric.
        questions: In the benchmark's order.
        settings: Lengths and decoding.
        mark: Judges a row by its outputs: fills in extracted, score, value and status.
        pixels: Smallest and largest area of a picture.
        seeds: Every question is asked once with each.
        parts: What the score is the mean of.
        scorer: The revision that the rules of marking follow.
    """

    name: str
    fingerprint: str
    metric: str
    questions: Sequence[Question]
    settings: GenerationSettings
    mark: Callable[[PredictionRow], PredictionRow]
    pixels: Pixels = OWN_PIXELS
    seeds: tuple[int, ...] = (0,)
    parts: tuple[str, ...] = ("rows",)
    scorer: str = "own"

    @property
    def asked(self) -> "list[Asked]":
        """Every question with every seed, in order."""
        return [Asked(self.name, one, seed) for one in self.questions for seed in self.seeds]

    @property
    def generation(self) -> dict[str, Any]:
        """What decides an answer besides the question, the model and the seed."""
        settings = asdict(replace(self.settings, seed=None))
        stop, pixels = list(self.settings.stop), [given(limit) for limit in self.pixels]
        return {**settings, "stop": stop, "pixels": pixels}


def seeds_of(settings: GenerationSettings, first: int, count: int | None) -> tuple[int, ...]:
    """Choose the seeds: one that means nothing where nothing is sampled.

    Args:
        settings: Of a benchmark.
        first: The first seed.
        count: How many; None takes three.

    Example:
        >>> seeds_of(GenerationSettings(9, do_sample=True), 7, None)
        (7, 8, 9)
    """
    if not settings.do_sample:
        return (0,)
    return tuple(range(first, first + (SAMPLED_SEEDS if count is None else count)))


@dataclass(frozen=True)
class Asked:
    """One question with one seed."""

    benchmark: str
    question: Question
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """As in `PredictionRow`."""
        return self.question.index, self.seed

    @property
    def row_seed(self) -> int:
        """Random numbers of this question alone, whatever is asked beside it."""
        name = f"{self.benchmark}\n{self.question.index}\n{self.seed}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


@dataclass(frozen=True)
class Answer:
    """What a backend generated for one question.

    Attributes:
        output: The text, taken apart.
        tokens: What it took.
        media: What was shown.
        latency_s: Seconds from asking to the whole answer.
        ttft_s: Seconds to the first new token; None if the backend does not tell.
        batch_rows: Questions answered together in that time.
    """

    output: ParsedOutput
    tokens: TokenCounts
    media: tuple[SeenMedium, ...]
    latency_s: float
    ttft_s: float | None = None
    batch_rows: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a question got no answer."""

    reason: str


Answered = tuple[Asked, Answer | Failure]


class Backend(Protocol):
    """Answers questions."""

    @property
    def model(self) -> str:
        """Who answers: the digest of a model folder."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """What must be equal to compare two runs, such as the name of the backend."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """What may differ, such as the device."""
        ...

    def check(self, settings: GenerationSettings) -> None:
        """Refuse settings that leave no room for an answer.

        Raises:
            ConfigError: With the numbers.
        """
        ...

    def answer(
        self, asked: Sequence[Asked], settings: GenerationSettings, pixels: Pixels
    ) -> Iterator[Sequence[Answered]]:
        """Answer questions of one benchmark, in any order, some at a time."""
        ...


def seen_media(question: Question, media: Media, grids: Sequence[Any] = ()) -> list[SeenMedium]:
    """Describe what was shown.

    Frames are one video to the model, so they share a grid; those of a video file, its digest.

    Args:
        question: Knows the digests.
        media: The decoded pictures.
        grids: (t, h, w) per image, or one for all frames; none if the backend does not tell.
    """
    digests = question.media
    return [
        SeenMedium(
            sha256=digests[place if len(digests) > 1 else 0],
            width=picture.width,
            height=picture.height,
            grid=tuple(grids[place if len(grids) > 1 else 0]) if len(grids) else None,
        )
        for place, picture in enumerate(media.pictures)
    ]
