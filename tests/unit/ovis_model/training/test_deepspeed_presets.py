"""The files of config/deepspeed, each trained with in two processes on this machine's CPU."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovis_model.training.report import TrainReport
from tests.support.training_world import build_training_world

ROOT = Path(__file__).parents[4]
PRESETS = sorted((ROOT / "config/deepspeed").glob("*.json"))
STAGES = {
    "zero0": 0,
    "zero1": 1,
    "zero2": 2,
    "zero2_offload": 2,
    "zero3": 3,
    "zero3_offload": 3,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(job: Path, rank: int) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": str(job.parent / "extensions"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.preset_runs", str(job)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every preset, no preset, and ZeRO-3 in 16 bits, in one launch of two processes."""
    root = tmp_path_factory.mktemp("presets")
    world = build_training_world(root)
    shared = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "train_modules": "all|vte:1e-3",
        "weight_decay": 0.1,
    }
    runs = {file.stem: {"deepspeed": str(file)} for file in PRESETS}
    runs |= {"plain": {}, "zero3_bf16": {**runs["zero3"], "bf16": True}}
    content = {
        "data": str(world.data),
        "runs": {
            name: {"config": world.config(**shared, **settings), "port": free_port()}
            for name, settings in runs.items()
        },
    }
    job = root / "runs.json"
    job.write_text(json.dumps(content), encoding="utf-8")
    processes = [start(job, rank) for rank in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return root, world


def weights(folder: Path):
    return load_file(folder / "model" / "model.safetensors")


def test_there_is_a_preset_for_every_stage_and_for_offload():
    assert [file.stem for file in PRESETS] == sorted(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_a_preset_trains_on_two_processes_as_no_preset_does(trained, name):
    root, world = trained
    report = TrainReport.read(root / name / "train.json")
    assert (report.zero_stage, report.world_size, report.steps) == (STAGES[name], 2, 1)
    # Read back from the optimizer that ran.
    rates = {entry.module: entry.learning_rate for entry in report.modules}
    assert rates == {
        "llm": 5e-3,
        "visual_tokenizer.vit": 5e-3,
        "visual_tokenizer.head": 5e-3,
        "vte": 1e-3,
    }
    plain, saved = weights(root / "plain"), weights(root / name)
    assert saved.keys() == load_file(world.base / "model.safetensors").keys()
    for tensor_name, tensor in plain.items():
        assert tensor.shape == saved[tensor_name].shape
        assert tensor.allclose(saved[tensor_name], atol=1e-4), tensor_name


def test_stage_three_saves_whole_16_bit_weights_in_the_official_layout(trained):
    root, world = trained
    saved = weights(root / "zero3_bf16")
    base = load_file(world.base / "model.safetensors")
    assert {name: tensor.shape for name, tensor in saved.items()} == {
        name: tensor.shape for name, tensor in base.items()
    }
    assert {str(tensor.dtype) for tensor in saved.values()} == {"torch.bfloat16"}


def test_nothing_is_compiled_at_the_start(trained):
    root, _ = trained
    assert not (root / "extensions").exists()
