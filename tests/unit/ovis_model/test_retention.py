"""Versions with an alias and the best few keep their files; nothing else does."""

import json
import random

import pytest

from ovis_model.registry import (
    ALIASES,
    APPROVAL,
    CHAMPION,
    MODEL_DIGEST,
    REJECTED,
    SCORES,
    WAITING,
)
from ovis_model.retention import drop_surplus, kept_versions, surplus_folders
from tests.support.registry import MemoryRegistry, scores


@pytest.fixture
def registry(tmp_path):
    return MemoryRegistry(tmp_path / "promotions.jsonl")


def add(registry, store, *, digest=None, **marks):
    """Enter a version that keeps its files, with scores on exams if there are any."""
    number = len(registry.versions) + 1
    tags = {MODEL_DIGEST: digest or f"digest-{number}"}
    if marks:
        tags[SCORES] = json.dumps(marks)
    folder = store / tags[MODEL_DIGEST]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return registry.add_version(folder, tags)


def test_the_best_versions_are_kept_besides_those_with_an_alias(registry, tmp_path):
    for score in (50, 90, 70, 80, 60):
        add(registry, tmp_path / "store", ocr=scores(score))
    registry.move_alias(CHAMPION, 5)
    assert kept_versions(registry, best=0) == {5: "champion"}
    assert kept_versions(registry, best=2) == {
        5: "champion",
        2: "number 1 by its scores",
        4: "number 2 by its scores",
    }
    drop_surplus(tmp_path / "store", registry, best=2)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "digest-2",
        "digest-4",
        "digest-5",
    ]


def test_a_higher_mark_in_another_exam_does_not_count(registry, tmp_path):
    add(registry, tmp_path / "store", ocr=scores(99, exam="an easier one"))
    add(registry, tmp_path / "store", ocr=scores(40))
    add(registry, tmp_path / "store", ocr=scores(30))
    registry.move_alias(CHAMPION, 3)
    assert kept_versions(registry, best=1) == {3: "champion", 2: "number 1 by its scores"}


def test_without_a_champion_the_newest_exam_is_the_standard(registry, tmp_path):
    add(registry, tmp_path / "store", ocr=scores(99, exam="an older one"))
    add(registry, tmp_path / "store", ocr=scores(40))
    assert kept_versions(registry, best=5) == {2: "number 1 by its scores"}


def test_an_empty_registry_keeps_nothing_and_misses_no_folder(registry, tmp_path):
    assert kept_versions(registry, best=3) == {}
    assert surplus_folders(tmp_path / "store", registry, best=3) == []


@pytest.mark.parametrize("seed", range(200))
def test_whatever_the_registry_holds_a_version_with_an_alias_keeps_its_files(
    registry, tmp_path, seed
):
    chance, store = random.Random(seed), tmp_path / "store"
    versions = chance.randint(1, 8)
    for _ in range(versions):
        digest = chance.choice([None, None, "shared"])
        marks = {"ocr": scores(chance.randint(0, 100), exam=chance.choice("ab"))}
        add(registry, store, digest=digest, **(marks if chance.random() < 0.7 else {}))
    for alias in ALIASES:
        if chance.random() < 0.7:
            registry.move_alias(alias, chance.randint(1, versions))
    aliased = [registry.tags_of(version)[MODEL_DIGEST] for version in registry.aliases.values()]
    best = chance.randint(0, 3)
    kept = {registry.tags_of(one)[MODEL_DIGEST] for one in kept_versions(registry, best=best)}

    drop_surplus(store, registry, best=best)
    left = {path.name for path in store.iterdir()}
    assert set(aliased) <= left
    assert left == kept
    assert len(left) <= len(set(aliased)) + best


def test_a_version_that_waits_for_a_yes_keeps_its_files_when_later_ones_take_its_alias(
    registry, tmp_path
):
    add(registry, tmp_path / "store")
    add(registry, tmp_path / "store")
    registry.set_tags(1, {APPROVAL: WAITING})
    registry.move_alias("challenger", 2)
    assert kept_versions(registry, best=0) == {2: "challenger", 1: "waits for approval"}
    drop_surplus(tmp_path / "store", registry, best=0)
    assert (tmp_path / "store/digest-1").is_dir()
    registry.set_tags(1, {APPROVAL: REJECTED})
    drop_surplus(tmp_path / "store", registry, best=0)
    assert not (tmp_path / "store/digest-1").exists()
