"""Which candidates pass, and with what sentence the others are refused."""

from dataclasses import replace

import numpy as np
import pytest

from ovis_model.config import GateConfig
from ovis_model.errors import ConfigError, DataError, GateError
from ovis_model.evaluation.predictions import Flags, TokenCounts
from ovis_model.gate import Answers, GateReport, decide, verdict_key
from tests.support.predictions import row, rows_right, run

#: What 200 answers are enough for, where nothing else is said.
MARGIN = {"margin": 5.0}


def answers(candidate, champion=None, base=None):
    """Return answers with scores by benchmark; the base has 10 %."""
    runs = [
        None
        if marks is None
        else run(who, **{name: rows_right(percent) for name, percent in marks.items()})
        for who, marks in (
            ("candidate", candidate),
            ("base", base or dict.fromkeys(candidate, 10)),
            ("champion", champion),
        )
    ]
    return Answers(*runs)


def judged(given, **gate):
    return decide(given, GateConfig(**{**MARGIN, **gate}))


def with_fields(given, who, first, **fields):
    """Change the first rows of a model's benchmark `x`."""
    asked = getattr(given, who)
    changed = [one.model_copy(update=fields) for one in asked.rows["x"][:first]]
    rows = [*changed, *asked.rows["x"][first:]]
    return replace(given, **{who: replace(asked, rows={**asked.rows, "x": rows})})


# ---- the table ------------------------------------------------------------------------------

#: Gate, champion, candidate, base, and the beginning of each objection; none is a promotion.
CASES = {
    "first model above its base": ({}, None, {"x": 60}, {"x": 10}, []),
    "first model that lost what its base knew": (
        {},
        None,
        {"x": 90, "general": 40},
        {"x": 10, "general": 60},
        ["against the base model, general lost more than 5 points, at -20.0 points"],
    ),
    "first model equal to its base": ({}, None, {"x": 60}, {"x": 60}, []),
    "floor reached": ({"min_score": {"x": 60.0}}, None, {"x": 60}, None, []),
    "under a floor": (
        {"min_score": {"x": 60.0}},
        None,
        {"x": 59.5},
        None,
        ["x: 59.5 is under 60"],
    ),
    "floor of a benchmark that was not run": (
        {"min_score": {"y": 60.0}},
        None,
        {"x": 60},
        None,
        ["y: not evaluated, but the gate has a floor of 60.0"],
    ),
    "equal to the champion": ({}, {"x": 60}, {"x": 60}, None, []),
    "equal to the champion, but should be better": (
        {"targets": ("x",)},
        {"x": 60},
        {"x": 60},
        None,
        ["against the champion, x changed by +0.0 points (-1.9 to +1.9), a gain of 2 points is"],
    ),
    "better, as it should be": ({"targets": ("x",)}, {"x": 60}, {"x": 70}, None, []),
    "perhaps better": (
        {"targets": ("x",)},
        {"x": 60},
        {"x": 62},
        None,
        ["against the champion, x changed by +2.0 points (+0.0 to +5.0), which may be chance"],
    ),
    "better at the cost of a guard": (
        {"targets": ("x",)},
        {"x": 60, "y": 80},
        {"x": 90, "y": 60},
        None,
        ["against the champion, y lost more than 5 points, at -20.0 points"],
    ),
    "perhaps worse": (
        {},
        {"x": 60},
        {"x": 57},
        None,
        ["against the champion, x is worse, by -3.0 points (-6.4 to -1.1), and a loss of 5"],
    ),
    "perhaps worse, within a margin of its own": (
        {"margins": {"x": 10.0}},
        {"x": 60},
        {"x": 57},
        None,
        [],
    ),
    "worse than the champion and than the base": (
        {},
        {"x": 60},
        {"x": 20},
        {"x": 50},
        ["against the base model, x lost", "against the champion, x lost"],
    ),
}


@pytest.mark.parametrize(
    ("gate", "champion", "candidate", "base", "objections"), CASES.values(), ids=CASES.keys()
)
def test_the_gate(gate, champion, candidate, base, objections):
    found = judged(answers(candidate, champion, base), **gate)
    assert len(found.objections) == len(objections), found.objections
    for said, expected in zip(found.objections, objections, strict=True):
        assert said.startswith(expected)
    assert found.passed is not objections or not objections


def test_what_cannot_be_shown_is_refused_with_the_rows_that_would_do():
    (said,) = judged(answers({"x": 60}, {"x": 60}), margin=1.0).objections
    assert said == (
        "against the champion, x changed by +0.0 points (-1.9 to +1.9), so a loss of 1 point is "
        "not ruled out: these rows rule it out for an equal model in 52% of cases, 385 rows would "
        "in 80 %"
    )


def test_nothing_evaluated_is_an_objection():
    assert judged(answers({})).objections == ("no benchmark was evaluated",)


# ---- how it answered ------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "passed"), [(58, True), (59, False)])
@pytest.mark.parametrize(
    ("fields", "gate", "said"),
    [
        pytest.param(
            {"flags": Flags(forced_close=True)},
            {"max_forced_close_fraction": 0.29},
            "x: 29.5 % thoughts closed by force (allowed: 29.0%)",
            id="forced",
        ),
        pytest.param(
            {"status": "invalid"},
            {"max_invalid_fraction": 0.29},
            "x: 29.5 % invalid answers (allowed: 29.0%)",
            id="invalid",
        ),
    ],
)
def test_too_many_answers_of_a_bad_kind_are_refused(fields, gate, said, count, passed):
    found = judged(with_fields(answers({"x": 60}), "candidate", count, **fields), **gate)
    assert found.objections == (() if passed else (said,))


def test_more_forced_answers_than_the_champion_are_refused_but_not_more_than_the_base():
    given = with_fields(
        answers({"x": 60}, {"x": 60}), "candidate", 10, flags=Flags(forced_close=True)
    )
    (said,) = judged(given).objections
    assert said.startswith("against the champion, x has 5.0 % thoughts closed by force")
    assert judged(given.without_champion).passed


@pytest.mark.parametrize(("ratio", "passed"), [(None, True), (1.5, True), (1.4, False)])
def test_longer_answers_than_allowed_are_refused(ratio, passed):
    given = answers({"x": 60}, {"x": 60})
    for who, tokens in (("candidate", 30), ("champion", 20)):
        given = with_fields(given, who, 200, tokens=TokenCounts(generated=tokens))
    found = judged(given, max_tokens_ratio=ratio)
    assert found.passed is passed
    assert passed or found.objections == (
        "x: 30.0 new tokens per answer, the champion 20.0 (allowed: 1.4 times as many)",
    )


def test_a_slice_that_got_worse_is_refused_if_it_should():
    given = answers({"x": 60}, {"x": 60})
    for who, right in (("candidate", 0.0), ("champion", 1.0), ("base", 0.0)):
        given = with_fields(given, who, 20, score=right, slices={"category": "charts"})
    gate = {"margin": 20.0}
    assert judged(given, **gate).passed
    (said,) = judged(given, **gate, slices_may_regress=False).objections
    assert said == "against the champion, x is worse in category charts"


# ---- chance ---------------------------------------------------------------------------------


def drawn(random, ability, who):
    scores = random.random(len(ability)) < ability
    return run(who, x=[row(f"{n:03}", float(right)) for n, right in enumerate(scores)])


def promotions(gate, *, champion, candidate, draws):
    """Count how often a candidate passes if both models answer anew each time.

    Args:
        gate: The rules.
        champion: Probabilities of a right answer, [items].
        candidate: The same.
        draws: How often.
    """
    random = np.random.default_rng(7)
    base = run("base", x=[row(f"{n:03}", 0.0) for n in range(len(champion))])
    return sum(
        decide(
            Answers(drawn(random, candidate, "c"), base, drawn(random, champion, "h")), gate
        ).passed
        for _ in range(draws)
    )


def test_a_model_that_answers_400_times_anew_meets_a_target_in_at_most_5_percent():
    ability = np.random.default_rng(1).random(60)
    gate = GateConfig(targets=("x",), margin=50.0)
    assert 0 < promotions(gate, champion=ability, candidate=ability, draws=400) <= 20


def test_a_worse_model_passes_as_guard_in_at_most_5_percent_and_a_target_never():
    ability = np.random.default_rng(1).uniform(0.5, 1.0, 150)
    worse = {"champion": ability, "candidate": ability - 0.1, "draws": 100}
    assert promotions(GateConfig(margin=10.0), **worse) <= 5
    assert promotions(GateConfig(targets=("x",), margin=10.0), **worse) == 0


def test_an_equal_model_passes_as_guard_where_the_rows_are_enough():
    ability = np.random.default_rng(1).choice([0.02, 0.98], 400)
    assert promotions(GateConfig(), champion=ability, candidate=ability, draws=20) < 20
    gate = GateConfig(margin=5.0)
    assert promotions(gate, champion=ability, candidate=ability, draws=20) == 20


# ---- what the verdict is about ----------------------------------------------------------------


def test_how_fast_and_in_which_order_answers_came_does_not_matter():
    given = answers({"x": 60}, {"x": 50})
    other = with_fields(given, "candidate", 50, latency_s=3.0, ttft_s=1.0, batch_rows=7)
    backwards = replace(given.base, rows={"x": given.base.rows["x"][::-1]})
    assert decide(replace(other, base=backwards), GateConfig()) == decide(given, GateConfig())


@pytest.mark.parametrize("who", ["candidate", "base", "champion"])
def test_another_answer_of_anyone_is_another_case(who):
    given, gate = answers({"x": 60}, {"x": 50}), GateConfig()
    other = with_fields(given, who, 1, raw_output="Hm.")
    assert verdict_key(other, gate) != verdict_key(given, gate)


def test_another_rule_is_another_case():
    given = answers({"x": 60}, {"x": 50})
    keys = {
        verdict_key(given, GateConfig()),
        verdict_key(given, GateConfig(targets=("x",))),
        verdict_key(given.without_champion, GateConfig()),
    }
    assert len(keys) == 3


def test_the_judgement_survives_its_file_and_is_told_side_by_side(tmp_path):
    found = judged(answers({"x": 60, "y": 20}, {"x": 50, "y": 30}))
    found.write(tmp_path / "gate.json")
    assert GateReport.read(tmp_path / "gate.json") == found
    assert [len(one.benchmarks["x"].flips) for one in (found.base, found.champion)] == [0, 20]
    table = found.to_table().splitlines()
    assert table[1].split()[:7] == ["x", "10.0", "%", "50.0", "%", "60.0", "%"]
    assert table[1].endswith("+50.0 (+43.1 to +56.9), +10.0 (+6.6 to +14.9)")
    markdown = found.to_markdown()
    assert markdown.startswith("Refused:\n\n- against the champion, y ")
    assert "| y | +10.0 (+6.6 to +14.9) | -10.0 (-14.9 to -6.6) |" in markdown
    alone = judged(answers({"x": 60}))
    assert alone.to_table().splitlines()[1].split()[3] == "-"
    assert alone.to_markdown().startswith("Passed.\n\n| benchmark |")


# ---- what is not judged -----------------------------------------------------------------------


def test_rules_about_benchmarks_that_were_not_run_are_a_config_error_without_a_champion_too():
    with pytest.raises(ConfigError, match="the rules name z, which was not run; there are x"):
        judged(answers({"x": 60}), targets=("z",))


def test_a_champion_that_was_asked_something_else_is_not_compared():
    with pytest.raises(GateError, match="only one of the two models was asked y; evaluate"):
        judged(answers({"x": 60, "y": 60}, {"x": 60}))


def test_predictions_that_are_none_are_named(tmp_path):
    with pytest.raises(GateError, match=r"predictions is missing; run `dvc repro evaluate`"):
        Answers.read(tmp_path / "predictions")
    with pytest.raises(DataError, match=r"tuned holds no run\.json"):
        Answers.read(tmp_path)
