"""`ovis gc` lists first and deletes on request, and never what something may still need."""

import fcntl
import os
import time

import pytest

from ovis_model.registry import CHAMPION, MODEL_DIGEST
from tasks.artifacts import EVALUATE_RESUME, KEPT_MODELS, RESUME
from tasks.commands.gc import DVC_HINT, freed_by, sweep
from tests.support.registry import MemoryRegistry

FILES = KEPT_MODELS / "digits"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Two versions, of which the second is champion, and work that was never finished."""
    monkeypatch.chdir(tmp_path)
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    for number in (1, 2):
        registry.add_version(tmp_path, {MODEL_DIGEST: f"digest-{number}"})
        write(FILES / f"digest-{number}/model.safetensors", num_bytes=2_000_000)
    registry.move_alias(CHAMPION, 2)
    write(RESUME / "old/checkpoint-2/model.safetensors", days=20, num_bytes=3_000_000)
    write(RESUME / "old.metrics.jsonl", days=20)
    write(RESUME / "young/checkpoint-2/model.safetensors", days=3)
    write(RESUME / "train.lock", days=20)
    write(EVALUATE_RESUME / "digits.jsonl", days=20)
    return registry


def write(path, *, days=0, num_bytes=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    then = time.time() - days * 24 * 3600
    for one in (path, path.parent, path.parent.parent):
        os.utime(one, (then, then))


def files():
    roots = (FILES, RESUME, EVALUATE_RESUME)
    return {path.as_posix() for root in roots for path in root.rglob("*") if path.is_file()}


def gc(registry, *, best=0, days=14, delete=False):
    return list(sweep(registry, FILES, best=best, days=days, delete=delete))


def test_nothing_is_deleted_unless_asked_for(registry):
    before = files()
    assert gc(registry) == [
        "0.002 GB  models/.registered/digits/digest-1: no version keeps it",
        "0.003 GB  models/.resume/old: unfinished training, untouched for 20 days",
        "0.000 GB  models/.resume/old.metrics.jsonl: unfinished training, untouched for 20 days",
        "0.000 GB  reports/.resume/digits.jsonl: unfinished evaluation, untouched for 20 days",
        "kept: the files of version 2, champion",
        "`ovis gc --yes` would free 0.005 GB",
        DVC_HINT,
    ]
    assert files() == before


def test_what_was_listed_is_what_is_deleted(registry):
    assert "freed: 0.005 GB" in gc(registry, delete=True)
    assert files() == {
        "models/.registered/digits/digest-2/model.safetensors",
        "models/.resume/young/checkpoint-2/model.safetensors",
        "models/.resume/train.lock",
    }
    assert gc(registry)[0] == "kept: the files of version 2, champion"


def test_a_younger_age_takes_more(registry):
    assert any("models/.resume/young" in line for line in gc(registry, days=2))


def test_a_running_training_keeps_all_checkpoints(registry):
    with (RESUME / "train.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = gc(registry, delete=True)
    assert said[0] == "a training runs: models/.resume is left alone"
    assert (RESUME / "old/checkpoint-2/model.safetensors").exists()
    assert not (FILES / "digest-1").exists()


def test_bytes_with_another_name_are_not_counted_as_freed(registry, tmp_path):
    weights = FILES / "digest-1/model.safetensors"
    os.link(weights, tmp_path / "model.safetensors")
    assert freed_by([FILES / "digest-1"]) == "0.000 GB"
    assert freed_by([FILES / "digest-1", tmp_path / "model.safetensors"]) == "0.002 GB"
