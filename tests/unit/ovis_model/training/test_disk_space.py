"""What a training writes is counted before it starts, and compared with what is free."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from ovis_model.errors import TrainingError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints
from ovis_model.training.checkpoints import RunLayout
from ovis_model.training.disk_space import DiskNeed, DiskSpace, disk_need
from ovis_model.training.train_modules import freeze_others, learning_rates
from tests.support.training_processes import start
from tests.support.training_world import build_training_world, text_sample

GB = 10**9
NEED = DiskNeed(checkpoint=30 * GB, model=5 * GB)


def begin(monkeypatch, tmp_path, *, free_gb, max_steps=1000, keep=2):
    """Begin a training of a hundred steps per save on a disk with so much room."""
    total, used, _ = shutil.disk_usage(tmp_path)
    usage = type(shutil.disk_usage(tmp_path))(total, used, int(free_gb * GB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    space = DiskSpace(
        NEED, resume=tmp_path / "models" / ".resume", output=tmp_path / "models/out", keep=keep
    )
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    state = TrainerState(max_steps=max_steps, save_steps=100)
    space.on_train_begin(arguments, state, TrainerControl())


def test_too_little_room_is_refused_with_numbers_and_a_way_out(monkeypatch, tmp_path):
    with pytest.raises(TrainingError) as caught:
        begin(monkeypatch, tmp_path, free_gb=94)
    assert str(caught.value) == (
        f"the disk of {tmp_path}/models/.resume has 94 GB free, but this training writes "
        "3 checkpoint(s) of 30 GB each and the model, 95 GB together. Make room, put the folder "
        "on another disk (a link will do), lower train.save_total_limit, or train fewer modules"
    )
    begin(monkeypatch, tmp_path, free_gb=95)


@pytest.mark.parametrize(
    ("settings", "enough_gb"),
    [
        pytest.param({"keep": 1}, 65, id="one kept, one being written"),
        pytest.param({"max_steps": 150}, 35, id="one save"),
        pytest.param({"max_steps": 50}, 35, id="no save, unless it is stopped"),
    ],
)
def test_room_is_asked_for_as_many_as_will_lie_there(monkeypatch, tmp_path, settings, enough_gb):
    begin(monkeypatch, tmp_path, free_gb=enough_gb, **settings)
    with pytest.raises(TrainingError, match=f"{enough_gb} GB together"):
        begin(monkeypatch, tmp_path, free_gb=enough_gb - 1, **settings)


def test_checkpoints_that_lie_there_already_are_not_asked_for_again(monkeypatch, tmp_path):
    folder = checkpoints.folder_of(tmp_path / "models" / ".resume", 100)
    folder.mkdir(parents=True)
    layout = RunLayout(world_size=1, zero_stage=None, batch_size=8, order="random")
    checkpoints.commit(folder, step=100, layout=layout)
    begin(monkeypatch, tmp_path, free_gb=65)
    with pytest.raises(TrainingError, match=r"2 checkpoint\(s\)"):
        begin(monkeypatch, tmp_path, free_gb=64)


@pytest.mark.parametrize(
    ("stage", "bf16"),
    [(None, False), (0, False), (0, True), (1, False), (2, True), (3, False), (3, True)],
)
def test_the_count_is_what_a_checkpoint_holds(tmp_path, stage, bf16):
    world = build_training_world(tmp_path, samples=[text_sample(number) for number in range(4)])
    settings = {"max_steps": 2, "save_steps": 1, "freeze_vision_tower": True, "bf16": bf16}
    if stage is not None:
        settings["deepspeed"] = world.deepspeed(stage)
    training = start(world.write_job(**settings), fault="kill@checkpoint.after_manifest:1")
    assert training.wait() == [-9], training.output

    config = TrainConfig.parse(world.config(**settings), where="test")
    dtype = torch.bfloat16 if bf16 and stage is not None else torch.float32
    model = load_model(world.base, dtype=dtype)
    freeze_others(model, learning_rates([name for name, _ in model.named_parameters()], config))
    folder = checkpoints.folder_of(world.resume, 1)
    # Padding, step counts and the frozen position buffers are all that is not counted.
    need = disk_need(model, optimizer="adamw_torch", stage=stage)
    assert size_of_tensors(folder) == pytest.approx(need.checkpoint, rel=0.01)


def size_of_tensors(folder: Path) -> int:
    """Add up what the files hold, each storage once: headers are large beside a tiny model."""
    size = 0
    for path in folder.rglob("*.*"):
        if path.name == "model.safetensors":
            size += sum(tensor.nbytes for tensor in load_file(path).values())
        elif path.name.endswith(("states.pt", "optimizer.pt")):
            storages: dict[int, int] = {}
            collect(torch.load(path, weights_only=False), storages)
            size += sum(storages.values())
    return size


def collect(value, storages: dict[int, int]) -> None:
    if isinstance(value, torch.Tensor):
        storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    elif isinstance(value, dict):
        for one in value.values():
            collect(one, storages)
    elif isinstance(value, list | tuple):
        for one in value:
            collect(one, storages)
