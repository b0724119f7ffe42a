"""Who ends where: every input sample once, as ok, quarantined, or dropped by a named policy."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ovis_model.data.checks.expectations import Outcome
from ovis_model.data.checks.facts import Table
from ovis_model.data.reasons import REASONS, Severity
from ovis_model.errors import list_examples

Verdict = Literal["ok", "quarantined", "dropped"]
Part = Literal["train", "holdout"]
#: Policies that leave a good sample out.
POLICIES = ("repeated", "over_length", "cap", "weight")
#: A value in a reason is cut after so many characters: a text may be a whole book.
_MAX_VALUE_CHARS = 200


@dataclass
class Ledger:
    """What became of each row.

    Attributes:
        places, ids, sources: Of each row, as the annotations have them.
        reasons: Of the rows that are set aside, the details by reason code.
        warnings: Of any row, the codes of what is worth knowing.
        policies: Of the rows that are left out, the policy.
        holdout: Rows that are held out.
        copies: Of rows that are trained on other than once, how often.
    """

    ids: Sequence[str]
    places: Sequence[str]
    sources: Sequence[str | None]
    reasons: dict[int, dict[str, str]] = field(default_factory=dict)
    warnings: dict[int, list[str]] = field(default_factory=dict)
    policies: dict[int, str] = field(default_factory=dict)
    holdout: set[int] = field(default_factory=set)
    copies: dict[int, int] = field(default_factory=dict)

    def verdict(self, row: int) -> Verdict:
        """Say where a row ends."""
        if row in self.reasons:
            return "quarantined"
        return "dropped" if row in self.policies else "ok"

    def good_rows(self) -> list[int]:
        """List the rows that are used, in order."""
        return [row for row in range(len(self.ids)) if self.verdict(row) == "ok"]

    def drop(self, rows: Iterable[int], policy: str) -> None:
        """Leave rows out by a policy, unless they are set aside or left out already."""
        for row in rows:
            if row not in self.reasons:
                self.policies.setdefault(row, policy)

    def count(self) -> dict[str, int]:
        """Count rows by verdict; asserts that every one has exactly one."""
        verdicts = Counter(map(self.verdict, range(len(self.ids))))
        counts = {name: verdicts[name] for name in ("ok", "quarantined", "dropped")}
        # A row both set aside and left out would be counted once and reported twice.
        assert sum(counts.values()) == len(self.ids), (counts, len(self.ids))
        assert counts["dropped"] == len(self.policies), (counts, len(self.policies))
        return counts

    def identity(self) -> str:
        """Write the account in a line.

        Example:
            >>> places = ["line 1", "line 2"]
            >>> Ledger(["a", "b"], places, [None, None], policies={1: "cap"}).identity()
            '2 samples in = 1 ok + 0 quarantined + 1 dropped (cap 1)'
        """
        counts = self.count()
        policies = Counter(self.policies.values())
        detail = ", ".join(f"{name} {policies[name]:,}" for name in POLICIES if policies[name])
        return (
            f"{len(self.ids):,} samples in = {counts['ok']:,} ok + "
            f"{counts['quarantined']:,} quarantined + {counts['dropped']:,} dropped"
            + (f" ({detail})" if detail else "")
        )

    def write(self, path: Path) -> None:
        """Write one JSON line per row, through a sibling `.partial` file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for line in self._lines():
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        partial.replace(path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for row, sample_id in enumerate(self.ids):
            verdict = self.verdict(row)
            line: dict[str, Any] = {
                "id": sample_id,
                "place": self.places[row],
                "source": self.sources[row],
                "verdict": verdict,
            }
            if verdict == "ok":
                line["part"] = "holdout" if row in self.holdout else "train"
                line["copies"] = self.copies.get(row, 1)
            elif verdict == "dropped":
                line["policy"] = self.policies[row]
            else:
                line["reasons"] = [
                    {"code": code, "detail": detail, "remedy": REASONS[code].remedy}
                    for code, detail in self.reasons[row].items()
                ]
            if row in self.warnings:
                line["warnings"] = self.warnings[row]
            yield {key: value for key, value in line.items() if value is not None}


def judge(
    ledger: Ledger,
    tables: Mapping[Table, pd.DataFrame],
    outcomes: Iterable[Outcome],
    severities: Mapping[str, Severity],
) -> dict[str, set[int]]:
    """Turn outcomes into reasons and warnings.

    Args:
        ledger: Gets the reasons of every sample that breaks a rule, and the warnings.
        tables: The facts that the outcomes are about.
        outcomes: What became of each rule.
        severities: The weight of each reason code.

    Returns:
        The samples that break each rule, by reason code.
    """
    broken: dict[str, set[int]] = {}
    for outcome in outcomes:
        code = outcome.rule.code
        table = tables[outcome.rule.table]
        rows = table["row"].to_numpy()[list(outcome.rows)].tolist()
        broken[code] = set(rows)
        if severities[code] == "warn":
            for row in broken[code]:
                ledger.warnings.setdefault(row, []).append(code)
            continue
        details: dict[int, list[str]] = {}
        for row, at in zip(rows, outcome.rows, strict=True):
            details.setdefault(row, []).append(_detail(outcome, table, at))
        for row, texts in details.items():
            ledger.reasons.setdefault(row, {})[code] = list_examples(texts)
    return broken


def _detail(outcome: Outcome, table: pd.DataFrame, at: int) -> str:
    values = {name: table[name].iat[at] for name in outcome.rule.columns}
    text = describe(values)
    return f"turn {table['turn'].iat[at]}: {text}" if outcome.rule.table == "turns" else text


def describe(values: Mapping[str, object]) -> str:
    """Show the one text that says it, or each count with its name.

    Example:
        >>> describe({"num_images": 2, "num_image_placeholders": 1})
        'num_images = 2, num_image_placeholders = 1'
    """
    if len(values) == 1 and isinstance(text := next(iter(values.values())), str):
        return text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + " ..."
    return ", ".join(f"{name} = {value}" for name, value in values.items())
