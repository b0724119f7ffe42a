"""What training data must not share: pictures with a benchmark, questions with a benchmark.

A benchmark is a folder of YAML, JSONL and media (`ovis_model.evaluation.benchmark` describes it).
Here it is read as evidence only: every file that is a picture or a video, and every question.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ovis_model.data.checks.media_fact import Kind, MediaFact
from ovis_model.data.checks.text_facts import normalised
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError

#: A question of so many words is unlikely to be asked twice by chance, even about two pictures.
MIN_WORDS = 13
#: Bits that two difference hashes of one picture may differ in, after scaling or recompression.
MAX_DISTANCE = 3
#: The hash is cut into one piece more than bits may differ: of equal pictures one piece is equal.
_PIECES = MAX_DISTANCE + 1
_PIECE_BITS = 64 // _PIECES
#: Hashes that are compared with each other at once, to bound memory.
_BLOCK = 2048
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".ogv"}
_NOT_MEDIA = {".yaml", ".yml", ".json", ".jsonl", ".tsv", ".csv", ".md", ".txt"}


@dataclass(frozen=True)
class Exam:
    """What the benchmarks ask and show.

    Attributes:
        digests: Where each file stands, by the sha256 of its bytes.
        looks: Where each picture stands, by its difference hash.
        questions: Where each question stands, by its words.
    """

    digests: Mapping[str, str]
    looks: Mapping[int, str]
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
        digests={fact.sha256: fact.path for fact in facts if fact.sha256 is not None},
        looks={int(fact.look, 16): fact.path for fact in facts if fact.look is not None},
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


def near_duplicates(looks: Sequence[int]) -> np.ndarray:
    """Find pictures that look the same.

    Args:
        looks: Difference hashes, as 64-bit numbers.

    Returns:
        int64 [num_pairs, 2]: for every pair found, the indices of the two pictures.  Of pictures
        with equal hashes each is paired with the first of them; others are paired if at most
        `MAX_DISTANCE` bits differ.
    """
    hashes = np.array(looks, dtype=np.uint64)
    if not len(hashes):
        return np.empty((0, 2), dtype=np.int64)
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(hashes)), first)
    pairs = [np.stack([first[inverse[others]], others], axis=1)]
    for piece in range(_PIECES):
        mask = np.uint64(2**_PIECE_BITS - 1)
        keys = ((unique >> np.uint64(piece * _PIECE_BITS)) & mask).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        bounds = np.flatnonzero(np.diff(keys[order], prepend=-1, append=-1))
        for begin, end in pairwise(bounds):
            if end - begin > 1:
                pairs += _close_pairs(unique, order[begin:end], first)
    return np.unique(np.concatenate(pairs).astype(np.int64), axis=0)


def _close_pairs(unique: np.ndarray, bucket: np.ndarray, first: np.ndarray) -> list[np.ndarray]:
    found = []
    for begin in range(0, len(bucket), _BLOCK):
        block = bucket[begin : begin + _BLOCK]
        for other in range(begin, len(bucket), _BLOCK):
            second = bucket[other : other + _BLOCK]
            distance = np.bitwise_count(unique[block][:, None] ^ unique[second][None, :])
            left, right = np.nonzero(distance <= MAX_DISTANCE)
            pair = np.stack([first[block[left]], first[second[right]]], axis=1)
            found.append(pair[pair[:, 0] < pair[:, 1]])
    return found


def leaked_looks(looks: Sequence[int], exam: Exam) -> dict[int, str]:
    """Find pictures that look like one of a benchmark's.

    Returns:
        Where the benchmark's picture stands, by the index of the picture.
    """
    exam_looks = list(exam.looks)
    pairs = near_duplicates([*exam_looks, *looks])
    places = list(exam.looks.values())
    count = len(exam_looks)
    leaked = {}
    # A picture may be paired with the first of its equals only, and that one with the exam.
    for left, right in np.concatenate([pairs, _through_equals(pairs, count)]):
        if left < count <= right:
            leaked[int(right) - count] = places[left]
    return leaked


def _through_equals(pairs: np.ndarray, count: int) -> np.ndarray:
    """Carry a match with the exam on to the pictures whose hash equals the matched one's."""
    matched = {int(right): int(left) for left, right in pairs if left < count <= right}
    carried = [(matched[int(left)], int(right)) for left, right in pairs if int(left) in matched]
    return np.array(carried, dtype=np.int64).reshape(-1, 2)
