"""Files become pictures in the store once, whatever happens to the process or the files."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovis_model.config import MediaLimits
from ovis_model.data.picture_store import (
    Extracted,
    PictureStore,
    Request,
    VideoRecipe,
    entry_key,
    extract_file,
)
from ovis_model.errors import MediaError
from ovis_model.reports import sha256_of_file
from tests.support.raw_data import write_clip, write_picture

CLIP = VideoRecipe("pyav", min_frames=2, max_frames=2)
LIMITS = MediaLimits()


def request(file: Path, *, video: VideoRecipe | None = None, limits: MediaLimits = LIMITS):
    sha256 = sha256_of_file(file)
    return Request(
        root=file.parent,
        path=file.name,
        sha256=sha256,
        key=entry_key(sha256, video),
        store=file.parent.parent / "store",
        limits=limits,
        video=video,
    ).to_dict()


def do(values: dict[str, Any]) -> Extracted:
    # As it comes from another process.
    return Extracted.from_dict(
        json.loads(json.dumps(extract_file(json.loads(json.dumps(values)))))
    )


@pytest.fixture
def file(tmp_path):
    return write_picture(tmp_path / "raw/a.png", 60)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "raw/clip.mp4", [0, 50, 100, 150, 200, 250])


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path / "store")


def test_a_plain_picture_is_kept_byte_for_byte(file, store):
    values = request(file)
    made = do(values)
    (name,) = made.pictures
    assert store.path_of(name).read_bytes() == file.read_bytes()
    assert (made.sizes, made.seconds) == (((32, 32),), None)
    assert store.get(values["key"]) == made


def test_an_odd_picture_becomes_a_plain_png_of_its_shown_size(tmp_path, store):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "raw/turned.jpg"
    file.parent.mkdir()
    Image.new("RGB", (16, 8)).save(file, exif=exif)
    made = do(request(file))
    with Image.open(store.path_of(made.pictures[0])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 16))
    assert made.sizes == ((8, 16),)


def test_a_video_becomes_its_frames_and_their_times(clip, store):
    made = do(request(clip, video=CLIP))
    # Frames 1 and 4 of six, four per second.
    assert made.seconds == pytest.approx((0.25, 1.0))
    assert made.sizes == ((32, 32), (32, 32))
    shades = []
    for name in made.pictures:
        with Image.open(store.path_of(name)) as frame:
            shades.append(frame.getpixel((16, 16))[0])
    assert shades == pytest.approx([50, 200], abs=6)


def test_a_part_of_a_video_is_another_entry(clip, store):
    whole = request(clip, video=CLIP)
    part = request(clip, video=VideoRecipe("pyav", 2, 2, start=0.5, end=1.0))
    assert do(whole).pictures != do(part).pictures
    assert store.get(part["key"]).seconds == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(VideoRecipe("moviepy", 2, 2), id="reader"),
        pytest.param(VideoRecipe("pyav", 1, 2), id="fewest frames"),
        pytest.param(VideoRecipe("pyav", 2, 3), id="most frames"),
        pytest.param(VideoRecipe("pyav", 2, 2, start=0.5), id="start"),
        pytest.param(VideoRecipe("pyav", 2, 2, end=0.5), id="end"),
        pytest.param(None, id="image"),
    ],
)
def test_another_recipe_has_another_key(other):
    assert entry_key("0" * 64, other) != entry_key("0" * 64, CLIP)
    assert entry_key("1" * 64, other) != entry_key("0" * 64, other)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_file_that_is_not_what_was_validated_is_refused(file, clip, store, kind):
    values = request(file) if kind == "image" else request(clip, video=CLIP)
    with (file if kind == "image" else clip).open("ab") as more:
        more.write(b"more")
    with pytest.raises(
        MediaError, match=r"^it changed after it was validated; run `dvc repro`"
    ) as e:
        extract_file(values)
    assert e.value.code == "unreadable_media"
    assert store.get(values["key"]) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda path: path.unlink(), "missing_media", id="gone"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "not_a_file", id="a folder"),
        pytest.param(lambda path: (path.unlink(), os.mkfifo(path)), "not_a_file", id="a pipe"),
    ],
)
def test_what_took_the_place_of_a_file_is_refused(file, change, code):
    values = request(file)
    change(file)
    with pytest.raises(MediaError) as error:
        extract_file(values)
    assert error.value.code == code


@pytest.mark.parametrize("limit", ["max_image_bytes", "max_video_bytes"])
def test_a_file_above_its_limit_is_not_read(file, clip, limit):
    limits = MediaLimits(**{limit: 50})
    video = limit == "max_video_bytes"
    values = request(clip if video else file, video=CLIP if video else None, limits=limits)
    with pytest.raises(MediaError, match="bytes, above the limit 50") as error:
        extract_file(values)
    assert error.value.code == "too_many_bytes"


def test_a_file_that_cannot_be_decoded_has_a_code_and_no_folder_in_its_reason(file):
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(MediaError) as error:
        extract_file(request(file))
    assert error.value.code == "unreadable_media"
    assert str(error.value).startswith("a.png ")
    assert str(file.parent) not in str(error.value)


def test_a_store_that_cannot_be_written_is_not_the_files_fault(file, store):
    store.root.write_text("a file where the folder should be")
    answer = extract_file(request(file))
    assert list(answer) == ["store_error"]
    assert "Not a directory" in answer["store_error"] or "File exists" in answer["store_error"]


def test_extracting_anew_gives_the_same_bytes(clip, store):
    values = request(clip, video=CLIP)
    first = do(values)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert do(values) == first
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before


def test_two_processes_may_extract_the_same_file_at_once(clip, store):
    values = request(clip, video=CLIP)
    code = (
        "import json, sys; from ovis_model.data.picture_store import extract_file\n"
        "for _ in range(5): print(json.dumps(extract_file(json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(values)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {line for process in running for line in process.communicate()[0].splitlines()}
    assert [process.returncode for process in running] == [0, 0]
    assert [Extracted.from_dict(json.loads(line)) for line in answers] == [
        store.get(values["key"])
    ]
    assert list((store.root / "tmp").iterdir()) == []


# ---- what is stored and damaged -------------------------------------------------------------


def entry_of(store: PictureStore) -> Path:
    (path,) = store.root.glob("index/*/*.json")
    return path


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda entry, picture: picture.write_bytes(b"other"), id="other picture"),
        pytest.param(lambda entry, picture: picture.unlink(), id="no picture"),
        pytest.param(lambda entry, picture: entry.write_bytes(b""), id="empty entry"),
        pytest.param(lambda entry, picture: entry.write_text("[1]"), id="no object"),
        pytest.param(lambda entry, picture: entry.write_text("{}"), id="nothing in it"),
        pytest.param(
            lambda entry, picture: entry.write_text(
                '{"pictures": ["../../x.png"], "sizes": [[1, 1]], "seconds": null}'
            ),
            id="a name that leads out",
        ),
        pytest.param(
            lambda entry, picture: entry.write_text(
                entry.read_text().replace('"sizes":[[32,32]]', '"sizes":[]')
            ),
            id="no sizes",
        ),
    ],
)
def test_a_damaged_entry_counts_for_nothing_and_is_written_anew(file, store, damage):
    values = request(file)
    made = do(values)
    picture = store.path_of(made.pictures[0])
    damage(entry_of(store), picture)
    assert store.get(values["key"]) is None
    assert do(values) == made
    assert store.get(values["key"]) == made
    assert hashlib.sha256(picture.read_bytes()).hexdigest() == picture.stem


def test_what_a_killed_process_left_is_swept_after_a_day(file, store):
    do(request(file))
    fresh, stale = store.root / "tmp/fresh", store.root / "tmp/stale"
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    store.sweep()
    assert [path.name for path in (store.root / "tmp").iterdir()] == ["fresh"]


def test_sixteen_bit_pictures_are_scaled_in_the_store_as_everywhere(tmp_path, store):
    file = tmp_path / "raw/grey16.png"
    file.parent.mkdir()
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(file)
    with Image.open(store.path_of(do(request(file)).pictures[0])) as image:
        assert image.getpixel((0, 0)) == (128, 128, 128)
