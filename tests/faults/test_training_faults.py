"""Trainings that are killed, fed damage or numbers that are none: what is left, and what next."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ovis_model.errors import CheckpointError, DataError, TrainingError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints
from ovis_model.training.__main__ import main
from ovis_model.training.checkpoints import RunLayout
from ovis_model.training.exit_codes import INTERRUPTED
from ovis_model.training.report import TrainReport
from ovis_model.training.training import train
from tests.support.training_world import (
    TrainingWorld,
    build_training_world,
    image_sample,
    text_sample,
)

REPOSITORY = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}


def environment(**variables: str) -> dict[str, str]:
    launched = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
    inherited = {key: value for key, value in os.environ.items() if key not in launched}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), **QUIET, **variables}


def run(world: TrainingWorld, **overrides):
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def start(job: Path, *launcher: str) -> "subprocess.Popen[str]":
    command = [sys.executable, *launcher, "-m", "ovis_model.training", str(job)]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_checkpoint(world: TrainingWorld, process: "subprocess.Popen[str]", step: int) -> None:
    manifest = checkpoints.folder_of(world.resume, step) / checkpoints.MANIFEST
    deadline = time.monotonic() + 60
    while not manifest.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.005)


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


def test_ctrl_c_ends_a_training_with_a_sentence(world):
    process = start(world.write_job(max_steps=100_000, save_steps=5))
    wait_for_checkpoint(world, process, 5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED
    assert "run it again to go on from the last checkpoint" in output
    assert "Traceback" not in output


def test_two_processes_learn_the_same_as_one_though_only_the_first_sees_pictures(tmp_path):
    # In file order and batches of one, the first process gets all pictures: without care the
    # gradients of the others are reduced in another order, and land on the wrong parameters.
    samples = [one(number) for number in range(6) for one in (image_sample, text_sample)]
    world = build_training_world(tmp_path, samples=samples)
    # Plain gradient descent: Adam would hide a gradient of the wrong size.
    settings = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "train_sampling_strategy": "sequential",
        "max_steps": 2,
    }
    job = world.write_job(deepspeed=world.deepspeed(2), per_device_train_batch_size=1, **settings)
    process = start(job, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Warning" not in output
    report = json.loads((world.root / "train.json").read_text())
    assert (report["steps"], report["world_size"], report["effective_batch_size"]) == (2, 2, 2)

    together = load_file(world.output / "model.safetensors")
    run(world, per_device_train_batch_size=2, **settings)
    alone = load_file(world.output / "model.safetensors")
    for name, tensor in alone.items():
        assert tensor.allclose(together[name], atol=1e-6), name


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples(world):
    weights = load_file(world.base / "model.safetensors")
    for name in ("llm.model.norm.weight", "llm.lm_head.weight"):
        weights[name] *= 1e30  # finite, but their product is not
    save_file(weights, world.base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"step 1, samples \w+_\d+.*The loss is (nan|inf)"):
        run(world, deepspeed=world.deepspeed(2))
    assert not world.output.exists()
    assert not list(world.resume.glob("checkpoint-*"))


def test_a_checkpoint_of_other_processes_is_refused_with_a_way_out(world):
    folder = checkpoints.folder_of(world.resume, 5)
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(b"state")
    layout = RunLayout(world_size=4, zero_stage=2, batch_size=4, order="random")
    checkpoints.commit(folder, step=5, layout=layout)
    with pytest.raises(CheckpointError, match=r"by 4 process\(es\), ZeRO 2, .*has 1 .*or delete"):
        run(world)


def test_samples_that_differ_from_their_manifest_are_refused(world):
    path = world.data / "train.jsonl"
    path.write_text(path.read_text().replace("red", "rot"))
    with pytest.raises(DataError, match="is not the file its manifest describes"):
        run(world)


def test_a_picture_that_is_gone_is_blamed_by_sample(world):
    (world.data / "media" / "green.png").unlink()
    with pytest.raises(DataError, match=r"sample 'image_1': .*green\.png"):
        run(world)


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        pytest.param({"learning_rat": 1}, 2, "did you mean 'learning_rate'", id="unknown key"),
        pytest.param({"deepspeed": "none.json"}, 2, "there is no file 'none.json'", id="no file"),
        pytest.param({"text_max_length": 5}, 1, "are longer than", id="sample too long"),
    ],
)
def test_the_command_says_one_sentence_and_fails(world, capfd, overrides, code, message):
    assert main([str(world.write_job(**overrides))]) == code
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["a.json", "b.json"], ["--config"]])
def test_the_command_takes_exactly_one_file(capfd, arguments):
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith("usage: python -m ovis_model.training [")


def test_a_seed_configuration_trains_outside_the_pipeline(world, capfd):
    annotations = world.root / "train_data.json"
    turns = text_sample(0)["conversations"]
    annotations.write_text(
        json.dumps({"conversations": [image_sample(0), {"id": "t", "conversations": turns}]})
    )
    config = world.config(max_steps=2, model_path=str(world.base))
    config |= {"data_path": str(annotations), "image_folder": str(world.data)}
    config["output_dir"] = str(world.root / "ovis25_finetune")
    path = world.root / "train_config.json"
    path.write_text(json.dumps(config))
    assert main([str(path)]) == 0, capfd.readouterr().err
    load_model(world.root / "ovis25_finetune")
    report = TrainReport.read(world.root / "ovis25_finetune.training" / "train.json")
    assert (report.samples, report.steps, report.holdout_loss) == (2, 2, None)


def test_a_seed_configuration_without_data_is_told_what_it_lacks(world, capfd):
    path = world.root / "train_config.json"
    path.write_text(json.dumps(world.config(data_path="x.json")))
    assert main([str(path)]) == 2
    assert "it must also give image_folder, output_dir" in capfd.readouterr().err
