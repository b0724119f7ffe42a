"""With `promotion: by_approval` a passing gate is not enough: a person has the last word."""

import pytest

from ovis_model.config import GateConfig, RegisterConfig
from ovis_model.promotion import approve
from ovis_model.registry import APPROVAL, JUDGED_AGAINST, NOT_ASKED, WAITING
from tests.support.registry import MemoryRegistry, Steps


@pytest.fixture
def registry(tmp_path):
    return MemoryRegistry(tmp_path / "promotions.jsonl")


@pytest.fixture
def run(tmp_path, registry):
    """Register what a training and an evaluation left, as the step does."""
    steps = Steps(tmp_path, registry)

    def run(score, *, promotion="by_approval", floor=0.0):
        steps.evaluate(b"%d" % score, ocr=score)
        gate = GateConfig(min_score={"ocr": floor}, margin=5.0)
        return steps.register(RegisterConfig(gate=gate, promotion=promotion))

    return run


def test_a_version_that_passes_waits_as_challenger_and_keeps_its_files(run, registry, tmp_path):
    report = run(50)
    assert (report.promoted, report.waits_for_approval, report.objections) == (False, True, [])
    assert registry.aliases == {"challenger": 1}
    assert registry.tags_of(1)[APPROVAL] == WAITING
    (entry,) = [one for one in registry.promotions.read() if one.event == "done"]
    assert entry.reason == "the gate let it pass, and it waits for approval"
    approve(registry, 1, files=tmp_path / "kept" / "ovis2_5", reason="good")
    assert registry.aliases == {"challenger": 1, "champion": 1}
    again = run(50)
    assert (again.promoted, again.waits_for_approval) == (True, False)


def test_running_again_asks_no_second_time_and_promotes_nothing(run, registry):
    run(50)
    lines = len(registry.promotions.read())
    assert run(50).waits_for_approval
    assert run(50, promotion="automatic").waits_for_approval
    assert (len(registry.promotions.read()), registry.aliases) == (lines, {"challenger": 1})


def test_a_refused_version_waits_for_nobody_also_if_it_waited_before(run, registry):
    assert not run(40, floor=45).waits_for_approval
    assert APPROVAL not in registry.tags_of(1)
    assert run(50).waits_for_approval
    assert not run(50, floor=60).waits_for_approval
    assert registry.tags_of(2)[APPROVAL] == NOT_ASKED


def test_without_the_switch_nobody_is_asked(run, registry):
    assert run(50, promotion="automatic").promoted
    assert APPROVAL not in registry.tags_of(1)


def test_of_two_that_wait_the_second_is_judged_again_once_the_first_is_champion(
    run, registry, tmp_path
):
    run(50)
    run(60)
    approve(registry, 1, files=tmp_path / "kept" / "ovis2_5", reason="good")
    assert run(60).waits_for_approval
    assert registry.tags_of(2)[JUDGED_AGAINST] == "1"
    approve(registry, 2, files=tmp_path / "kept" / "ovis2_5", reason="better")
    assert registry.aliases["champion"] == 2
