import pytest
import torch

from ovis_model.errors import TrainingError
from ovis_model.training.step_guard import MicroBatch, StepGuard


def guard(**settings):
    return StepGuard(**{"world_size": 1, "spike_factor": None, "spike_window": 4, **settings})


def look(watching, loss, *, signal=0, **batch):
    usual = {"step": 1, "sample_ids": ["a", "b"], "num_supervised": 3, "closes_step": True}
    batch = MicroBatch(**{**usual, **batch})
    return watching.check(torch.tensor(loss), batch, received_signal=signal)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_names_step_and_samples(loss):
    with pytest.raises(TrainingError, match=r"^step 7, samples a, b\. The loss is (nan|-?inf): "):
        look(guard(), loss, step=7)


def test_every_sample_is_named_for_each_may_be_the_one():
    ids = [f"sample_{number}" for number in range(20)]
    with pytest.raises(TrainingError, match=r"sample_0, .*, sample_19\. The loss"):
        look(guard(), float("nan"), sample_ids=ids)


def test_a_batch_of_which_nothing_is_learned_is_told_apart():
    with pytest.raises(TrainingError, match=r"samples a, b\. No token of this batch is learned"):
        look(guard(), float("nan"), num_supervised=0)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_names_all_samples_of_the_step(norm):
    watching = guard()
    look(watching, 1.0, sample_ids=["a"], closes_step=False)
    look(watching, 1.0, sample_ids=["b"])
    with pytest.raises(TrainingError, match=r"step 1, samples a, b\. The norm of the gradient is"):
        watching.check_gradient(norm, step=1)
    look(watching, 1.0, sample_ids=["c"])
    with pytest.raises(TrainingError, match=r"step 2, samples c\. "):
        watching.check_gradient(norm, step=2)


def test_a_spike_over_the_median_stops_and_says_by_how_much():
    watching = guard(spike_factor=3.0)
    for loss in (1.0, 2.0, 100.0, 2.0):  # a high one is allowed while there is no window yet
        look(watching, loss)
    look(watching, 5.9, sample_ids=["fine"])
    with pytest.raises(
        TrainingError,
        match=r"step 6, samples x\. The loss is 13, over 3 times the median of the last 4 steps "
        r"\(3\.95\).* raise train\.loss_spike_factor; nothing of this step was kept",
    ):
        look(watching, 13.0, step=6, sample_ids=["x"])


def test_a_step_s_loss_is_the_sum_of_its_micro_batches():
    watching = guard(spike_factor=3.0, spike_window=1)
    look(watching, 1.0)
    look(watching, 2.0, sample_ids=["a"], closes_step=False)
    with pytest.raises(TrainingError, match=r"samples a, b\. The loss is 4, over"):
        look(watching, 2.0, sample_ids=["b"])


def test_without_a_factor_any_finite_loss_will_do():
    watching = guard()
    for loss in (1.0, 1.0, 1.0, 1.0, 1e30):
        look(watching, loss)


def test_a_signal_received_is_handed_on():
    assert look(guard(), 1.0, signal=15) == 15
    assert look(guard(), 1.0) == 0
