"""Published numbers of Ovis2.5, and when a score of ours may stand beside one.

The numbers are in `published_scores.json` beside this file; those that could not be read in a
source are not there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, TypeAdapter

from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.marking import find_marker
from ovis_model.evaluation.predictions import Run
from ovis_model.evaluation.protocol import MAX_NEW_TOKENS, THINKING_BUDGET, ModelSize, Protocol
from ovis_model.evaluation.scores import PublishedNumber
from ovis_model.evaluation.scoring.score import Score


class PublishedScore(BaseModel):
    """One number that somebody published.

    Attributes:
        model: Ovis2.5-2B or Ovis2.5-9B.
        benchmark: As its authors call it.
        score: Percent.
        source: Where it was read.
        independent: Whether others than the model's authors measured it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    benchmark: str
    score: float
    source: str
    independent: bool = False


@cache
def read_published_scores() -> tuple[PublishedScore, ...]:
    """Read all numbers that are known."""
    text = (files("ovis_model.evaluation") / "published_scores.json").read_bytes()
    return TypeAdapter(tuple[PublishedScore, ...]).validate_json(text)


def published_score(name: str, size: ModelSize) -> PublishedScore | None:
    """Return what the model's authors published about a benchmark, None if nothing is known."""
    wanted = (f"Ovis2.5-{size}", name)
    return next(
        (
            entry
            for entry in read_published_scores()
            if (entry.model, entry.benchmark) == wanted and not entry.independent
        ),
        None,
    )


@dataclass(frozen=True)
class Comparison:
    """The published number beside a score, or why there is none.

    Attributes:
        published: The number, also where it does not compare.
        obstacles: Why it does not compare; empty if it does.
    """

    published: PublishedScore | None
    obstacles: tuple[str, ...]


def compare_with_published(benchmark: Benchmark, protocol: Protocol, score: Score) -> Comparison:
    """Say whether a score may stand beside the published number of its benchmark.

    Args:
        benchmark: What was asked.
        protocol: How it was run.
        score: What came out.
    """
    header = benchmark.header
    published = None
    if protocol.size is not None and header.published:
        published = published_score(header.published, protocol.size)
    return Comparison(published, tuple(_obstacles(benchmark, protocol, score, published)))


def find_published(benchmark: Benchmark, protocol: Protocol, run: Run) -> PublishedNumber:
    """Say what stands beside a run's score in its report; of several seeds the first counts.

    Args:
        benchmark: What was asked.
        protocol: How it was run.
        run: The answers.
    """
    marker, rows = find_marker(run, benchmark), run.rows[benchmark.name]
    marks = [marker.mark(row) for row in rows if row.seed == rows[0].seed]
    found = compare_with_published(benchmark, protocol, benchmark.score(marks))
    published = found.published
    return PublishedNumber(
        score=None if published is None else published.score,
        source="" if published is None else published.source,
        obstacles=found.obstacles,
    )


def _obstacles(
    benchmark: Benchmark, protocol: Protocol, score: Score, published: PublishedScore | None
) -> Iterator[str]:
    if benchmark.header.not_comparable:
        yield benchmark.header.not_comparable
    elif published is None:
        yield "no number of this benchmark is published for this model, as far as is known"
    if not benchmark.is_official_file:
        yield "the items are not those of the official file"
    if not benchmark.is_whole:
        yield "only the first items were asked"
    if protocol.preset != "published":
        yield f"the preset is {protocol.preset}, not published"
    if (protocol.max_new_tokens, protocol.thinking_budget) != (MAX_NEW_TOKENS, THINKING_BUDGET):
        yield (
            f"{protocol.max_new_tokens} new tokens with {protocol.thinking_budget} for thinking, "
            f"not {MAX_NEW_TOKENS} with {THINKING_BUDGET}"
        )
    if score.unresolved and benchmark.header.judge != "none":
        yield (
            f"{score.unresolved} answers went to a judge model in the official run, and count as "
            "wrong here: the score is a lower bound"
        )
