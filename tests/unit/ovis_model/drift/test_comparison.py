"""Drift that was planted is found, and equal distributions raise hardly an alarm."""

import numpy as np
import pytest

from ovis_model.drift.comparison import compare, kolmogorov_smirnov
from ovis_model.drift.false_alarms import count_false_alarms, split_at_random
from ovis_model.drift.looks import fit_line, score_looks
from ovis_model.drift.rules import DriftRules
from tests.support.drifting import draw_profile

#: Of the reference, and of the new data in which drift is found.
NUM_REFERENCE, NUM_NEW = 600, 200
SPLITS = 200


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return draw_profile(tmp_path_factory.mktemp("reference"), NUM_REFERENCE, seed=0)


# ---- false alarms ---------------------------------------------------------------------------


def test_at_most_a_twentieth_of_equal_halves_raises_an_alarm_even_without_a_smallest_effect(
    reference,
):
    found = count_false_alarms(reference, DriftRules(), splits=SPLITS)
    assert found.alarms <= found.significant <= 0.05 * SPLITS


def test_the_rate_of_false_alarms_is_what_was_asked_for_and_not_zero_for_want_of_power(reference):
    lenient = DriftRules(min_effect=0.0, alpha=0.5)
    found = count_false_alarms(reference, lenient, splits=50)
    assert 0.05 * 50 < found.alarms == found.significant <= 0.5 * 50


def test_samples_that_share_a_picture_raise_no_false_alarms_either(reference):
    """Each of them taken for independent, the same halves do."""
    copies = reference.take(np.repeat(np.arange(100), 6))
    assert count_false_alarms(copies, DriftRules(), splits=50).significant <= 0.05 * 50
    rng = np.random.default_rng(0)
    halves = (split_at_random(copies, rng) for _ in range(20))
    apart = [
        [one.model_copy(update={"groups": list(range(len(one.groups)))}) for one in pair]
        for pair in halves
    ]
    rules = DriftRules(min_effect=0.0)
    assert sum(compare(*pair, rules).outcome == "drift" for pair in apart) > 10


def test_data_that_holds_some_of_the_old_raises_no_false_alarms_either(reference):
    rng = np.random.default_rng(0)
    rules = DriftRules(min_effect=0.0)
    parts = (rng.permutation(NUM_REFERENCE)[:400] for _ in range(40))
    outcomes = [compare(reference, reference.take(part), rules).outcome for part in parts]
    assert outcomes.count("drift") <= 0.05 * 40


def test_other_draws_of_the_same_world_are_no_drift(reference, tmp_path):
    found = compare(reference, draw_profile(tmp_path, NUM_NEW, seed=1), DriftRules())
    assert found.outcome == "no drift"


# ---- drift ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "drifted"),
    [
        pytest.param({"brighter": 40}, {"brightness"}, id="brighter pictures"),
        pytest.param({"mirrored": True}, {"look"}, id="other pictures of the same brightness"),
        pytest.param({"longer": True}, {"question_characters"}, id="longer questions"),
        pytest.param({"yes": 0.75}, {"answer", "answer_word"}, id="another mix of answers"),
        pytest.param({"thinking": 0.0}, {"thinking"}, id="no thinking"),
        pytest.param({"cyrillic": True}, {"script", "question_word"}, id="another script"),
    ],
)
def test_planted_drift_is_found_in_200_samples_and_named(reference, tmp_path, how, drifted):
    found = compare(reference, draw_profile(tmp_path, NUM_NEW, seed=1, **how), DriftRules())
    assert found.outcome == "drift"
    assert drifted <= set(found.drifted)
    # What did not change is not named.
    assert not {"width", "height", "kind"} & set(found.drifted)


def test_a_trivial_difference_of_very_many_samples_is_no_drift(reference):
    rng = np.random.default_rng(0)
    many = reference.take(np.arange(20_000) % NUM_REFERENCE)
    sides = [
        many.model_copy(
            update={
                "groups": list(range(20_000)),
                "numbers": {**many.numbers, "brightness": rng.normal(mean, 50, 20_000).tolist()},
            }
        )
        for mean in (100, 105)
    ]
    (brightness, *_) = compare(*sides, DriftRules()).features
    assert brightness.adjusted_p < 1e-6
    assert 0.01 < brightness.effect < 0.1
    assert not brightness.drifted


def test_pictures_are_tested_on_samples_that_were_not_fitted(reference):
    """On those that were, a line is found between any two sides."""
    halves = split_at_random(reference, np.random.default_rng(0))
    scores = score_looks(*halves)
    for half, places in zip(halves, scores, strict=True):
        assert 0.4 < np.isnan(places).mean() < 0.6
        assert len(places) == len(half.groups)
    sides = [
        np.array([list(bytes.fromhex(one)) for one in half.tiny])[np.isnan(places)] / 255
        for half, places in zip(halves, scores, strict=True)
    ]
    line = fit_line(*sides)
    fitted = [np.sort(side @ line) for side in sides]
    tested = [np.sort(places[~np.isnan(places)]) for places in scores]
    assert kolmogorov_smirnov(*fitted) > 0.3 > kolmogorov_smirnov(*tested)


def test_significance_and_effect_are_both_needed(reference, tmp_path):
    new = draw_profile(tmp_path, NUM_NEW, seed=1, brighter=40)
    found = {one.name: one for one in compare(reference, new, DriftRules()).features}
    effect = found["brightness"].effect
    asks_for_more = DriftRules(min_effect=effect + 0.01)
    assert "brightness" not in compare(reference, new, asks_for_more).drifted
    surer = DriftRules(alpha=found["brightness"].adjusted_p / 2)
    assert "brightness" not in compare(reference, new, surer).drifted


def test_too_few_samples_are_not_judged(reference, tmp_path):
    new = draw_profile(tmp_path, 60, seed=1, brighter=90)
    found = compare(reference, new, DriftRules())
    assert found.outcome == "too few samples"
    assert found.drifted == []


def test_copies_of_few_samples_are_too_few(reference):
    copies = reference.take(np.repeat(np.arange(30), 10))
    found = compare(reference, copies, DriftRules())
    assert (found.num_new, found.effective_new, found.outcome) == (300, 30.0, "too few samples")


# ---- the report -----------------------------------------------------------------------------


def test_a_feature_that_one_side_lacks_is_told_by_its_share_and_not_tested(reference, tmp_path):
    new = draw_profile(tmp_path, NUM_NEW, seed=1, thinking=0.0)
    found = {one.name: one for one in compare(reference, new, DriftRules()).features}
    assert found["thinking_characters"].num_new == 0
    assert found["thinking_characters"].effect is None
    assert found["thinking"].drifted


def test_the_digest_names_both_sides_as_they_are(reference, tmp_path):
    new = draw_profile(tmp_path, 40, seed=1)
    digest = compare(reference, new, DriftRules()).digest
    assert compare(reference, new, DriftRules(alpha=0.01)).digest == digest
    assert compare(new, reference, DriftRules()).digest != digest
    assert compare(reference, draw_profile(tmp_path, 40, seed=2), DriftRules()).digest != digest


def test_rare_categories_are_tested_together(reference):
    answer = reference.categories["answer"]
    many = answer.model_copy(
        update={
            "labels": [*answer.labels, *(f"rare {n}" for n in range(60))],
            "codes": [*answer.codes[:540], *(len(answer.labels) + n for n in range(60))],
        }
    )
    profile = reference.model_copy(update={"categories": {**reference.categories, "answer": many}})
    halves = profile.take(np.arange(0, 600, 2)), profile.take(np.arange(1, 600, 2))
    found = {one.name: one for one in compare(*halves, DriftRules()).features}["answer"]
    assert found.bins[-1] == "(other)"
    assert len(found.bins) == 3
    assert found.shares_new[-1] == pytest.approx(0.1)
    assert found.p_value > 0.05


def test_a_constant_feature_has_no_effect(reference):
    found = {one.name: one for one in compare(reference, reference, DriftRules()).features}
    assert (found["kind"].effect, found["kind"].p_value) == (0.0, 1.0)


def test_without_pictures_their_look_is_not_tested(reference):
    blind = reference.model_copy(update={"tiny": [""] * NUM_REFERENCE})
    found = {one.name: one for one in compare(reference, blind, DriftRules()).features}
    assert found["look"].effect is None
