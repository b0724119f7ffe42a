"""What a reader of items hands over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovis_model.evaluation.benchmarks.media import MediaStore
from ovis_model.evaluation.item import BenchmarkItem


@dataclass(frozen=True)
class Contents:
    """What a file of items holds.

    Attributes:
        items: In the order of the file.
        media: Finds what items name.
        dropped: How many rows were left out, by reason.
    """

    items: tuple[BenchmarkItem, ...]
    media: MediaStore
    dropped: Mapping[str, int] = field(default_factory=dict)


def split_answers(answers: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return one right answer that is not empty, and all others.

    Raises:
        ValueError: If there is none.
    """
    first = next((index for index, answer in enumerate(answers) if answer), None)
    if first is None:
        raise ValueError("answer: the list holds no answer")
    return answers[first], tuple(answers[:first] + answers[first + 1 :])
