"""Two processes, one of which runs out of memory; and what both measure together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovis_model.train_config import TrainConfig
from ovis_model.training.micro_batch import reductions
from ovis_model.training.training import train
from tests.support.training_world import build_training_world, image_sample, text_sample

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SMALL_MEMORY = "tests.support.small_memory"


def start(*command: str) -> subprocess.CompletedProcess[str]:
    launched = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
    environment = {key: value for key, value in os.environ.items() if key not in launched}
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [sys.executable, *command],
        env={**environment, **quiet, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def numbers(world) -> dict[tuple[int, str], float]:
    """Every loss and norm of the metrics log, by step and name."""
    lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    told = ("loss", "eval_loss", "grad_norm")
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if name.startswith(told)
    }


def test_two_processes_agree_on_a_smaller_micro_batch_and_measure_what_one_does(tmp_path):
    samples = [
        {**sample, "source": sample["id"].partition("_")[0]}
        for number in range(8)
        for sample in (image_sample(number), text_sample(number))
    ]
    world = build_training_world(tmp_path, samples=samples)
    settings = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_steps": 4,
        "save_steps": 1,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    job = str(
        world.write_job(deepspeed=world.deepspeed(2), per_device_train_batch_size=2, **settings)
    )

    # In process 1, at the third step, two rows are one too many.
    ended = start(*TORCHRUN, "-m", SMALL_MEMORY, "1", "3", "1", job)
    assert ended.returncode != 0
    assert "error: process 1: step 3 ran out of memory: " in ended.stderr
    (reduction,) = reductions(world.resume)
    assert (reduction.step, reduction.process) == (3, 1)
    assert reduction.per_device_train_batch_size == 1

    # The other process ended, too, and the same command goes on.
    ended = start(*TORCHRUN, "-m", SMALL_MEMORY, "1", "1", "1", job)
    assert ended.returncode == 0, ended.stderr
    report = json.loads((world.root / "train.json").read_text())
    assert report["micro_batch_reductions"] == [reduction.model_dump()]
    assert report["effective_batch_size"] == 4
    together, found = load_file(world.output / "model.safetensors"), numbers(world)

    config = world.config(per_device_train_batch_size=4, **settings)
    alone = train(TrainConfig.parse(config, where="test"), **world.paths())
    assert report["holdout_loss"] == pytest.approx(alone.holdout_loss, abs=2e-6)
    expected = numbers(world)
    assert {"eval_loss", "eval_loss/thinking", "loss/answer", "loss/image", "grad_norm/vte"} <= {
        name for _, name in expected
    }
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for name, tensor in load_file(world.output / "model.safetensors").items():
        assert tensor.allclose(together[name], atol=1e-6), name


def test_a_single_process_starts_itself_again(tmp_path):
    world = build_training_world(tmp_path)
    ended = start("-m", SMALL_MEMORY, "2", "1", "0", str(world.write_job(max_steps=1)))
    assert ended.returncode == 0, ended.stderr
    assert "error: step 1 ran out of memory" in ended.stderr
    report = json.loads((world.root / "train.json").read_text())
    assert report["micro_batch_reductions"][0]["gradient_accumulation_steps"] == 2
