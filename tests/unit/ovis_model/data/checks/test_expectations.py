import html
import os
from pathlib import Path

import pandas as pd
import pytest

from ovis_model.data.annotations.formats import read_records
from ovis_model.data.checks.expectations import Outcome, build_rules, check
from ovis_model.data.checks.facts import make_tables, survey
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.checks.spool import SampleSpool
from ovis_model.data.reasons import REASONS
from tests.support.raw_data import sample, write_annotations

SEVERITIES = {code: reason.severity for code, reason in REASONS.items()}


def tables_of(folder: Path, *samples: object) -> dict:
    with SampleSpool(folder / "spool") as spool:
        found = survey(read_records(write_annotations(folder, samples)), folder, spool)
        media = [MediaFact(path, kind, sha256=path) for kind, path in found.media_of()]
        facts = make_tables(found, media)
    columns = ("duplicate_content", "empty_range", "few_frames")
    facts.samples[list(columns)] = None
    facts.media["near_duplicate"] = pd.Series(dtype=object)
    return facts.tables


def run(folder: Path, *samples: object) -> list[Outcome]:
    rules = build_rules(with_lengths=False, with_benchmarks=False)
    return check(tables_of(folder, *samples), rules, folder / "docs", severities=SEVERITIES)


def test_there_are_at_least_twenty_five_rules_with_a_sentence_and_a_weight_each() -> None:
    rules = build_rules()
    assert len(rules) >= 25
    assert len({rule.code for rule in rules}) == len(rules)
    assert all(
        html.unescape(rule.expectation.description) == REASONS[rule.code].expected
        for rule in rules
    )


def test_all_offending_rows_are_known_however_many(tmp_path: Path) -> None:
    samples = [sample(f"s{n}", f"Which, {n}?", "" if n % 2 else "7") for n in range(300)]
    outcomes = {outcome.rule.code: outcome.rows for outcome in run(tmp_path, *samples)}
    # Two turns each: the answers of odd samples.
    assert outcomes.pop("empty_text") == tuple(range(3, 600, 4))
    assert set(outcomes.values()) == {()}


def test_the_data_docs_are_a_site_that_names_the_bad_samples(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/stale.html").write_text("of another run")
    run(tmp_path, sample("the-culprit", "Which?", ""), sample("fine", "Which?", "7"))
    assert not (tmp_path / "docs/stale.html").exists()
    index = (tmp_path / "docs/index.html").read_text()
    assert all(name in index for name in ("samples", "turns", "media"))
    pages = {
        path.parts[-4]: path.read_text() for path in tmp_path.glob("docs/validations/**/*.html")
    }
    assert "No turn is empty" in pages["turns"]
    assert "the-culprit" in pages["turns"]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".partial"]


def test_a_rule_that_cannot_be_evaluated_is_a_bug_not_a_verdict(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, sample("s", "Hi", "Hello"))
    tables["samples"] = tables["samples"].drop(columns="roles")
    with pytest.raises(RuntimeError, match="could not evaluate the rule 'role_order'"):
        check(tables, build_rules(), tmp_path / "docs", severities=SEVERITIES)


def test_great_expectations_does_not_report_home() -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "False"
