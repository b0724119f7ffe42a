"""What a benchmark shares with the training data: such items are recalled, not answered.

    pixels      a picture of the item is a training picture, whatever file format either has
    looks       a picture of the item looks like a training picture: scaled, saved again, re-lit
    texts       question and answer are a turn of the training data, but for case and spacing
    passages    question or answer shares a passage of 13 words with a turn

A short question about a picture is asked of many pictures, so its words alone are no evidence.
Validation keeps leaks out of new training data by the same signs; this says how it stands with
the data a model was really trained on, and what its score is without the items found.

Source: passages of 13 words, and that those seen more than 10 times are no evidence, are from
GPT-3's appendix C, arXiv 2005.14165, as lm-evaluation-harness has them in `decontamination/`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from ovis_model.data.checks.leakage import MIN_WORDS, Exam, leaked_looks, question_key
from ovis_model.data.checks.looks import near_duplicates
from ovis_model.data.checks.media_fact import pixel_digest
from ovis_model.data.checks.text_facts import normalised
from ovis_model.data.media.images import load_rgb, look
from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample

#: A passage of more items of one benchmark, or of more training samples, is how people ask, not
#: what they ask.
MAX_PER_PASSAGE = 10

_LOCATED = re.compile(r"<(box|point)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """An item of a benchmark.

    Attributes:
        index: Its index.
        question: What is asked.
        answer: The true answer.
        pictures: What is shown.
    """

    index: str
    question: str
    answer: str
    pictures: Sequence[Image.Image] = ()


@dataclass(frozen=True)
class Overlap:
    """Indices of the items of a benchmark that are in the training data, by sign."""

    num_samples: int
    pixels: frozenset[str] = frozenset()
    looks: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    passages: frozenset[str] = frozenset()

    @property
    def found(self) -> frozenset[str]:
        """Items found by any sign."""
        return self.pixels | self.looks | self.texts | self.passages


@dataclass
class TrainingTraces:
    """What of the training data benchmarks are looked for in.

    Attributes:
        samples: The training data; read once per benchmark.
        digests: Of the pixels of every picture.
        looks: Of every picture with enough detail.
    """

    samples: Sequence[Sample]
    digests: set[str] = field(default_factory=set)
    looks: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, samples: Sequence[Sample], media: MediaFiles | None) -> "TrainingTraces":
        """Look at every picture once.

        Args:
            samples: The training data.
            media: Where its pictures are; None looks at no picture.

        Raises:
            DataError: If a picture cannot be read.
        """
        traces = cls(samples)
        if media is None:
            return traces
        for name in dict.fromkeys(_picture_names(samples)):
            picture = load_rgb(media.read(name), name=name)
            traces.digests.add(pixel_digest(picture))
            seen_as = look(picture)
            if seen_as is not None:
                traces.looks.add(seen_as)
        return traces


def find_overlap(items: Iterable[Asked], traces: TrainingTraces) -> Overlap:
    """Look for the items of one benchmark in the training data.

    Args:
        items: Their pictures are looked at one item at a time.
        traces: The training data.
    """
    pixels: set[str] = set()
    by_look: dict[str, set[str]] = defaultdict(set)
    by_text: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_passage: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for picture in item.pictures:
            if pixel_digest(picture) in traces.digests:
                pixels.add(item.index)
            if (seen_as := look(picture)) is not None:
                by_look[seen_as].add(item.index)
        key = question_key(item.question, has_media=bool(item.pictures))
        if key is not None:
            by_text[key, normalised(item.answer)].add(item.index)
        for passage in _passages(item.question, item.answer):
            by_passage[passage].add(item.index)
    texts, passages = _find_texts(traces.samples, by_text, by_passage)
    return Overlap(
        num_samples=len(traces.samples),
        pixels=frozenset(pixels),
        looks=frozenset(_find_looks(sorted(traces.looks), by_look)),
        texts=frozenset(texts),
        passages=frozenset(passages),
    )


def _find_looks(trained: Sequence[str], by_look: dict[str, set[str]]) -> set[str]:
    asked = sorted(by_look)
    exam = Exam(digests={}, looks={one: one for one in asked}, questions={})
    alike = set(leaked_looks(trained, exam).values())
    # Of items that look the same, only the first was compared with the training data.
    for left, right in near_duplicates(asked):
        if {asked[int(left)], asked[int(right)]} & alike:
            alike |= {asked[int(left)], asked[int(right)]}
    return {index for one in alike for index in by_look[one]}


def _find_texts(
    samples: Iterable[Sample],
    by_text: dict[tuple[str, str], set[str]],
    by_passage: dict[str, set[str]],
) -> tuple[set[str], set[str]]:
    telling = {
        passage: items for passage, items in by_passage.items() if len(items) <= MAX_PER_PASSAGE
    }
    texts: set[str] = set()
    seen: Counter[str] = Counter()
    for sample in samples:
        shared: set[str] = set()
        for question, answer in _exchanges(sample):
            texts |= by_text.get((normalised(question), normalised(answer)), set())
            if telling:
                shared |= telling.keys() & set(_passages(question, answer))
        seen.update(shared)
    return texts, {
        index
        for passage, count in seen.items()
        if count <= MAX_PER_PASSAGE
        for index in telling[passage]
    }


def _exchanges(sample: Sample) -> Iterator[tuple[str, str]]:
    question = ""
    for turn in sample.conversations:
        if turn.role == "human":
            question = turn.value
        elif turn.role == "gpt":
            yield question, turn.value


def _passages(*texts: str) -> Iterator[str]:
    """Give every run of words of each text; coordinates are no words."""
    for text in texts:
        words = normalised(_LOCATED.sub(" ", text)).split(" ")
        for start in range(len(words) - MIN_WORDS + 1):
            yield " ".join(words[start : start + MIN_WORDS])


def _picture_names(samples: Iterable[Sample]) -> Iterator[str]:
    for sample in samples:
        yield from sample.image
        yield from sample.frames
