"""The gate: may a candidate become champion?  Judged by stored answers, not by two scores.

Candidate, base model and champion have answered the same questions in one evaluation, and the
rows are paired:

    against the champion     targets are better, guards kept their margin (`ovis compare`'s rules)
    against the base model   no benchmark lost more than its margin: nothing was forgotten
    alone                    floors, thoughts closed by force, invalid answers

What the rows cannot show is an objection, too, and says how many rows would show it.  Nothing
here depends on a clock: equal answers are judged equally, however fast they came.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Self

from ovis_model.config import GateConfig
from ovis_model.errors import GateError
from ovis_model.evaluation.comparison import compare, refuse_unknown_names
from ovis_model.evaluation.predictions import BASE, TUNED, PredictionRow, Run, read_run
from ovis_model.evaluation.verdict import BenchmarkComparison, Comparison
from ovis_model.model_folder import digest_of
from ovis_model.registry import CHAMPION
from ovis_model.reports import Report

DECIMALS = 4


@dataclass(frozen=True)
class Answers:
    """What an evaluation left of each model.

    Attributes:
        candidate: The tuned model's.
        base: Those of the model it was tuned from.
        champion: Those of the champion at that time; None if there was none, or it was not asked.
    """

    candidate: Run
    base: Run
    champion: Run | None = None

    @classmethod
    def read(cls, predictions: Path) -> Self:
        """Read what the evaluate step wrote.

        Args:
            predictions: Folder with a run of each model.

        Raises:
            GateError: If it is missing.
            DataError: If a run in it is not one.
        """
        if not predictions.is_dir():
            raise GateError(f"{predictions} is missing; run `dvc repro evaluate`")
        champion = predictions / CHAMPION
        return cls(
            candidate=read_run(predictions / TUNED),
            base=read_run(predictions / BASE),
            champion=read_run(champion) if champion.is_dir() else None,
        )

    @property
    def without_champion(self) -> Self:
        """The same without a champion to beat."""
        return replace(self, champion=None)

    @property
    def champion_is_candidate(self) -> bool:
        """Whether the model was champion already when the questions were asked."""
        champion = self.champion
        return champion is not None and champion.record.model == self.candidate.record.model

    @cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of what each model answered, by its role."""
        runs = {TUNED: self.candidate, BASE: self.base, CHAMPION: self.champion}
        return {role: run.digest for role, run in runs.items() if run is not None}


class TokensPerAnswer(Report):
    """New tokens of an answer, thought included, on average: what an answer costs."""

    candidate: float
    champion: float


class GateReport(Report):
    """The judgement with all its evidence: reports/gate.json.

    Attributes:
        candidate: Digest of the model that was judged.
        rules: By which it was judged.
        answers: The sha256 of what each model answered, by its role.
        objections: What speaks against a promotion; none means that the gate lets it pass.
        base: Candidate against base model; `champion` in it is the base, `flips` are left out.
        champion: Candidate against champion; None if there was none.
        tokens: By benchmark; empty if there was no champion.
    """

    candidate: str
    rules: GateConfig
    answers: dict[str, str]
    objections: tuple[str, ...]
    base: Comparison
    champion: Comparison | None
    tokens: dict[str, TokensPerAnswer]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against a promotion."""
        return not self.objections

    def to_table(self) -> str:
        """Tell the scores side by side as plain text, a line per benchmark."""
        lines = [f"{'benchmark':24} {'base':>8} {'champion':>9} {'candidate':>10}   changes"]
        for name, one in self.base.benchmarks.items():
            found, rival = one.evidence, self._against_champion(name)
            held = "-" if rival is None else f"{rival.evidence.champion:.1f} %"
            lines.append(
                f"{name:24} {found.champion:6.1f} % {held:>9} {found.candidate:8.1f} %   "
                f"{self._changes(name, ', ')}"
            )
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Tell judgement and evidence as the model card has it."""
        lines = ["Passed." if self.passed else "Refused:", ""]
        if self.objections:
            lines += [*(f"- {objection}" for objection in self.objections), ""]
        lines += [
            "| benchmark | candidate minus base | candidate minus champion |",
            "|---|---|---|",
            *(f"| {name} | {self._changes(name, ' | ')} |" for name in self.base.benchmarks),
            "",
            "Points, with the 95 % interval of the paired difference on the same questions.",
        ]
        return "\n".join(lines)

    def _against_champion(self, name: str) -> BenchmarkComparison | None:
        return None if self.champion is None else self.champion.benchmarks[name]

    def _changes(self, name: str, separator: str) -> str:
        both = (self.base.benchmarks[name], self._against_champion(name))
        return separator.join("-" if one is None else one.evidence.change for one in both)


def verdict_key(answers: Answers, gate: GateConfig) -> str:
    """Digest what is judged and by which rules: each combination is judged once."""
    return digest_of([answers.digests, gate.model_dump(mode="json")])


def decide(answers: Answers, gate: GateConfig) -> GateReport:
    """Judge a candidate.

    Args:
        answers: Whose.
        gate: The rules.

    Raises:
        GateError: If the answers cannot be compared: other questions or conditions, answers that
            are missing or ended in an error.
        ConfigError: If the rules name a benchmark that was not run.
    """
    refuse_unknown_names(gate, answers.candidate)
    base = _without_flips(compare(answers.candidate, answers.base, gate.against_base))
    rival = answers.champion
    champion, tokens = None, {}
    if rival is not None:
        champion = compare(answers.candidate, rival, gate.against_champion)
        tokens = _count_tokens(answers.candidate, rival)
    objections = [] if base.benchmarks else ["no benchmark was evaluated"]
    objections += _judge_alone(base, gate)
    objections += _retell(base, "against the base model")
    if champion is not None:
        objections += _retell(champion, "against the champion")
    objections += _judge_tokens(tokens, gate.max_tokens_ratio)
    return GateReport(
        candidate=answers.candidate.record.model,
        rules=gate,
        answers=answers.digests,
        objections=tuple(objections),
        base=base,
        champion=champion,
        tokens=tokens,
    )


def _without_flips(comparison: Comparison) -> Comparison:
    """Leave out which questions changed: against the base nearly all may, and git has the file."""
    benchmarks = {
        name: one.model_copy(update={"flips": ()}) for name, one in comparison.benchmarks.items()
    }
    return comparison.model_copy(update={"benchmarks": benchmarks})


def _judge_alone(found: Comparison, gate: GateConfig) -> Iterator[str]:
    """Compare what one model did with fixed limits."""
    for name, floor in gate.min_score.items():
        if name not in found.benchmarks:
            yield f"{name}: not evaluated, but the gate has a floor of {floor:.1f}"
        elif (score := found.benchmarks[name].evidence.candidate) < floor:
            yield f"{name}: {score:.1f} is under {floor:.1f}"
    for name, one in found.benchmarks.items():
        for what, percent, limit in (
            (
                "thoughts closed by force",
                one.forced_close.candidate,
                gate.max_forced_close_fraction,
            ),
            ("invalid answers", one.invalid.candidate, gate.max_invalid_fraction),
        ):
            if percent > round(100 * limit, DECIMALS):
                yield f"{name}: {percent:.1f} % {what} (allowed: {limit:.1%})"


def _retell(comparison: Comparison, against: str) -> Iterator[str]:
    """Tell what a comparison did not let pass."""
    for one in comparison.benchmarks.values():
        if one.outcome != "pass":
            yield f"{against}, {one.reason}"


def _judge_tokens(tokens: Mapping[str, TokensPerAnswer], ratio: float | None) -> Iterator[str]:
    for name, one in tokens.items():
        if ratio is not None and one.candidate > ratio * one.champion:
            yield (
                f"{name}: {one.candidate:.1f} new tokens per answer, the champion "
                f"{one.champion:.1f} (allowed: {ratio:g} times as many)"
            )


def _count_tokens(candidate: Run, champion: Run) -> dict[str, TokensPerAnswer]:
    return {
        name: TokensPerAnswer(
            candidate=_mean_tokens(rows), champion=_mean_tokens(champion.rows[name])
        )
        for name, rows in candidate.rows.items()
    }


def _mean_tokens(rows: Iterable[PredictionRow]) -> float:
    return round(fmean(row.tokens.generated for row in rows), DECIMALS)
