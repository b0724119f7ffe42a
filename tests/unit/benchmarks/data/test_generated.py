"""Generated files: made once, whole or not at all, and as large as the suite says."""

import json

import pytest
from PIL import Image

from benchmarks.data.annotations import NUM_PICTURES, annotation_lines, annotation_list
from benchmarks.data.cache import cache_folder, cached
from benchmarks.data.inspection import PICTURE_SIZE, pictures


def test_a_file_is_written_once():
    def write(path):
        path.write_text("first")

    def write_again(path):
        raise AssertionError("it is there")

    path = cached("once.txt", write)
    assert cached("once.txt", write_again) == path
    assert path.read_text() == "first"
    assert path.parent == cache_folder()


def test_what_was_interrupted_is_not_there():
    def stop_half_way(path):
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("a folder", stop_half_way)
    assert not (cache_folder() / "a folder").exists()
    assert list(cached("a folder", lambda path: path.mkdir()).iterdir()) == []


def test_a_folder_that_another_process_made_meanwhile_is_kept():
    def write_late(path):
        path.mkdir()
        (cache_folder() / "race").mkdir()
        (cache_folder() / "race" / "theirs").touch()

    folder = cached("race", write_late)
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(cache_folder().glob("race.*")) == []


def test_annotations_have_the_size_the_suite_tells():
    path = annotation_lines(0, 500)
    lines = path.read_text().splitlines()
    assert len(lines) == 500
    assert len({json.loads(line)["id"] for line in lines}) == 500
    assert path.stat().st_size / 500 == pytest.approx(900, rel=0.05)
    assert len(list((path.parent / "images").iterdir())) == NUM_PICTURES


def test_the_list_holds_the_same_samples_as_the_lines():
    lines = annotation_lines(0, 500).read_text().splitlines()
    assert json.loads(annotation_list(0, 500).read_text()) == list(map(json.loads, lines))


def test_pictures_to_look_at_are_different_and_as_large_as_the_suite_tells():
    files = sorted(pictures(0, 20).iterdir())
    contents = {path.read_bytes() for path in files}
    assert len(contents) == 20
    assert sum(map(len, contents)) / 20 == pytest.approx(29_000, rel=0.2)
    with Image.open(files[0]) as image:
        assert image.size == PICTURE_SIZE
