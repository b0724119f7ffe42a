"""Numbers that are none, spikes and hangs: training ends, in all processes, and says with what."""

import re
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from ovis_model.errors import TrainingError
from ovis_model.training import checkpoints
from ovis_model.training.exit_codes import FAILED, HUNG
from ovis_model.training.step_guard import MicroBatch, StepGuard
from tests.support.training_processes import FORK, start
from tests.support.training_world import build_training_world, text_sample

SAMPLES = [text_sample(number) for number in range(4)]
QUICK = {"max_steps": 6, "save_steps": 1, "per_device_train_batch_size": 2, "logging_steps": 1}


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path, samples=SAMPLES)


def scale(world, **factors):
    """Make weights of the base model larger or smaller."""
    weights = load_file(world.base / "model.safetensors")
    weights["llm.model.norm.weight"] *= factors["norm"]
    weights["llm.lm_head.weight"] *= factors["head"]
    save_file(weights, world.base / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("stage", "max_grad_norm"),
    # ZeRO-3 adds the squares up in float64, so this gradient is none of its troubles.
    [(None, 1.0), (0, 0.0), (1, 1.0), (2, 1.0)],
    ids=["without DeepSpeed", "ZeRO-0", "ZeRO-1", "ZeRO-2"],
)
def test_a_gradient_that_is_no_number_is_never_stepped_on(world, stage, max_grad_norm):
    scale(world, norm=1e-25, head=1e25)  # a finite loss, and a gradient whose square is not
    settings = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
    training = start(world.write_job(**QUICK, **settings, max_grad_norm=max_grad_norm))
    assert training.wait() == [FAILED], training.output
    assert re.search(
        r"step 1, samples text_\d, text_\d\. The norm of the gradient is (inf|nan)",
        training.output,
    )
    assert not checkpoints.count_committed(world.resume)
    assert not world.output.exists()


def test_every_process_names_the_samples_of_all(world):
    scale(world, norm=1e30, head=1e30)
    training = start(world.write_job(**QUICK), ranks=2)
    assert training.wait() == [FAILED, FAILED], training.output
    said = re.findall(
        r"error: process (\d): step 1, process 0, samples (\w+), (\w+); "
        r"process 1, samples (\w+), (\w+)\. The loss is nan",
        training.output,
    )
    assert sorted(rank for rank, *_ in said) == ["0", "1"]
    assert said[0][1:] == said[1][1:]
    assert set(said[0][1:]) == {sample["id"] for sample in SAMPLES}


def test_a_spike_ends_the_training_and_leaves_the_checkpoint_before_it(world):
    settings = {"loss_spike_factor": 1.5, "loss_spike_window": 2, "learning_rate": 1.0}
    training = start(world.write_job(**QUICK, **settings))
    assert training.wait() == [FAILED], training.output
    found = re.search(
        r"step (\d), samples text_\d, text_\d\. The loss is [\d.]+, over 1\.5 times the median "
        r"of the last 2 steps",
        training.output,
    )
    assert found, training.output
    newest = max(world.resume.glob("checkpoint-*")).name
    assert newest == f"checkpoint-{int(found[1]) - 1}"


def test_a_process_that_hangs_is_named_with_its_samples_and_its_stack(world):
    seconds = 15  # two busy cores make a step slow, and that is no hang
    job = world.write_job(**QUICK, hang_timeout_seconds=seconds)
    training = start(job, ranks=2, fault="hang@step.before_forward:3:1")
    training.wait_for(lambda: checkpoints.count_committed(world.resume) >= 2, "two steps")
    begin = time.monotonic()
    codes = training.wait()
    assert time.monotonic() - begin < 4 * seconds
    assert codes[1] == HUNG, training.output
    assert codes[0] in (HUNG, FAILED)
    assert re.search(
        rf"process 1: nothing has moved for {seconds} s in step 3, samples text_\d, text_\d",
        training.output,
    )
    assert re.search(r'File ".*faults\.py", line \d+ in reach', training.output)


def watch_in_two(rank: int, address: str, problem: dict, told) -> None:
    """Look at one micro-batch in each of two processes; the second has a problem."""
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    guard = StepGuard(world_size=2, spike_factor=None, spike_window=1)
    usual = {"step": 4, "sample_ids": [f"of_{rank}"], "num_supervised": 5, "closes_step": True}
    loss = problem.get("loss", 1.0) if rank else 1.0
    batch = MicroBatch(**{**usual, **({} if not rank else problem.get("batch", {}))})
    try:
        signal = guard.check(torch.tensor(loss), batch, received_signal=15 if rank else 0)
        told.put((rank, str(signal)))
    except TrainingError as error:
        told.put((rank, str(error)))
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"loss": float("nan")}, "step 4, process 1, samples of_1. The loss is nan"),
        ({"batch": {"num_supervised": 0}}, "step 4, process 1, samples of_1. No token of this"),
        ({}, "15"),
    ],
    ids=["a loss that is no number", "nothing learned", "a signal"],
)
def test_what_one_process_sees_every_process_knows(tmp_path, problem, message):
    told = FORK.SimpleQueue()
    address = f"file://{tmp_path}/meeting"
    processes = [
        FORK.Process(target=watch_in_two, args=(rank, address, problem, told)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    answers = dict([told.get(), told.get()])
    assert answers.keys() == {0, 1}
    assert all(answer.startswith(message) for answer in answers.values()), answers
