import json
import shutil

import pytest

from ovis_model.errors import CheckpointError
from ovis_model.training import checkpoints
from ovis_model.training.checkpoints import RunLayout

LAYOUT = RunLayout(world_size=1, zero_stage=2, batch_size=8, order="random")


def write(resume, step, *, commit=True, layout=LAYOUT):
    folder = checkpoints.folder_of(resume, step)
    (folder / "global_step").mkdir(parents=True)
    (folder / "global_step" / "states.pt").write_bytes(b"optimizer of step %d" % step)
    (folder / "trainer_state.json").write_text(json.dumps({"step": step}))
    if commit:
        checkpoints.commit(folder, step=step, layout=layout)
    return folder


def newest(resume, **changes):
    layout = LAYOUT.model_copy(update=changes)
    found = checkpoints.newest_committed(resume, layout)
    return None if found is None else found.name


def test_without_a_folder_there_is_nothing_to_resume(tmp_path):
    assert newest(tmp_path / "resume") is None


def test_the_newest_by_number_is_offered_not_by_name(tmp_path):
    write(tmp_path, 90)
    write(tmp_path, 100)
    assert newest(tmp_path) == "checkpoint-100"


def test_an_uncommitted_checkpoint_is_not_offered_and_is_cleared_away(tmp_path):
    write(tmp_path, 5)
    torn = write(tmp_path, 10, commit=False)
    assert newest(tmp_path) == "checkpoint-5"
    checkpoints.remove_uncommitted(tmp_path)
    assert not torn.exists()
    assert newest(tmp_path) == "checkpoint-5"


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["global_step/states.pt", "trainer_state.json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog, damage, name):
    write(tmp_path, 5)
    damage(write(tmp_path, 10) / name)
    assert newest(tmp_path) == "checkpoint-5"
    assert f"checkpoint-10 is passed over: {name}" in caplog.text


@pytest.mark.parametrize("content", ["", "{", '{"step": 1}', "[]"])
def test_a_damaged_manifest_is_passed_over(tmp_path, caplog, content):
    (write(tmp_path, 10) / checkpoints.MANIFEST).write_text(content)
    assert newest(tmp_path) is None
    assert "its manifest.json cannot be read" in caplog.text


def test_folders_of_other_names_are_left_alone(tmp_path):
    write(tmp_path, 5)
    (tmp_path / "checkpoint-final").mkdir()
    checkpoints.remove_uncommitted(tmp_path)
    assert (tmp_path / "checkpoint-final").exists()
    assert newest(tmp_path) == "checkpoint-5"


def test_rotation_keeps_the_newest_and_never_counts_an_uncommitted_one(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    write(tmp_path, 20, commit=False)
    checkpoints.rotate(tmp_path, keep=2, spare=15)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["checkpoint-10", "checkpoint-15", "checkpoint-20"]


def test_rotation_spares_the_best(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    checkpoints.rotate(tmp_path, keep=1, spare=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-15", "checkpoint-5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world_size": 2}, r"by 1 process\(es\), ZeRO 2, .* has 2 process\(es\)"),
        ({"zero_stage": 3}, r"ZeRO 2, .*; this run has .* ZeRO 3, "),
        ({"zero_stage": None}, r"; this run has 1 process\(es\), without DeepSpeed"),
        ({"batch_size": 4}, r"8 sample\(s\) or row\(s\) per step.* has .* 4 sample"),
        (
            {"order": "sequential"},
            r"in random order; .* in sequential order\. Run it as",
        ),
    ],
)
def test_a_checkpoint_that_cannot_go_on_here_is_refused_with_a_way_out(tmp_path, change, message):
    write(tmp_path, 5)
    with pytest.raises(CheckpointError, match=message):
        newest(tmp_path, **change)
    assert newest(tmp_path) == "checkpoint-5"


def test_without_deepspeed_the_number_of_processes_may_change(tmp_path):
    write(tmp_path, 5, layout=LAYOUT.model_copy(update={"zero_stage": None, "world_size": 4}))
    assert newest(tmp_path, zero_stage=None) == "checkpoint-5"
    with pytest.raises(CheckpointError, match=r"16 sample\(s\) or row\(s\)"):
        newest(tmp_path, zero_stage=None, batch_size=16)


def test_a_file_that_does_not_belong_to_it_makes_a_checkpoint_suspect(tmp_path, caplog):
    write(tmp_path, 5)
    folder = write(tmp_path, 10)
    (folder / "global_step" / "of_another_step.pt").write_bytes(b"states")
    assert newest(tmp_path) == "checkpoint-5"
    assert "passed over: global_step/of_another_step.pt does not belong to it" in caplog.text


def test_checkpoints_after_the_one_that_is_resumed_are_set_aside(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    checkpoints.set_aside_newer(tmp_path, tmp_path / "checkpoint-5")
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["checkpoint-10.damaged", "checkpoint-15.damaged", "checkpoint-5"]
    assert checkpoints.count_committed(tmp_path) == 1


def test_a_copied_checkpoint_is_as_good_as_the_first(tmp_path):
    write(tmp_path / "a", 5)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert newest(tmp_path / "b") == "checkpoint-5"
