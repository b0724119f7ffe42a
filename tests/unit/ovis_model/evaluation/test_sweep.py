"""Budgets are tried on the same questions; the smallest that is good enough is recorded."""

import pytest

from ovis_model.errors import ConfigError
from ovis_model.evaluation.running import ask
from ovis_model.evaluation.sweep import Sweep, SweepPoint, render_sweep, sweep
from ovis_model.inference.auto_budget import AutoBudget, budget_file, read_auto_budget
from ovis_model.model_folder import digest_of_folder
from tests.support.exams import ScriptedBackend, exam, output, question

QUESTIONS = [question(number, colour=number) for number in range(10)]


def swept(tmp_path, right, **options):
    """Sweep a model that gets so many of ten questions right, by budget."""

    def ask_all(exams):
        budget = exams[0].settings.thinking_budget or 0
        wrong = {str(number): output("0") for number in range(right[budget], 10)}
        return ask(exams, ScriptedBackend(wrong), working=tmp_path)

    return sweep([exam(QUESTIONS)], list(right), ask_all, **options)


@pytest.mark.parametrize(
    ("right", "tolerance", "knee"),
    [
        ({0: 2, 256: 7, 1024: 9, 2048: 9}, 1.0, 1024),
        ({0: 2, 256: 7, 1024: 9, 2048: 9}, 20.0, 256),
        ({0: 9, 256: 8}, 1.0, 0),
        ({2048: 9, 0: 1, 256: 9}, 0.0, 256),
    ],
    ids=["levels off", "good enough", "thinking hurts", "any order"],
)
def test_the_knee_is_the_smallest_budget_near_the_best_score(tmp_path, right, tolerance, knee):
    found = swept(tmp_path, right, tolerance=tolerance)
    assert found.knee == knee
    assert [point.budget for point in found.points] == sorted(right)
    assert {point.budget: point.score for point in found.points} == {
        budget: 10.0 * number for budget, number in right.items()
    }
    assert found.to_auto_budget().thinking_budget == knee


def test_a_point_tells_tokens_and_time(tmp_path):
    (point,) = swept(tmp_path, {256: 10}).points
    assert (point.thinking_tokens, point.seconds, point.seconds_per_item) == (2, 0.5, 0.5)


@pytest.mark.parametrize("budgets", [[], [-1]])
def test_budgets_that_are_none_are_refused(budgets):
    with pytest.raises(ValueError, match="budgets are numbers of tokens from 0 on"):
        sweep([exam(QUESTIONS)], budgets, lambda exams: None)


def test_the_page_draws_both_curves_and_escapes(tmp_path):
    found = swept(tmp_path, {0: 2, 256: 9})
    page = render_sweep(found.model_copy(update={"model": "<script>"}))
    assert page.count("<svg") == 2
    assert page.count("<circle") == 4
    assert page.count('class="knee"') == 3
    assert "<script>" not in page


def test_equal_points_are_drawn_too():
    point = SweepPoint(
        budget=0,
        score=50.0,
        scores={},
        thinking_tokens=0,
        forced_close=0,
        seconds=0,
        seconds_per_item=0,
    )
    page = render_sweep(Sweep(model="m", points=(point,), tolerance=1, knee=0))
    assert page.count("<circle") == 2


# ---- the recorded budget --------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("x")
    return folder


def test_a_recorded_budget_is_read_back(model):
    AutoBudget(model=digest_of_folder(model), thinking_budget=256).write(budget_file(model))
    assert read_auto_budget(model) == 256
    assert budget_file(model).name == "model.budget.json"


def test_a_budget_of_another_model_is_refused(model):
    AutoBudget(model="other", thinking_budget=256).write(budget_file(model))
    with pytest.raises(ConfigError, match=r"about another model .* run `ovis eval sweep"):
        read_auto_budget(model)


def test_without_a_record_there_is_no_auto_budget(model):
    with pytest.raises(ConfigError, match=r"'auto' needs .*model\.budget\.json, which is missing"):
        read_auto_budget(model)
    budget_file(model).write_text('{"budget": 1}')
    with pytest.raises(ConfigError, match="is no record of a budget"):
        read_auto_budget(model)
