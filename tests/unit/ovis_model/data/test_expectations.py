import os
from pathlib import Path

from ovis_model.data.expectations import build_rules, check
from ovis_model.data.facts import COLUMNS, collect_facts
from ovis_model.data.formats import read_records
from tests.support.raw_data import sample, write_annotations


def test_there_is_a_suite_of_at_least_twelve_rules_with_a_sentence_each() -> None:
    rules = build_rules()
    assert len(rules) >= 12
    assert len({rule.code for rule in rules}) == len(rules)
    assert all(rule.expectation.description.endswith(".") for rule in rules)
    assert all(set(rule.columns) <= set(COLUMNS) for rule in rules)


def test_all_offending_rows_are_known_however_many(tmp_path: Path) -> None:
    samples = [sample(f"s{n}", "Which?", "" if n % 2 else "7") for n in range(300)]
    facts = collect_facts(read_records(write_annotations(tmp_path, samples)), tmp_path)
    outcomes = {o.rule.code: o.rows for o in check(facts.table, tmp_path / "docs")}
    assert outcomes.pop("empty_text") == tuple(range(1, 300, 2))
    assert set(outcomes.values()) == {()}


def test_the_data_docs_are_a_site_that_names_the_bad_samples(tmp_path: Path) -> None:
    docs = tmp_path / "reports/data_docs"
    docs.mkdir(parents=True)
    (docs / "stale.html").write_text("of another run")
    samples = [sample("the-culprit", "Which?", ""), sample("fine", "Which?", "7")]
    facts = collect_facts(read_records(write_annotations(tmp_path, samples)), tmp_path)
    check(facts.table, docs)
    assert not (docs / "stale.html").exists()
    assert "samples" in (docs / "index.html").read_text()
    (page,) = docs.glob("validations/**/*.html")
    assert "No turn is empty" in page.read_text()
    assert "the-culprit" in page.read_text()
    assert [path.name for path in docs.parent.iterdir()] == ["data_docs"]


def test_great_expectations_does_not_report_home() -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "False"
