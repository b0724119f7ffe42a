"""Pass, fail or not enough data; and refused where two runs are not the same exam."""

from dataclasses import replace

import numpy as np
import pytest

from ovis_model.config import ComparisonRules
from ovis_model.errors import ConfigError, GateError
from ovis_model.evaluation.comparison import compare, self_promotion
from ovis_model.evaluation.pairing import PairedAnswers, pair
from ovis_model.evaluation.predictions import Flags
from ovis_model.evaluation.verdict import Comparison
from tests.support.predictions import row, run

TARGET = ComparisonRules(targets=("x",))


def answers(num_items, *, gained=0, lost=0, right=0):
    """Return both models' rows: the first gained, the next lost, the next right in both."""
    candidate = [
        n < gained or gained + lost <= n < gained + lost + right for n in range(num_items)
    ]
    champion = [gained <= n < gained + lost + right for n in range(num_items)]
    return [
        [row(f"{n:04}", float(score)) for n, score in enumerate(scores)]
        for scores in (candidate, champion)
    ]


def judged(rules, **benchmarks):
    ours = run("candidate", **{name: rows[0] for name, rows in benchmarks.items()})
    theirs = run("champion", **{name: rows[1] for name, rows in benchmarks.items()})
    return compare(ours, theirs, rules)


# ---- the verdict ----------------------------------------------------------------------------


def test_a_clear_gain_passes():
    found = judged(TARGET, x=answers(200, gained=30, lost=5, right=100))
    assert found.outcome == "pass"
    assert found.reason == "pass: x improved by +12.5 points (+7.2 to +18.5)."
    one = found.benchmarks["x"]
    assert (one.evidence.champion, one.evidence.candidate) == (52.5, 65.0)
    assert (one.num_gained, one.num_lost) == (30, 5)
    assert one.evidence.t_test_p < 0.05


def test_a_gain_that_may_be_chance_is_inconclusive_and_says_what_would_do():
    found = judged(TARGET, x=answers(200, gained=12, lost=8, right=100))
    assert found.outcome == "inconclusive"
    assert found.reason == (
        "inconclusive: x changed by +2.0 points (-2.6 to +6.8), which may be chance: these rows "
        "show a gain of 2 points in 14% of cases, 2,013 rows would in 80 %."
    )


def test_a_gain_worth_having_that_is_ruled_out_fails():
    found = judged(TARGET, x=answers(2000, gained=10, lost=10, right=100))
    assert found.outcome == "fail"
    assert (
        "x changed by +0.0 points (-0.5 to +0.5), a gain of 2 points is ruled out" in found.reason
    )


def test_a_guard_of_many_rows_shows_that_nothing_was_lost():
    found = judged(ComparisonRules(), x=answers(4000, gained=40, lost=40, right=2000))
    assert found.outcome == "pass"
    assert "x kept within 1 point," in found.reason
    assert found.self_promotion is None


def test_a_margin_of_one_point_cannot_be_shown_on_200_rows():
    found = judged(ComparisonRules(), x=answers(200, gained=10, lost=10, right=100))
    assert found.outcome == "inconclusive"
    assert found.benchmarks["x"].evidence.power < 0.1
    assert "a loss of 1 point is not ruled out" in found.reason


def test_a_guard_that_lost_fails_however_much_the_target_gained():
    found = judged(
        TARGET,
        x=answers(200, gained=60, lost=0, right=100),
        y=answers(1000, gained=5, lost=60, right=800),
    )
    assert found.outcome == "fail"
    assert found.reason.startswith("fail: y lost more than 1 point, at -5.5 points")
    assert [one.outcome for one in found.benchmarks.values()] == ["pass", "fail"]


def test_a_pass_tells_the_gain_and_that_the_guards_held():
    found = judged(
        TARGET,
        x=answers(200, gained=30, lost=5, right=100),
        y=answers(4000, gained=40, lost=40, right=2000),
    )
    assert found.reason == (
        "pass: x improved by +12.5 points (+7.2 to +18.5); no guard lost its margin."
    )


def test_a_guard_may_have_a_margin_of_its_own():
    rows = answers(1000, gained=5, lost=15, right=800)
    assert judged(ComparisonRules(), y=rows).outcome == "inconclusive"
    assert judged(ComparisonRules(margins={"y": 5.0}), y=rows).outcome == "pass"


def test_more_guards_need_more_evidence():
    guard = answers(1300, gained=12, lost=12, right=800)
    alone = judged(ComparisonRules(), a=guard)
    many = judged(ComparisonRules(), **dict.fromkeys("abcdefgh", guard))
    assert many.benchmarks["a"].evidence.p_for == pytest.approx(
        8 * alone.benchmarks["a"].evidence.p_for
    )
    assert (alone.outcome, many.outcome) == ("pass", "inconclusive")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"flags": Flags(forced_close=True)}, "thoughts closed by force"),
        ({"status": "invalid"}, "invalid answers"),
    ],
)
def test_more_answers_of_a_bad_kind_fail_whatever_the_score(fields, what):
    candidate, champion = answers(200, gained=30, right=100)
    candidate[150:] = [one.model_copy(update=fields) for one in candidate[150:]]
    found = judged(TARGET, x=(candidate, champion))
    assert found.outcome == "fail"
    assert f"x has 25.0 % {what}, the champion 0.0 %" in found.reason


def test_a_slice_that_got_worse_is_named_and_stops_if_it_should():
    candidate, champion = answers(200, gained=80, lost=0, right=100)
    rows = [
        [
            one.model_copy(update={"score": 1.0 - one.score if n >= 170 else one.score})
            for n, one in enumerate(some)
        ]
        for some in (candidate, champion)
    ]
    rows[0][170:] = [one.model_copy(update={"score": 0.0}) for one in rows[0][170:]]
    for some in rows:
        some[:] = [
            one.model_copy(update={"slices": {"category": "charts" if n >= 170 else "text"}})
            for n, one in enumerate(some)
        ]
    found = judged(TARGET, x=rows)
    slices = {one.value: one for one in found.benchmarks["x"].slices}
    assert (slices["charts"].regressed, slices["text"].regressed) == (True, False)
    assert slices["charts"].high < 0
    assert found.outcome == "pass"
    strict = judged(TARGET.model_copy(update={"slices_may_regress": False}), x=rows)
    assert strict.reason == "fail: x is worse in category charts."


def test_chance_in_many_slices_is_no_regression():
    random = np.random.default_rng(0)
    rows = [
        [
            row(f"{n:04}", float(random.random() < 0.5), slices={"category": str(n % 40)})
            for n in range(1600)
        ]
        for _ in range(2)
    ]
    found = judged(ComparisonRules(), x=rows).benchmarks["x"].slices
    assert len(found) == 40
    assert not any(one.regressed for one in found)


def test_groups_and_seeds_are_compared_as_a_whole():
    def rows(turned):
        return [
            row(f"{n}-{turn}", float(n > 5 or turn != turned), seed=seed, cluster=str(n),
                groups={"group": str(n)})
            for n in range(40)
            for turn in range(4)
            for seed in range(3)
        ]  # fmt: skip

    ours = run("a", x=rows(None), parts=("all:group",), seeds=(0, 1, 2))
    theirs = run("b", x=rows(2), parts=("all:group",), seeds=(0, 1, 2))
    found = compare(ours, theirs, TARGET).benchmarks["x"]
    assert (found.evidence.champion, found.evidence.candidate) == (85.0, 100.0)
    assert found.evidence.test == "paired clustered bootstrap"
    assert (found.num_items, found.num_gained, found.outcome) == (480, 18, "pass")


def test_the_order_of_answering_does_not_matter(tmp_path):
    candidate, champion = answers(60, gained=12, lost=2, right=20)
    found = judged(TARGET, x=(candidate, champion))
    assert judged(TARGET, x=(candidate[::-1], champion)) == found
    found.write(tmp_path / "comparison.json")
    assert Comparison.read(tmp_path / "comparison.json") == found
    assert found.to_table().splitlines()[-1] == found.reason


# ---- noise does not pass --------------------------------------------------------------------


def test_a_model_that_answers_1000_times_anew_is_promoted_in_at_most_5_percent():
    random = np.random.default_rng(7)
    num_items = 60
    ability = random.random(num_items)
    right, wrong = ([row(f"{n:03}", score) for n in range(num_items)] for score in (1.0, 0.0))
    promoted = 0
    for _ in range(1000):
        runs = []
        for drawn in random.random((2, num_items)) < ability:
            rows = [right[n] if hit else wrong[n] for n, hit in enumerate(drawn)]
            runs.append(run(x=rows))
        promoted += compare(*runs, TARGET).outcome == "pass"
    assert 0 < promoted <= 50


def test_graded_answers_exchanged_1000_times_are_promoted_in_at_most_5_percent():
    ability = np.random.default_rng(7).random((2, 150))
    rows = [
        [row(f"{n:03}", score, cluster=str(n // 3)) for n, score in enumerate(scores)]
        for scores in ability
    ]
    assert 0 < self_promotion([pair(*rows)]) <= 5


def test_a_worse_model_is_not_promoted_and_a_gain_of_two_points_on_enough_rows_is():
    random = np.random.default_rng(8)
    verdicts = {-2: 0, 2: 0}
    for gain in verdicts:
        for _ in range(200):
            changed = random.random(4000) < 0.10
            up = random.random(4000) < 0.5 + gain / 20
            gains, losses = int((changed & up).sum()), int((changed & ~up).sum())
            verdicts[gain] += PairedAnswers(gains, losses, 4000).p_above(0.0) <= 0.025
    assert verdicts[-2] == 0
    assert verdicts[2] > 180


def test_self_promotion_of_several_targets_is_that_of_all_at_once():
    alone = self_promotion([PairedAnswers(30, 20, 100)])
    assert 0 < alone <= 5
    assert self_promotion([PairedAnswers(30, 20, 100)] * 2) < alone / 2


# ---- what is refused ------------------------------------------------------------------------


def both(**fields):
    rows = answers(20, gained=3, right=10)
    return run("a", x=rows[0], **fields), run("b", x=rows[1])


def test_another_fingerprint_is_refused_by_name():
    ours, theirs = both()
    benchmark = theirs.record.benchmarks["x"].model_copy(update={"fingerprint": "g"})
    other = theirs.record.model_copy(update={"benchmarks": {"x": benchmark}})
    with pytest.raises(
        GateError, match="exams: fingerprint of x is 'f' for the candidate and 'g' for the champ"
    ):
        compare(ours, replace(theirs, record=other), TARGET)


def test_another_condition_is_refused_by_name():
    ours, theirs = both(conditions={"dtype": "float32"})
    with pytest.raises(GateError, match="dtype is 'float32' for the candidate and None for the"):
        compare(ours, theirs, TARGET)


def test_a_benchmark_that_only_one_was_asked_is_refused():
    rows = answers(20)
    with pytest.raises(GateError, match="only one of the two models was asked y; evaluate"):
        compare(run("a", x=rows[0], y=rows[0]), run("b", x=rows[1]), TARGET)


def test_a_missing_answer_is_refused():
    ours, theirs = both()
    short = replace(theirs, rows={"x": theirs.rows["x"][:-1]})
    with pytest.raises(GateError, match="x: the champion has 19 of 20 answers; run its evaluat"):
        compare(ours, short, TARGET)


def test_an_answer_that_ended_in_an_error_is_refused():
    ours, theirs = both()
    failed = ours.rows["x"][3].model_copy(update={"status": "error", "error": "out of memory"})
    with pytest.raises(
        GateError, match=r"x: 1 questions of the candidate .* known: 0003 \(out of memory\); run"
    ):
        compare(replace(ours, rows={"x": [*ours.rows["x"][:3], failed]}), theirs, TARGET)


@pytest.mark.parametrize("changed", [{"row_hash": "1"}, {"index": "other"}])
def test_another_question_is_refused(changed):
    ours, theirs = both()
    rows = [theirs.rows["x"][0].model_copy(update=changed), *theirs.rows["x"][1:]]
    with pytest.raises(GateError, match="were not asked the same questions: 0000 with seed 0"):
        compare(ours, replace(theirs, rows={"x": rows}), TARGET)


def test_a_target_that_was_not_run_is_a_config_error():
    with pytest.raises(ConfigError, match="the rules name z, which was not run; there are x"):
        compare(*both(), ComparisonRules(targets=("z",)))
