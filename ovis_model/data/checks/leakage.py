"""What training data must not share: pictures with a benchmark, questions with a benchmark.

A benchmark is a folder of YAML, JSONL and media (`ovis_model.evaluation.benchmarks` describes it).
Here it is read as evidence only: every file that is a picture or a video, and every question.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.data.checks.looks import near_duplicates
from ovis_model.data.checks.media_fact import Kind, MediaFact
from ovis_model.data.checks.text_facts import normalised
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError

#: A question of so many words is unlikely to be asked twice by chance, even about two pictures.
MIN_WORDS = 13
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv"}
_NOT_MEDIA = {".yaml", ".yml", ".json", ".jsonl", ".tsv", ".csv", ".md", ".txt"}


@dataclass(frozen=True)
class Exam:
    """What the benchmarks ask and show.

    Attributes:
        digests: Where each picture or video stands, by its content.
        looks: Where each picture stands, by what it looks like.
        questions: Where each question stands, by its words.
    """

    digests: Mapping[str, str]
    looks: Mapping[str, str]
    questions: Mapping[str, str]


def list_exam_media(folder: Path) -> list[tuple[Kind, str]]:
    """List the files of a benchmark folder that are no texts, with paths relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        (
            "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image",
            path.relative_to(folder).as_posix(),
        )
        for path in files
        if path.suffix.lower() not in _NOT_MEDIA
    ]


def read_exam(folder: Path, media: Iterable[MediaFact]) -> Exam:
    """Put together what benchmarks show, as it was found, and what they ask.

    Args:
        folder: The folder of the benchmarks.
        media: Facts of the files that `list_exam_media` listed; a broken one is evaluation's
            business.

    Raises:
        DataError: If a JSONL file of the folder is no JSONL.
    """
    facts = list(media)
    return Exam(
        digests={fact.content: fact.path for fact in facts if fact.content},
        looks={fact.look: fact.path for fact in facts if fact.look is not None},
        questions=dict(_questions(folder)),
    )


def _questions(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    item: Any = json.loads(line)
                except ValueError as error:
                    raise DataError(
                        f"{path}, line {number} is not JSON: {error}; evaluate.benchmarks names "
                        "its folder"
                    ) from error
                if isinstance(item, dict) and isinstance(item.get("question"), str):
                    has_media = bool(item.get("image") or item.get("video"))
                    key = question_key(item["question"], has_media=has_media)
                    if key is not None:
                        yield key, f"{path.relative_to(folder)}, line {number}"


def question_key(question: str, *, has_media: bool) -> str | None:
    """Return a question's words if they alone tell it from others, else None.

    A short question about a picture ("Which digit is this?") is asked of many pictures; there
    the picture tells, not the words.
    """
    words = normalised(question)
    if not words or (has_media and words.count(" ") + 1 < MIN_WORDS):
        return None
    return words


def leaked_question(sample: Sample, exam: Exam) -> str | None:
    """Say which question of a benchmark a sample asks, or None."""
    for turn in sample.conversations:
        if turn.role == "human":
            key = question_key(turn.value, has_media=bool(sample.media))
            if key is not None and key in exam.questions:
                return exam.questions[key]
    return None


def leaked_looks(looks: Sequence[str], exam: Exam) -> dict[int, str]:
    """Find pictures that look like one of a benchmark's.

    Returns:
        Where the benchmark's picture stands, by the index of the picture.
    """
    count = len(exam.looks)
    places = list(exam.looks.values())
    pairs = near_duplicates([*exam.looks, *looks])
    # A picture may be paired with the first of its equals only, and that one with the exam.
    alike = {int(right): int(left) for left, right in pairs if left < count <= right}
    alike |= {int(right): alike[int(left)] for left, right in pairs if int(left) in alike}
    return {index - count: places[left] for index, left in alike.items()}
