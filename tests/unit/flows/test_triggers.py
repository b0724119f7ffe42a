"""Triggers start one run for one reason, also when looks are interrupted or clocks jump."""

import json
import shutil
import subprocess

import pytest

from flows.triggers import Memory, look_at_data, look_at_drift, remembering
from ovis_model.errors import DataError
from tasks.artifacts import HEARTBEATS, REPRODUCED, TRIGGERS, TURN
from tasks.operations import TriggersConfig
from tests.support.working_tree import ROOT

CONFIG = TriggersConfig(stable_minutes=10, per_day=2)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOON = 1_800_000_000.0


def look(memory, version, now, learned="old"):
    return look_at_data(memory, version, learned, CONFIG, now)


def start(memory, version, now, learned="old"):
    """Look until a version is stable, and return the look that starts a run."""
    memory = look(memory, version, now - 10 * MINUTE, learned).memory
    return look(memory, version, now, learned)


def test_learned_data_are_no_reason():
    found = look(Memory(), "old", NOON)
    assert (found.due, found.says) == (False, "the data are those that were learned (old)")


def test_new_data_start_one_run_once_they_have_stayed_so():
    first = look(Memory(), "new", NOON)
    assert not first.due
    assert first.says == "new data (new), which must stay so for 10 minutes more"
    assert not look(first.memory, "new", NOON + 9 * MINUTE).due
    found = look(first.memory, "new", NOON + 10 * MINUTE)
    assert (found.due, found.reason) == (True, "new data new")
    again = look(found.memory, "new", NOON + DAY)
    assert (again.due, again.says) == (False, "a run was started for these data already (new)")


def test_data_that_still_change_wait_from_their_last_change():
    memory = look(Memory(), "half", NOON).memory
    memory = look(memory, "whole", NOON + 9 * MINUTE).memory
    assert not look(memory, "whole", NOON + 18 * MINUTE).due
    assert look(memory, "whole", NOON + 19 * MINUTE).due


def test_data_that_went_back_to_what_was_learned_are_forgotten():
    memory = look(Memory(), "new", NOON).memory
    memory = look(memory, "old", NOON + MINUTE).memory
    assert not look(memory, "new", NOON + 20 * MINUTE).due


def test_a_look_that_died_before_it_remembered_asks_for_the_same_run():
    before = look(Memory(id="a1"), "new", NOON).memory
    keys = {look(before, "new", NOON + late * MINUTE).key for late in (10, 20)}
    assert keys == {"trigger-a1-1-new"}


def test_a_memory_that_was_lost_asks_for_a_run_of_its_own(tmp_path):
    def look_and_die(path):
        with remembering(path) as (memory, _):
            return look_at_data(memory, "new", "old", at_once, NOON).key

    at_once = TriggersConfig(stable_minutes=0)
    path = tmp_path / "triggers.json"
    first = look_and_die(path)
    assert look_and_die(path) == first
    path.unlink()
    assert look_and_die(path) not in {first, ""}


def test_data_that_come_a_second_time_are_a_new_reason():
    first = start(Memory(id="a1"), "a", NOON)
    second = start(first.memory, "b", NOON + DAY, learned="a")
    third = start(second.memory, "a", NOON + 2 * DAY, learned="b")
    assert [one.key for one in (first, second, third)] == [
        "trigger-a1-1-a",
        "trigger-a1-2-b",
        "trigger-a1-3-a",
    ]


def test_data_that_change_while_a_run_is_active_start_the_next():
    first = start(Memory(), "a", NOON)
    assert start(first.memory, "b", NOON + HOUR).due


def test_a_day_has_a_budget_and_what_is_above_it_comes_later():
    memory = Memory()
    for number in range(2):
        memory = start(memory, f"v{number}", NOON + number * HOUR).memory
    found = start(memory, "v2", NOON + 2 * HOUR)
    assert not found.due
    expected = (
        "new data v2, but 2 runs were started within a day (triggers.per_day is 2); the next may "
        "start in 22.0 hours"
    )
    assert found.says == expected
    assert look(found.memory, "v2", NOON + DAY + MINUTE).due


def test_a_clock_that_goes_back_makes_nothing_stable_and_gives_no_budget():
    memory = look(Memory(), "new", NOON).memory
    memory = look(memory, "new", NOON - DAY).memory
    assert not look(memory, "new", NOON - DAY + MINUTE).due
    spent = Memory(times=(NOON, NOON))
    assert not start(spent, "new", NOON - HOUR).due


def test_what_is_remembered_survives_and_a_torn_file_is_no_memory(tmp_path):
    path = tmp_path / "triggers.json"
    with remembering(path) as (memory, remember):
        remember(start(memory, "new", NOON).memory)
    assert Memory.read(path).started == ("new",)
    path.write_text(path.read_text()[:20])
    assert Memory.read(path).started == ()


def test_make_clean_leaves_what_is_remembered_and_who_has_the_tree(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = [tmp_path / path for path in (TRIGGERS, TURN)]
    gone = [tmp_path / folder / "file" for folder in (REPRODUCED, HEARTBEATS)]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.exists() for path in kept + gone] == [True, True, False, False]


# ---- drift ----------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path):
    def write(**content):
        path = tmp_path / "drift.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def drift(memory, report, version="new", learned="old"):
    return look_at_drift(memory, report, version=version, learned=learned, config=CONFIG, now=NOON)


def test_a_report_of_drift_starts_one_run_and_its_data_one(report):
    path = report(drifted=True, checked=1)
    found = drift(Memory(), path)
    assert (found.due, found.reason) == (True, "drift, data new")
    again = drift(found.memory, path)
    assert (again.due, again.says) == (
        False,
        "a run was started for this report of drift already",
    )
    other = drift(found.memory, report(drifted=True, checked=2))
    assert (other.due, other.says) == (
        False,
        "drift, but a run was started for these data already (new)",
    )
    assert not look(found.memory, "new", NOON).due


def test_no_drift_no_report_and_learned_data_are_no_reason(report, tmp_path):
    assert drift(Memory(), report(drifted=False)).says == "no drift"
    assert "there is no" in drift(Memory(), tmp_path / "none.json").says
    says = drift(Memory(), report(drifted=True), learned="new").says
    assert says.startswith("drift, but the pipeline has learned these raw data")


def test_what_is_no_report_is_an_error(report):
    with pytest.raises(DataError, match=r"drift.json is not a report of drift; `ovis drift`"):
        drift(Memory(), report(other=1))
