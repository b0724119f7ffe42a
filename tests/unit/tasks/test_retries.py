"""What another attempt can cure is tried again, and nothing else is."""

import pytest
from prefect.states import Failed

from ovis_model.errors import (
    ConfigError,
    StageBusyError,
    StageError,
    StageStopped,
    StageUnavailableError,
)
from ovis_model.training import exit_codes
from tasks.retries import classify, is_curable

DVC = "failed to reproduce 'train': failed to run: exec python -m tasks train, exited with {}"
HELD = "ERROR: failed to reproduce 'train': 'data/extracted' is busy, it is being blocked by:"


@pytest.mark.parametrize(
    ("words", "kind", "again"),
    [
        pytest.param(DVC.format(69), StageUnavailableError, True, id="a server does not answer"),
        pytest.param(DVC.format(75), StageStopped, True, id="training was asked to stop"),
        pytest.param(HELD, StageBusyError, True, id="another run holds the tree"),
        pytest.param("Unable to acquire lock", StageBusyError, True, id="DVC's own lock"),
        pytest.param(DVC.format(1), StageError, False, id="bad data, the gate, no memory"),
        pytest.param(DVC.format(2), StageError, False, id="a configuration"),
        pytest.param(DVC.format(70), StageError, False, id="a training that hangs"),
        pytest.param("`dvc` was ended by SIGKILL", StageError, False, id="killed"),
        pytest.param("exited with 69 of 70 points\nmore", StageError, False, id="other words"),
    ],
)
def test_each_failure_is_recognised_and_tried_again_only_where_that_helps(words, kind, again):
    found = classify(StageError(words))
    assert type(found) is kind
    assert words in str(found)
    assert is_curable(None, None, Failed(data=found)) is again


def test_a_training_that_stops_says_so_with_the_code_that_is_known_here():
    assert StageStopped.exit_code == exit_codes.STOPPED


def test_an_error_of_the_flow_itself_is_not_tried_again():
    assert not is_curable(None, None, Failed(data=ConfigError("operations.yaml is missing")))
