"""The forgetting guard: base, champion and candidate on the same items, side by side.

Which champion it was is recorded here and decides nothing elsewhere: the registry is outside of
what DVC knows, so no stage reads this.
"""

from dataclasses import dataclass

from ovis_model.errors import GateError
from ovis_model.evaluation.comparison import compare
from ovis_model.evaluation.predictions import Run
from ovis_model.evaluation.verdict import Comparison, ComparisonRules
from ovis_model.reports import Report


@dataclass(frozen=True)
class Incumbent:
    """Who holds the alias `champion` now.

    Attributes:
        version: In the registry; None if nobody holds it.
        run: Its answers; None if it was not asked.
        note: Why it was not.
    """

    version: int | None = None
    run: Run | None = None
    note: str = ""


class Guard(Report):
    """What the candidate lost, against whom.

    Attributes:
        champion_version: Version of the champion, None if there was none.
        note: Why there is no comparison with the champion; empty if there is one.
        base: Candidate against base.
        champion: Candidate against champion.
    """

    champion_version: int | None
    note: str
    base: Comparison
    champion: Comparison | None

    def to_table(self) -> str:
        """Tell the scores side by side as plain text, a line per benchmark."""
        lines = [f"{'benchmark':24} {'base':>8} {'champion':>9} {'candidate':>10}   changes"]
        for name, one in self.base.benchmarks.items():
            found, rival = one.evidence, None
            if self.champion is not None:
                rival = self.champion.benchmarks[name].evidence
            held = "-" if rival is None else f"{rival.champion:.1f} %"
            changes = f"{found.difference:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
            if rival is not None:
                changes += f", {rival.difference:+.1f} ({rival.low:+.1f} to {rival.high:+.1f})"
            lines.append(
                f"{name:24} {found.champion:6.1f} % {held:>9} {found.candidate:8.1f} %   {changes}"
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])


def stand_guard(candidate: Run, base: Run, incumbent: Incumbent) -> Guard:
    """Compare a candidate with its base, and with the champion if that was asked.

    Every benchmark is a guard: none may lose more than the margin.

    Raises:
        GateError: If base and candidate cannot be compared.
    """
    rules = ComparisonRules()
    against_base = compare(candidate, base, rules)
    champion, note = None, incumbent.note
    if incumbent.run is not None:
        try:
            champion = compare(candidate, incumbent.run, rules)
        except GateError as error:
            note = f"version {incumbent.version}: {error}"
    return Guard(
        champion_version=incumbent.version, note=note, base=against_base, champion=champion
    )
