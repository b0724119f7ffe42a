"""Facts of a sample that need its media: length, shown part of a video, content, leaks."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ovis_model.config import FrameSampling
from ovis_model.data.checks.facts import Facts
from ovis_model.data.checks.leakage import Exam, leaked_looks, leaked_question
from ovis_model.data.checks.lengths import Length, LengthMeter, Shapes
from ovis_model.data.checks.looks import near_duplicates
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.checks.splitting import contents_of
from ovis_model.data.checks.spool import SampleSpool
from ovis_model.data.checks.text_facts import KINDS, kinds_of_sample
from ovis_model.data.schema import Fit, Sample
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.progress import WatchedBar

#: Facts per sample that the expectations look at.
_PROBLEMS = ("empty_range", "few_frames", "over_length", "long_thought", "leaked_question")


@dataclass
class SampleFacts:
    """What the second reading told, by row; rows without a sample keep the defaults.

    Attributes:
        kinds: Indices into `text_facts.KINDS` of what each sample is; None without a sample.
        contents: Digests of what each sample shows, for the split.
        fits: Limits that make a sample fit.
        dropped: Rows that the policy for over-long samples leaves out.
        num_tokens, num_supervised: Lengths, -1 where unknown.
        alike: Pairs of digests of pictures that look the same.
    """

    kinds: list[tuple[int, ...] | None]
    contents: list[tuple[str, ...]]
    num_tokens: np.ndarray
    num_supervised: np.ndarray
    fits: dict[int, Fit] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    alike: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of_size(cls, num_rows: int) -> "SampleFacts":
        """Return room for so many rows."""
        return cls(
            [None] * num_rows, [()] * num_rows, np.full(num_rows, -1), np.full(num_rows, -1)
        )


@dataclass(frozen=True)
class Measures:
    """What samples are measured with.

    Attributes:
        sampling: How many frames stand for a video.
        meter: Counts tokens, or None without a base model.
        exam: What benchmarks show and ask, or None without benchmarks.
    """

    sampling: FrameSampling
    meter: LengthMeter | None
    exam: Exam | None


def add_sample_facts(facts: Facts, spool: SampleSpool, measures: Measures) -> SampleFacts:
    """Read every sample once more and add the columns that need its media.

    Adds to the samples `empty_range`, `few_frames`, `over_length`, `num_supervised_tokens`,
    `long_thought`, `leaked_question` and `duplicate_content`, to the media `near_duplicate`,
    `leaked_image` and `leaked_near_duplicate`.
    """
    num_rows = len(facts.samples)
    known = SampleFacts.of_size(num_rows)
    columns: dict[str, np.ndarray] = {
        name: np.full(num_rows, None, dtype=object) for name in _PROBLEMS
    }
    contents = np.zeros(num_rows, dtype=np.uint64)
    media_of = _MediaOfRows(facts)
    how = {"desc": "measure", "unit": "sample", "delay": 2, "mininterval": 2}
    for row, sample in WatchedBar(spool, total=len(spool), **how):
        media = media_of.row(row)
        digests = {fact.path: fact.content for fact in media}
        known.contents[row] = tuple(contents_of(sample, digests))
        contents[row] = _content_key(sample, known.contents[row])
        known.kinds[row] = tuple(KINDS.index(kind) for kind in kinds_of_sample(sample))
        for name, text in _measure(row, sample, media, measures, known).items():
            columns[name][row] = text
    for name, column in columns.items():
        facts.samples[name] = column
    lengths = known.num_supervised.astype(np.float64)
    facts.samples["num_supervised_tokens"] = np.where(lengths < 0, np.nan, lengths)
    facts.samples["duplicate_content"] = _duplicates(facts.samples, contents)
    _add_looks(facts, known, measures.exam)
    return known


class _MediaOfRows:
    """Finds the facts of a sample's media, in its order."""

    def __init__(self, facts: Facts) -> None:
        rows = facts.media["row"].to_numpy()
        self._bounds = np.searchsorted(rows, np.arange(len(facts.samples) + 1)).tolist()
        self._media = facts.media["medium"].tolist()
        self._found = facts.found

    def row(self, row: int) -> list[MediaFact]:
        begin, end = self._bounds[row], self._bounds[row + 1]
        return [self._found[number] for number in self._media[begin:end]]


def _content_key(sample: Sample, contents: Sequence[str]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for turn in sample.conversations:
        digest.update(f"{turn.role}\0{turn.value}\0".encode("utf-8", "surrogatepass"))
    digest.update("\0".join(contents).encode())
    digest.update(f"{sample.video_start} {sample.video_end}".encode())
    return int.from_bytes(digest.digest(), "big")


def _measure(
    row: int,
    sample: Sample,
    media: Sequence[MediaFact],
    measures: Measures,
    known: SampleFacts,
) -> dict[str, str]:
    """Return the sample's problems by column; note its length and fit."""
    problems: dict[str, str | None] = {}
    if measures.exam is not None:
        problems["leaked_question"] = leaked_question(sample, measures.exam)
    if not any(fact.problem for fact in media):
        num_frames = _count_frames(sample, media)
        if num_frames == 0:
            problems["empty_range"] = _describe_range(sample, media[0])
        elif num_frames is not None and num_frames < measures.sampling.min_frames:
            problems["few_frames"] = (
                f"{num_frames} frame(s), extract.min_frames is {measures.sampling.min_frames}"
            )
        if measures.meter is not None and num_frames != 0:
            shapes = _shapes(sample, media, num_frames, measures.sampling)
            length = measures.meter.measure(sample, shapes)
            if length is not None:
                problems |= _note_length(row, length, known)
    return {name: text for name, text in problems.items() if text is not None}


def _note_length(row: int, length: Length, known: SampleFacts) -> dict[str, str | None]:
    known.num_tokens[row] = length.num_tokens
    known.num_supervised[row] = length.num_supervised
    if length.fit is not None:
        known.fits[row] = length.fit
    if length.is_dropped:
        known.dropped.add(row)
    return {"over_length": length.over, "long_thought": length.long_thought}


def _count_frames(sample: Sample, media: Sequence[MediaFact]) -> int | None:
    """Count the frames of the part that is shown; None without a video."""
    if sample.video is None:
        return None
    if not isinstance(sample.video, str):
        return len(sample.video)
    fact = media[-1]
    total, rate = fact.num_frames or 0, fact.frames_per_second or 0.0
    if sample.video_start is None and sample.video_end is None:
        return total
    # Frame i is shown from i / rate on; rounded, lest a third of a second gain a frame.
    first = math.ceil(round((sample.video_start or 0.0) * rate, 6))
    last = total if sample.video_end is None else math.ceil(round(sample.video_end * rate, 6))
    return max(0, min(total, last) - first)


def _describe_range(sample: Sample, fact: MediaFact) -> str:
    if sample.video_start is None and sample.video_end is None:
        return f"{fact.path} has no frames"
    return (
        f"no frame between {sample.video_start or 0} s and "
        f"{'the end' if sample.video_end is None else f'{sample.video_end} s'}; "
        f"{fact.path} is {fact.seconds:.3f} s long"
    )


def _shapes(
    sample: Sample, media: Sequence[MediaFact], num_frames: int | None, sampling: FrameSampling
) -> Shapes:
    sizes = tuple(fact.size for fact in media if fact.size is not None)
    if num_frames is None:
        return Shapes(images=sizes)
    taken = sample_frame_indices(
        num_frames, min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    images, video = sizes[: len(sample.image)], sizes[len(sample.image) :]
    frames = video * len(taken) if len(video) == 1 else tuple(video[i] for i in taken)
    return Shapes(images=images, frames=frames)


def _duplicates(samples: pd.DataFrame, contents: np.ndarray) -> np.ndarray:
    """Name, for samples of equal content but another id, the first of them."""
    column = np.full(len(samples), None, dtype=object)
    rows = np.flatnonzero((contents != 0) & (samples["repeats"].to_numpy() < 0))
    first: dict[int, int] = {}
    ids = samples["id"].to_numpy()
    for row, key in zip(rows.tolist(), contents[rows].tolist(), strict=True):
        earlier = first.setdefault(key, row)
        if earlier != row and ids[earlier] != ids[row]:
            column[row] = f"the same as {ids[earlier]}"
    return column


def _add_looks(facts: Facts, known: SampleFacts, exam: Exam | None) -> None:
    """Compare pictures by what they look like, and with those of the benchmarks."""
    found = facts.found
    seen = [index for index, fact in enumerate(found) if fact.look is not None]
    looks = [found[index].look or "" for index in seen]
    alike: dict[int, str] = {}
    for left, right in _different_files(near_duplicates(looks), seen, found):
        alike.setdefault(right, f"looks like {found[left].path}")
        known.alike.append((found[left].content, found[right].content))
    facts.media["near_duplicate"] = _spread(facts, alike)
    if exam is None:
        return
    same = {
        index: f"{fact.path} is {exam.digests[fact.content]} of the benchmarks"
        for index, fact in enumerate(found)
        if fact.content in exam.digests
    }
    facts.media["leaked_image"] = _spread(facts, same)
    near = {
        seen[index]: f"{found[seen[index]].path} looks like {place} of the benchmarks"
        for index, place in leaked_looks(looks, exam).items()
        if seen[index] not in same
    }
    facts.media["leaked_near_duplicate"] = _spread(facts, near)


def _different_files(
    pairs: np.ndarray, seen: Sequence[int], found: Sequence[MediaFact]
) -> Iterator[tuple[int, int]]:
    """Leave out pairs of files that hold the very same picture."""
    for left, right in pairs.tolist():
        if found[seen[left]].content != found[seen[right]].content:
            yield seen[left], seen[right]


def _spread(facts: Facts, by_medium: Mapping[int, str]) -> Any:
    column = np.full(len(facts.found), None, dtype=object)
    for index, text in by_medium.items():
        column[index] = text
    return column[facts.media["medium"].to_numpy()]
