"""Two versions of a dataset, compared sample by sample and file by file."""

import json

import pytest

from ovis_model.data.checks.diff import compare, read_version
from ovis_model.data.schema import parse_sample, write_samples
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file
from tests.support.raw_data import sample, write_annotations, write_picture

SAMPLES = [
    sample("a", "<image>?", "1", image="images/a.png"),
    sample("b", "<image>?", "2", image="images/b.png"),
    sample("c", "What?", "3"),
]


def write_version(folder, samples, held=(), *, digests=None):
    """Write a version as validation does."""
    parsed = [parse_sample(value) for value in samples]
    write_samples(folder / "train.jsonl", [s for s in parsed if s.id not in held])
    write_samples(folder / "holdout.jsonl", [s for s in parsed if s.id in held])
    if digests is not None:
        lines = [json.dumps({"path": p, "sha256": d}) + "\n" for p, d in digests.items()]
        (folder / "media.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


DIGESTS = {"images/a.png": "1" * 64, "images/b.png": "2" * 64}


def differ(tmp_path, samples, *, held=(), digests=None):
    before = write_version(tmp_path / "before", SAMPLES, digests=DIGESTS)
    after = write_version(tmp_path / "after", samples, held, digests=digests or DIGESTS)
    return compare(read_version(before), read_version(after))


def test_equal_versions_do_not_differ_whatever_their_order(tmp_path):
    found = differ(tmp_path, SAMPLES[::-1])
    assert found.is_empty
    assert (found.num_before, found.num_after) == (3, 3)


def test_added_and_removed_samples_and_files_are_named(tmp_path):
    new = sample("d", "<image>?", "4", image="images/d.png")
    digests = {"images/b.png": "2" * 64, "images/d.png": "4" * 64}
    found = differ(tmp_path, [*SAMPLES[1:], new], digests=digests)
    assert (found.added, found.removed, found.changed) == (("d",), ("a",), {})
    assert found.media_added == ("images/d.png",)
    assert found.media_removed == ("images/a.png",)
    assert found.media_changed == ()


def test_a_changed_sample_says_what_changed(tmp_path):
    text = sample("c", "What?", "three")
    film = {**sample("e", "<video>?", "5", video="a.mp4"), "video_start": 1.0}
    digests = {**DIGESTS, "a.mp4": "5" * 64}
    before = write_version(tmp_path / "1", [*SAMPLES, film], digests=digests)
    changed = {**digests, "images/a.png": "9" * 64}
    later = {**film, "video_start": 2.0}
    after = write_version(tmp_path / "2", [*SAMPLES[:2], text, later], ["b"], digests=changed)
    found = compare(read_version(before), read_version(after))
    assert found.changed == {
        "a": ("media",),
        "b": ("split",),
        "c": ("text",),
        "e": ("settings",),
    }
    assert found.media_changed == ("images/a.png",)
    assert found.count_changes() == {"text": 1, "media": 1, "settings": 1, "split": 1}
    assert not found.is_empty


def test_a_renamed_file_changes_no_sample(tmp_path):
    renamed = [sample("a", "<image>?", "1", image="images/x.png"), *SAMPLES[1:]]
    found = differ(tmp_path, renamed, digests={"images/x.png": "1" * 64, **DIGESTS})
    assert found.changed == {}
    assert (found.media_added, found.media_removed) == (("images/x.png",), ("images/a.png",))


def test_a_turn_that_changes_sides_is_a_change_of_text(tmp_path):
    swapped = {**SAMPLES[2], "conversations": SAMPLES[2]["conversations"][::-1]}
    assert differ(tmp_path, [*SAMPLES[:2], swapped]).changed == {"c": ("text",)}


def test_text_that_moves_from_one_turn_to_the_next_is_a_change(tmp_path):
    moved = sample("c", "What?3", "")
    assert differ(tmp_path, [*SAMPLES[:2], moved]).changed == {"c": ("text",)}


def test_copies_of_a_sample_are_counted_one_by_one(tmp_path):
    found = differ(tmp_path, [*SAMPLES, SAMPLES[2], SAMPLES[2]])
    assert found.added == ("c (2)", "c (3)")


def test_extracted_pictures_are_known_by_their_names(tmp_path):
    name = f"media/aa/{'a' * 64}.png"
    version = write_version(tmp_path, [sample("a", "<image>?", "1", image=name)])
    assert read_version(version).media == {name: "a" * 64}


def test_an_annotation_file_is_compared_by_the_bytes_of_its_media(tmp_path):
    for folder in ("1", "2"):
        write_annotations(tmp_path / folder, [*SAMPLES, {"id": "no sample"}])
        write_picture(tmp_path / folder / "images/a.png", 10)
    write_picture(tmp_path / "1/images/b.png", 20)
    digest = sha256_of_file(write_picture(tmp_path / "2/images/b.png", 21))
    before, after = (read_version(tmp_path / n / "annotations.json") for n in ("1", "2"))
    found = compare(before, after)
    assert found.changed == {"b": ("media",)}
    assert found.media_changed == ("images/b.png",)
    assert after.media["images/b.png"] == digest
    assert found.unreadable_before == found.unreadable_after == ("entry 4",)


def test_a_missing_file_and_one_outside_are_known_to_be_missing(tmp_path):
    secret = write_picture(tmp_path / "secret.png", 1)
    samples = [
        sample("a", "<image>?", "1", image="../secret.png"),
        sample("b", "<image>?", "2", image=str(secret)),
        sample("c", "<image>?", "3", image="link.png"),
        sample("d", "<image>?", "4", image="none.png"),
    ]
    path = write_annotations(tmp_path / "data", samples)
    (path.parent / "link.png").symlink_to(secret)
    assert set(read_version(path).media.values()) == {None}


def test_an_annotation_file_and_a_folder_do_not_differ_in_split(tmp_path):
    file = write_annotations(tmp_path / "raw", [SAMPLES[2]])
    folder = write_version(tmp_path / "validated", [SAMPLES[2]], ["c"])
    assert compare(read_version(file), read_version(folder)).is_empty


def test_a_folder_that_is_no_version_is_an_error_that_says_what_is_missing(tmp_path):
    write_samples(tmp_path / "train.jsonl", [])
    with pytest.raises(DataError, match=r"it has no holdout\.jsonl; name a folder"):
        read_version(tmp_path)


def test_damaged_notes_on_media_are_an_error_with_the_line(tmp_path):
    write_version(tmp_path, SAMPLES, digests=DIGESTS)
    with (tmp_path / "media.jsonl").open("a") as file:
        file.write('{"path": "a.png"}\n')
    with pytest.raises(DataError, match=r"media\.jsonl, line 3"):
        read_version(tmp_path)
