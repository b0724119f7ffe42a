from ovis_model.data.checks.expectations import build_rules
from ovis_model.data.reasons import MEDIA_NOTES, MEDIA_PROBLEMS, REASONS, SEVERITIES


def test_every_reason_says_what_should_hold_and_what_now() -> None:
    for reason in REASONS.values():
        assert reason.severity in SEVERITIES
        assert reason.expected[0].isupper()
        assert reason.expected.endswith(".")
        assert reason.remedy[0].islower()
        assert not reason.remedy.endswith(".")


def test_every_reason_has_exactly_one_expectation() -> None:
    assert sorted(rule.code for rule in build_rules()) == sorted(REASONS)


def test_what_an_inspection_may_report_is_among_the_reasons() -> None:
    assert set(MEDIA_PROBLEMS) <= set(REASONS)
    assert set(MEDIA_NOTES) <= set(REASONS)
    assert not set(MEDIA_NOTES) & set(MEDIA_PROBLEMS)
