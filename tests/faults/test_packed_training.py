"""Packed rows on two processes: shared out, unlike each other, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovis_model.reports import sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints
from ovis_model.training.training import train
from tests.support.training_world import TrainingWorld, build_training_world, mixed_samples

REPOSITORY = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PACKED = {"packing": True, "per_device_train_batch_size": 1, "pack_length": 2000}
#: One step of plain gradient descent, so long that the weights' own rounding does not matter.
ONE_STEP = {
    "optim": "sgd",
    "learning_rate": 10.0,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 1,
}


def run(world: TrainingWorld, **overrides):
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def start(job: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, *TWO_PROCESSES, "-m", "ovis_model.training", str(job)]
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill the launcher and its two workers, which have sessions of their own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]") -> None:
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            kill(process)
    assert process.returncode == 0, output


def first_loss(world: TrainingWorld) -> float:
    return json.loads(world.metrics.read_text().splitlines()[0])["loss"]


@pytest.mark.parametrize("stage", [None, 3], ids=["plain", "zero3"])
def test_two_rows_on_two_processes_give_the_gradients_of_single_samples(tmp_path, stage):
    world = build_training_world(tmp_path, samples=mixed_samples())
    run(world, **ONE_STEP, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    before = load_file(world.base / "model.safetensors")
    one_by_one, expected_loss = load_file(world.output / "model.safetensors"), first_loss(world)

    # The text costs most, so one process gets it alone and the other everything to look at.
    deepspeed = None if stage is None else world.deepspeed(stage)
    finish(start(world.write_job(**PACKED, **ONE_STEP, deepspeed=deepspeed)))
    report = json.loads((world.root / "train.json").read_text())
    assert (report["steps"], report["epochs"], report["packing"]["rows"]) == (1, 1.0, 2)
    assert first_loss(world) == pytest.approx(expected_loss, abs=1e-6)
    packed = load_file(world.output / "model.safetensors")
    for name, tensor in one_by_one.items():
        step = (tensor - before[name]).abs().max().item()
        assert packed[name].allclose(tensor, rtol=0, atol=1e-5 * step + 1e-8), name


@pytest.mark.slow
def test_two_processes_killed_within_a_later_epoch_resume_to_the_very_same_bytes(tmp_path):
    world = build_training_world(tmp_path)
    # Four steps an epoch: the first checkpoint is written within the second.
    job = {**PACKED, "pack_length": 160, "max_steps": 28, "save_steps": 7, "logging_steps": 1}
    job["deepspeed"] = world.deepspeed(1)
    finish(start(world.write_job(**job)))
    uninterrupted = sha256_of_folder(world.output)
    curve = (world.root / "loss.csv").read_bytes()

    process = start(world.write_job(**job))
    manifest = checkpoints.folder_of(world.resume, 7) / checkpoints.MANIFEST
    deadline = time.monotonic() + 60
    while not manifest.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.005)
    kill(process)
    process.communicate()
    assert checkpoints.count_committed(world.resume)

    finish(start(world.write_job(**job)))
    assert sha256_of_folder(world.output) == uninterrupted
    assert (world.root / "loss.csv").read_bytes() == curve
