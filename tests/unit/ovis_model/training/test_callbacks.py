import re
import time

import pytest
from transformers import TrainerControl, TrainerState

from ovis_model.train_config import TrainConfig
from ovis_model.training.callbacks import LOG_SECONDS, ProgressBar
from ovis_model.training.training import train
from tests.support.training_world import build_training_world

LINE = {
    "loss": 1.23456,
    "learning_rate": 2.5e-3,
    "tokens_per_second": 12345.6,
    "visual_tokens_per_second": 678.9,
    "data_wait_fraction": 0.031,
    "peak_memory_gb": 1.5,
    "padding_fraction": 0.12,
}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_in_a_file_a_line_tells_steps_time_and_numbers_at_most_every_few_seconds(clock, capsys):
    bar, control = ProgressBar(), TrainerControl()
    state = TrainerState(max_steps=40, is_world_process_zero=True)
    bar.on_train_begin(None, state, control)
    for step in (10, 11, 20, 40):
        clock[0] += {11: 0.1, 40: 0.1}.get(step, LOG_SECONDS)
        state.global_step = step
        bar.on_step_end(None, state, control)
        bar.on_log(None, state, control, logs=LINE)
    bar.on_log(None, state, control, logs={"eval_loss": 0.5})
    bar.on_train_end(None, state, control)
    numbers = (
        "loss 1.2346, lr 2.50e-03, 12,346 tokens/s, 679 visual/s, data wait 3%, 1.50 GB, "
        "padding 12%"
    )
    assert capsys.readouterr().err.splitlines() == [
        f"train: step 10/40, 00:15 left, {numbers}",
        f"train: step 20/40, 00:10 left, {numbers}",
        f"train: step 40/40, 00:00 left, {numbers}",
        "train: step 40, holdout loss 0.5000",
    ]


def test_other_processes_write_nothing(capsys):
    bar, control = ProgressBar(), TrainerControl()
    state = TrainerState(max_steps=40, is_world_process_zero=False)
    bar.on_train_begin(None, state, control)
    bar.on_step_end(None, state, control)
    bar.on_log(None, state, control, logs=LINE)
    assert not capsys.readouterr().err


def test_a_training_ends_with_a_line_that_can_be_read(tmp_path, capsys):
    world = build_training_world(tmp_path)
    train(TrainConfig.parse(world.config(max_steps=2), where="test"), **world.paths())
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"train: step 2/2, 00:00 left, loss \d\.\d{4}, lr \d\.\d\de-\d\d, [\d,]+ tokens/s, "
        r"[\d,]+ visual/s, data wait \d+%, \d\.\d\d GB, padding \d+%",
        last,
    )
