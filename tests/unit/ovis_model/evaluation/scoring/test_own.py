"""Rules for data of one's own, at their edges."""

import json

import pytest

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.metrics import METRICS, MetricOptions
from ovis_model.evaluation.scoring.own import (
    contains,
    exact,
    json_field,
    last_number,
    number,
    regex,
)


@pytest.mark.parametrize(
    ("answer", "correct", "invalid"),
    [("7", True, False), (" 7\n", True, False), ("8", False, False), ("", False, True)],
)
def test_exact(answer, correct, invalid):
    assert exact(answer, "7") == Mark(correct, float(correct), invalid)


@pytest.mark.parametrize(
    ("answer", "correct", "invalid"),
    [
        ("It is a RED car", True, False),
        ("a red bicycle", False, False),
        ("STRASSE: red car", True, False),
        (" \n", False, True),
    ],
)
def test_contains(answer, correct, invalid):
    assert contains(answer, " Red car ") == Mark(correct, float(correct), invalid)


@pytest.mark.parametrize(
    ("answer", "pattern", "correct", "invalid"),
    [
        pytest.param("Total: 42 EUR", r"Total: (\d+)", True, False, id="first group"),
        pytest.param("answer 42", r"\d+", True, False, id="all of the match"),
        pytest.param("Total: 43 EUR", r"Total: (\d+)", False, False, id="another value"),
        pytest.param("forty-two", r"\d+", False, True, id="nothing found"),
        pytest.param("Total:", r"Total:(\d+)?", False, False, id="a group that took no part"),
    ],
)
def test_a_pattern_takes_the_answer_out_of_the_text(answer, pattern, correct, invalid):
    found = regex(answer, "42", pattern)
    assert (found.correct, found.invalid) == (correct, invalid)


def test_without_a_pattern_the_truth_is_one():
    assert regex("between 7 and 9 apples", r"\b7\b").correct
    assert not regex("77 apples", r"\b7\b").correct
    assert regex("", r"\b7\b").invalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234,567.5 EUR", 1234567.5),
        ("1,23", 23.0),
        ("from 3-5", 5.0),
        ("3 - -5", -5.0),
        ("\N{MINUS SIGN}5", -5.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("2e3 m", 2000.0),
        ("12%", 12.0),
        ("none", None),
        ("", None),
        ("-", None),
    ],
)
def test_the_last_number_of_a_text(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize(
    ("answer", "tolerance", "relative", "correct"),
    [
        ("100", 0, 0, True),
        ("100.5", 0, 0, False),
        ("100.5", 0.5, 0, True),
        ("100.51", 0.5, 0, False),
        ("95", 0, 0.05, True),
        ("94.9", 0, 0.05, False),
        ("94.9", 6, 0.05, True),
    ],
)
def test_a_number_may_be_off_by_the_tolerance(answer, tolerance, relative, correct):
    assert number(answer, "100", tolerance=tolerance, relative=relative).correct is correct


def test_a_number_needs_one_on_both_sides():
    assert number("many", "100") == Mark(correct=False, value=0.0, invalid=True)
    with pytest.raises(ValueError, match="'many' holds no number"):
        number("100", "many")


@pytest.mark.parametrize(
    ("answer", "correct", "invalid"),
    [
        pytest.param('{"a": {"b": [1, 12.50]}}', True, False, id="nested"),
        pytest.param('```json\n{"a": {"b": [0, "12.5"]}}\n```', True, False, id="fenced"),
        pytest.param('I read {"a": {"b": [0, 12.5]}}.', True, False, id="inside text"),
        pytest.param('{"a": {"b": [0, 13]}}', False, False, id="another value"),
        pytest.param('{"a": {"b": [0]}}', False, True, id="list too short"),
        pytest.param('{"a": 5}', False, True, id="field missing"),
        pytest.param('{"a": {"b": [0, null]}}', False, False, id="null"),
        pytest.param('{"a": ', False, True, id="cut off"),
        pytest.param("no JSON", False, True, id="none"),
        pytest.param("[" * 40_000, False, True, id="very deep"),
    ],
)
def test_a_field_of_json(answer, correct, invalid):
    found = json_field(answer, "12.5", "a.b.1")
    assert (found.correct, found.invalid) == (correct, invalid)


def test_a_field_with_text_is_compared_as_text():
    answer = json.dumps({"name": " Müller ", "paid": True})
    assert json_field(answer, "Müller", "name").correct
    assert json_field(answer, "true", "paid").correct
    assert not json_field(answer, "müller", "name").correct


@pytest.mark.parametrize("metric", ["exact", "contains", "number", "json_field", "iou"])
def test_the_best_of_several_answers_counts(metric):
    boxes = ("<box>(0.1,0.1),(0.2,0.2)</box>", "<box>(0.5,0.5),(0.9,0.9)</box>")
    answers = boxes if metric == "iou" else ("7", "8")
    item = BenchmarkItem(id="a", question="?", answer=answers[0], alternatives=answers[1:])
    given = f'{{"x": {answers[1]}}}' if metric == "json_field" else answers[1]
    assert METRICS[metric].mark(given, item, MetricOptions(field="x")).correct
