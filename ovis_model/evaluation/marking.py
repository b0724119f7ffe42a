"""From a stored row to its mark: by the row alone, so that it can be marked again without a model.

Two ways of choosing what is marked: what followed the thought, or what official post-processing
leaves of the output.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ovis_model.errors import DataError, list_examples
from ovis_model.evaluation.answers import extract_answer
from ovis_model.evaluation.benchmarks.benchmark import Benchmark
from ovis_model.evaluation.grouping import slices_of
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.predictions import PredictionRow, Run
from ovis_model.evaluation.responses import read_output
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, PROFILES, Profile
from ovis_model.inference.thinking import ParsedOutput, ThinkingClosed

#: Keys of a run's record that say how it was marked.
PRESET, SCORER = "preset", "scorer"


@dataclass(frozen=True)
class Marker:
    """Marks rows of one benchmark.

    Attributes:
        benchmark: Its items and its rule.
        profile: The revision that official rules follow.
        official: Whether official post-processing decides what is marked.
    """

    benchmark: Benchmark
    profile: Profile = DEFAULT_PROFILE
    official: bool = False

    @cached_property
    def items(self) -> dict[str, BenchmarkItem]:
        """By index."""
        return {item.id: item for item in self.benchmark.items}

    def __call__(self, row: PredictionRow) -> PredictionRow:
        """Fill in what was judged, what it is worth, and what scores are told apart by."""
        item, mark, header = self.items[row.index], self.mark(row), self.benchmark.header
        sizes = [(medium.width, medium.height) for medium in row.media]
        return row.model_copy(
            update={
                "extracted": mark.extracted,
                "score": header.rule.credit(mark),
                "value": mark.value,
                "status": mark.status,
                "slices": slices_of(item, header.slices, sizes),
            }
        )

    def mark(self, row: PredictionRow) -> Mark:
        """Judge a row."""
        item = self.items[row.index]
        return self.benchmark.mark(item, self.prediction(row), self.profile)

    def prediction(self, row: PredictionRow) -> str:
        """Return what of the row is marked."""
        if not self.official:
            return extract_answer(output_of(row))
        prompt = self.benchmark.prompt(self.items[row.index])
        return read_output(
            output_of(row),
            enable_thinking=row.enable_thinking,
            asks_for_final_answer=prompt.asks_for_final_answer,
        ).prediction


def output_of(row: PredictionRow) -> ParsedOutput:
    """Return the output that a row was made of."""
    flags = row.flags
    closed: ThinkingClosed = "natural" if row.thinking else "none"
    if flags.forced_close:
        closed = "forced"
    elif flags.unclosed_thinking:
        closed = "never"
    return ParsedOutput(
        text=row.raw_output,
        thinking=row.thinking,
        answer=row.response,
        finish_reason=row.finish_reason or "stop",
        thinking_closed=closed,
        thinking_tokens=row.tokens.thinking,
        answer_tokens=row.tokens.answer,
        generated_tokens=row.tokens.generated,
    )


def find_marker(run: Run, benchmark: Benchmark) -> Marker:
    """Return what marks a stored run as it was marked when it was made.

    Raises:
        DataError: If the record names a revision of the rules that is not known.
    """
    name = run.record.conditions.get(SCORER, DEFAULT_PROFILE.name)
    profile = next((one for one in PROFILES.values() if one.name == name), None)
    if profile is None:
        raise DataError(
            f"the run was marked by {name!r}, which is not known; there are {', '.join(PROFILES)}"
        )
    return Marker(benchmark, profile, official=PRESET in run.record.protocol)


def mark_again(run: Run, markers: dict[str, Marker]) -> Run:
    """Mark the rows of a stored run anew.

    Args:
        run: As it was read.
        markers: By benchmark, every one of the run's.

    Raises:
        DataError: If a benchmark is missing, or has no such question any more.
    """
    missing = sorted(run.rows.keys() - markers.keys())
    if missing:
        raise DataError(
            f"the run has answers to {list_examples(missing)}, which is none of the benchmarks "
            f"given ({', '.join(markers) or 'there is none'})"
        )
    return replace(
        run,
        rows={name: tuple(_mark_rows(rows, markers[name])) for name, rows in run.rows.items()},
    )


def _mark_rows(rows: Sequence[PredictionRow], marker: Marker) -> list[PredictionRow]:
    gone = sorted(
        {
            row.index
            for row in rows
            if row.index not in marker.items or marker.items[row.index].answer != row.truth
        }
    )
    if gone:
        raise DataError(
            f"{marker.benchmark.name}: the benchmark has changed since it was asked; other "
            f"answers, or none, for {list_examples(gone)}"
        )
    return [row if row.status == "error" else marker(row) for row in rows]
