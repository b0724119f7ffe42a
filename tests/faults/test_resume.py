"""Killed anywhere, stopped or shrunk: what a training goes on from, and that it ends the same."""

import json
import os
import random
import signal

import pytest
from safetensors.torch import load_file

from ovis_model.modeling.checkpoint import load_model
from ovis_model.reports import sha256_of_file
from ovis_model.training import checkpoints
from ovis_model.training.exit_codes import FAILED, MISUSED, STOPPED
from ovis_model.training.faults import CrashPoint
from tests.support.training_processes import start
from tests.support.training_world import (
    TrainingWorld,
    build_training_world,
    image_sample,
    text_sample,
    video_sample,
)

KILLED = -signal.SIGKILL
#: Three steps an epoch; the checkpoints are at 2 and 4, neither of them where a line is logged.
SAMPLES = [*map(image_sample, range(3)), video_sample(0), *map(text_sample, range(2))]
SETTINGS = {
    "max_steps": 5,
    "save_steps": 2,
    "logging_steps": 3,
    "per_device_train_batch_size": 1,
    "save_total_limit": 1,
}
#: Ends a training with its model in place and its checkpoints not yet cleared away.
AT_THE_END = "kill@model.after_rename"
#: Numbers of a line of the metrics log that do not depend on the clock.
EXACT = ("step", "loss", "learning_rate", "grad_norm", "epoch")


def job_of(world: TrainingWorld, *, ranks: int, stage: int | None, **overrides):
    deepspeed = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
    accumulation = {"gradient_accumulation_steps": 2 // ranks}
    return world.write_job(**{**SETTINGS, **deepspeed, **accumulation, **overrides})


def lines(world: TrainingWorld):
    records = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    return [{key: record.get(key) for key in EXACT} for record in records]


def verified_steps(world: TrainingWorld):
    """Steps of the checkpoints in which every file has the digest of its manifest."""
    found = []
    for path in sorted(world.resume.glob("checkpoint-*/manifest.json")):
        manifest = json.loads(path.read_text())
        if manifest["files"] == checkpoints.digests(path.parent):
            found.append(manifest["step"])
    return found


def result(world: TrainingWorld):
    """Everything a training computes: weights, losses, and the whole state at its last save."""
    state = checkpoints.digests(checkpoints.folder_of(world.resume, 4))
    del state["trainer_state.json"]  # it has the speed of each step
    return {
        "weights": sha256_of_file(world.output / "model.safetensors"),
        "lines": lines(world),
        "state": state,
    }


@pytest.mark.parametrize("stage", [None, 1, 2, 3], ids="{}".format)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_training_resumes_to_the_very_same_bits(tmp_path, ranks, stage):
    world = build_training_world(tmp_path, samples=SAMPLES)
    job = job_of(world, ranks=ranks, stage=stage)
    assert start(job, ranks=ranks, fault=AT_THE_END).wait()[0] == KILLED
    uninterrupted = result(world)
    assert len(uninterrupted["state"]) >= 4

    world.start_over()
    step = random.Random(f"{ranks} {stage}").choice([3, 4])
    killed = start(job, ranks=ranks, fault=f"kill@step.before_forward:{step}")
    assert killed.wait() == [KILLED] * ranks
    assert verified_steps(world) == [2]

    resumed = start(job, ranks=ranks, fault=AT_THE_END)
    resumed.wait()
    assert "checkpoint-2" in resumed.output
    assert result(world) == uninterrupted


#: What is there after a kill at step 4, which is when the second checkpoint is written.
LEFT = {
    CrashPoint.FORWARD: [2],
    CrashPoint.OPTIMIZER: [2],
    CrashPoint.CHECKPOINT: [2],
    CrashPoint.FILES: [2],
    CrashPoint.MANIFEST: [2],
    CrashPoint.COMMIT: [2, 4],
    CrashPoint.ROTATION: [4],
    CrashPoint.MODEL: [4],
    CrashPoint.PUBLICATION: [4],
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One world, and the weights of a training in it that nobody interrupted."""
    world = build_training_world(tmp_path_factory.mktemp("plain"), samples=SAMPLES)
    assert start(job_of(world, ranks=1, stage=None)).wait() == [0]
    return world, sha256_of_file(world.output / "model.safetensors")


@pytest.mark.parametrize("point", CrashPoint)
def test_at_every_crash_point_a_good_checkpoint_is_left_and_no_half_model(plain, point):
    world, uninterrupted = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None)
    step = 5 if point.startswith("model.") else 4
    assert start(job, fault=f"kill@{point}:{step}").wait() == [KILLED]
    assert verified_steps(world) == LEFT[point]
    if point is CrashPoint.PUBLICATION:
        load_model(world.output)
    else:
        assert not world.output.exists()

    resumed = start(job)
    assert resumed.wait() == [0], resumed.output
    assert f"checkpoint-{LEFT[point][-1]}" in resumed.output
    assert sha256_of_file(world.output / "model.safetensors") == uninterrupted
    assert not world.resume.exists()
    assert not world.output.with_name("finetuned.partial").exists()


def test_a_damaged_checkpoint_is_set_aside_so_that_rotation_cannot_prefer_it(plain):
    world, uninterrupted = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None)
    assert start(job, fault="kill@checkpoint.after_manifest:4").wait() == [KILLED]
    weights = checkpoints.folder_of(world.resume, 4) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    # It is stopped at 3, saves that, and must keep it: 4 has the larger number, but is no good.
    stopped = start(job, fault="term@step.before_forward:3")
    assert stopped.wait() == [STOPPED], stopped.output
    assert "checkpoint-4 is passed over: model.safetensors has changed" in stopped.output
    assert verified_steps(world) == [3]
    assert (world.resume / "checkpoint-4.damaged").exists()
    assert start(job).wait() == [0]
    assert sha256_of_file(world.output / "model.safetensors") == uninterrupted


def test_two_processes_agree_on_where_to_stop_and_the_next_run_ends_the_same(tmp_path):
    world = build_training_world(tmp_path, samples=SAMPLES)
    job = job_of(world, ranks=2, stage=2)
    assert start(job, ranks=2).wait() == [0, 0]
    uninterrupted = sha256_of_file(world.output / "model.safetensors"), lines(world)

    # Only the second process is asked.
    world.start_over()
    stopped = start(job, ranks=2, fault="term@step.before_forward:3:1")
    assert stopped.wait() == [STOPPED, STOPPED], stopped.output
    sentence = "stopped by SIGTERM after step 3 of 5, with a checkpoint of it. Run it again"
    assert f"process 0: {sentence}" in stopped.output
    assert f"process 1: {sentence}" in stopped.output
    assert "Traceback" not in stopped.output
    assert verified_steps(world) == [3]
    assert not world.output.exists()

    assert start(job, ranks=2).wait() == [0, 0]
    assert (sha256_of_file(world.output / "model.safetensors"), lines(world)) == uninterrupted


@pytest.mark.parametrize("signals", [[signal.SIGUSR1], [signal.SIGTERM, signal.SIGTERM]])
def test_a_signal_however_often_saves_one_checkpoint_and_asks_to_be_run_again(plain, signals):
    world, _ = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None, max_steps=100_000, save_steps=100_000)
    training = start(job)
    training.wait_for(lambda: world.metrics.exists() and lines(world), "the first step")
    for number in signals:
        os.kill(training.processes[0].pid, number)
    assert training.wait() == [STOPPED], training.output
    assert f"stopped by {signals[0].name} after step" in training.output
    assert len(verified_steps(world)) == 1


def test_a_signal_during_the_last_step_lets_the_run_finish(plain):
    world, uninterrupted = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None)
    assert start(job, fault="term@step.before_forward:5").wait() == [0]
    assert sha256_of_file(world.output / "model.safetensors") == uninterrupted


def test_a_signal_before_the_first_step_ends_at_once_and_asks_to_be_run_again(plain):
    world, _ = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None)
    training = start(job, fault="hang@step.before_forward:0")  # a place that never comes
    os.kill(training.processes[0].pid, signal.SIGSTOP)
    training.processes[0].terminate()
    os.kill(training.processes[0].pid, signal.SIGCONT)
    code = training.wait()[0]
    # Before Python has a handler, the kernel ends it.
    assert code in (STOPPED, -signal.SIGTERM)
    if code == STOPPED:
        assert "stopped by SIGTERM" in training.output


def test_without_deepspeed_half_the_processes_go_on_with_twice_the_accumulation(tmp_path):
    world = build_training_world(tmp_path, samples=SAMPLES)
    settings = {"optim": "sgd", "learning_rate": 0.1}
    assert start(job_of(world, ranks=2, stage=None, **settings), ranks=2).wait() == [0, 0]
    together, curve = load_file(world.output / "model.safetensors"), lines(world)

    world.start_over()
    job = job_of(world, ranks=2, stage=None, **settings)
    start(job, ranks=2, fault="kill@step.before_forward:3").wait()
    job = job_of(world, ranks=1, stage=None, **settings)
    alone = start(job)
    assert alone.wait() == [0], alone.output
    assert "checkpoint-2" in alone.output
    for name, tensor in load_file(world.output / "model.safetensors").items():
        assert tensor.allclose(together[name], rtol=0, atol=1e-6), name
    for line, expected in zip(lines(world), curve, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_one_dead_process_ends_the_other_within_seconds(tmp_path):
    world = build_training_world(tmp_path, samples=SAMPLES)
    training = start(
        job_of(world, ranks=2, stage=1), ranks=2, fault="kill@step.before_forward:3:1"
    )
    codes = training.wait()
    assert codes == [FAILED, KILLED], training.output
    assert "process 0: the connection to another process broke" in training.output
    assert verified_steps(world) == [2]


def test_a_fault_that_does_not_exist_is_refused(plain):
    world, _ = plain
    world.start_over()
    job = job_of(world, ranks=1, stage=None)
    training = start(job, fault="kill@lunch")
    assert training.wait() == [MISUSED]
    assert "OVIS_FAULT=kill@lunch: 'lunch' is not a valid CrashPoint" in training.output
