"""What is said of a run by hand when it has ended."""

import asyncio

import pytest
from prefect.states import Completed, exception_to_failed_state

from flows.retrain import SKIPPED, outcome_of
from ovis_model.errors import StageError


def test_a_run_that_was_left_out_says_why():
    state = Completed(name=SKIPPED, message="this working tree is taken by another run")
    assert outcome_of(state) == "left out: this working tree is taken by another run"


def test_a_run_that_failed_raises_what_it_failed_with():
    failed = asyncio.run(exception_to_failed_state(StageError("no memory")))
    with pytest.raises(StageError, match="no memory"):
        outcome_of(failed)


def test_a_run_that_ended_well_gives_its_summary():
    assert outcome_of(Completed(data="* **train**: done")) == "* **train**: done"
