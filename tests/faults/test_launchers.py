"""Whatever starts it, a training is the same training: two processes on this machine.

Each launcher gets the same file and must leave the same weights, to the bit.  The machines of a
cluster are agents on loopback that know of each other by name or number only.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ovis_model.reports import sha256_of_file
from ovis_model.training.__main__ import main
from tasks import _launch
from tasks._nodes import Node
from tests.support.training_world import build_training_world, image_sample, text_sample

REPOSITORY = Path(__file__).parents[2]
LAUNCHED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GLOO_SOCKET_IFNAME": "lo",
    "TOKENIZERS_PARALLELISM": "false",
}
MODULE = ("-m", "ovis_model.training")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def program(name):
    return str(Path(sys.executable).with_name(name))


def torchrun_by_the_seeds_script(file, _):
    return [[str(REPOSITORY / "run_training.sh"), file]]


def accelerate(file, port):
    # --multi_gpu only says that there are several processes.
    machine = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    started = ("--multi_gpu", "--num_processes", "2", "--main_process_port", port)
    return [[program("accelerate"), "launch", *started, *machine, *MODULE, file]]


def deepspeed_on_two_machines(file, port):
    hosts = Path(file).with_name("hostfile")
    hosts.write_text("first slots=1\nsecond slots=1\n", encoding="utf-8")
    meet = ("--hostfile", str(hosts), "--master_addr", "127.0.0.1", "--master_port", port)
    meet = (*meet, "--no_ssh", "--node_rank")
    return [[program("deepspeed"), *meet, number, "--module", MODULE[1], file] for number in "01"]


def the_train_step_on_two_machines(file, port):
    nodes = [Node(number, 2, "127.0.0.1", int(port)) for number in (0, 1)]
    return [_launch.torchrun(Path(file), nproc_per_node=1, node=node) for node in nodes]


def launch(commands, port):
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHED}
    variables = {"PYTHONPATH": str(REPOSITORY), "NPROC_PER_NODE": "2", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            command,
            env={**inherited, **QUIET, **variables},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    samples = [one(number) for number in range(4) for one in (image_sample, text_sample)]
    return build_training_world(tmp_path_factory.mktemp("launchers"), samples=samples)


def write_config(world, name, **values):
    """Write a file as the seed has it: plain descent, which hides no gradient of a wrong size."""
    config = world.config(optim="sgd", learning_rate=0.1, num_train_epochs=1, max_steps=-1)
    places = {"data_path": str(world.data / "train.jsonl"), "image_folder": str(world.data)}
    config |= {**places, "output_dir": str(world.root / name), **values}
    path = world.root / f"{name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def report_of(world, name):
    return json.loads((world.root / f"{name}.training" / "train.json").read_text())


@pytest.fixture(scope="module")
def alone(world):
    """One process, started by hand: no launcher at all."""
    file = write_config(world, "alone", per_device_train_batch_size=4)
    assert main([file]) == 0
    return report_of(world, "alone"), load_file(world.root / "alone" / "model.safetensors")


@pytest.fixture(scope="module")
def digests():
    """What each launcher left, to compare the later ones with the first."""
    return {}


@pytest.mark.parametrize(
    "launcher",
    [
        torchrun_by_the_seeds_script,
        accelerate,
        deepspeed_on_two_machines,
        the_train_step_on_two_machines,
    ],
)
def test_every_launcher_starts_the_same_training(world, alone, digests, launcher):
    name = launcher.__name__
    settings = {"per_device_train_batch_size": 2, "deepspeed": world.deepspeed(2)}
    port = free_port()
    launch(launcher(write_config(world, name, **settings), port), port)

    report, (expected, weights) = report_of(world, name), alone
    # Eight samples, four to a step: as many steps and epochs as one process makes.
    assert (report["steps"], report["epochs"], report["world_size"]) == (2, 1.0, 2)
    assert (expected["steps"], expected["epochs"], expected["world_size"]) == (2, 1.0, 1)
    assert report["effective_batch_size"] == expected["effective_batch_size"] == 4
    assert report["final_loss"] == pytest.approx(expected["final_loss"], abs=1e-5)
    file = world.root / name / "model.safetensors"
    for key, tensor in load_file(file).items():
        assert tensor.allclose(weights[key], atol=1e-6), key
    digests[name] = sha256_of_file(file)
    assert len(set(digests.values())) == 1, digests
