import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ovis_model.config import MediaLimits
from ovis_model.data.checks.inspection import inspect, read_below, unsafe_reason
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.reasons import MEDIA_NOTES, MEDIA_PROBLEMS
from ovis_model.errors import MediaError
from tests.support.raw_data import picture, write_clip, write_picture


def look_at(
    root: Path, path: str, *, kind: str = "image", mode: str = "decode", **limits: Any
) -> MediaFact:
    request = {
        "root": str(root),
        "path": path,
        "kind": kind,
        "mode": mode,
        "limits": MediaLimits(**limits).model_dump(),
    }
    fact = MediaFact.from_dict(inspect(request))
    assert (fact.path, fact.kind) == (path, kind)
    assert fact.problem is None or fact.problem in MEDIA_PROBLEMS
    assert set(fact.notes) <= set(MEDIA_NOTES)
    assert (fact.problem is None) == (fact.detail is None)
    assert str(root) not in (fact.detail or "")
    return fact


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    write_picture(folder / "images/a.png", 100, side=80)
    write_picture(tmp_path / "outside.png", 100)
    return folder


# ---- good files -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["decode", "header"])
def test_an_images_facts_are_those_of_its_bytes(root: Path, mode: str) -> None:
    fact = look_at(root, "images/a.png", mode=mode)
    content = (root / "images/a.png").read_bytes()
    assert (fact.problem, fact.notes, fact.turned) == (None, (), False)
    assert (fact.sha256, fact.num_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (fact.format, fact.mode, fact.size) == ("PNG", "RGB", (80, 80))


def test_only_decoding_tells_what_a_picture_looks_like(root: Path) -> None:
    pixels = Image.effect_noise((90, 90), 200).resize((300, 200), Image.Resampling.BICUBIC)
    pixels.save(root / "noise.jpg")
    Image.new("RGB", (90, 90), "white").save(root / "white.jpg")
    assert len(look_at(root, "noise.jpg").look) == 16 + 2 * 64
    assert look_at(root, "noise.jpg", mode="header").look is None
    assert look_at(root, "white.jpg").notes == ("blank",)
    assert look_at(root, "white.jpg", mode="header").notes == ()


@pytest.mark.parametrize("mode", ["decode", "header"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_sizes_are_those_of_the_picture_as_it_is_shown(root: Path, mode: str, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "lying", format=kind, exif=exif)
    fact = look_at(root, "lying", mode=mode)
    assert (fact.size, fact.turned) == ((20, 40), True)


@pytest.mark.parametrize("mode", ["decode", "header"])
def test_a_wrong_extension_is_noted_and_an_unknown_one_is_not(root: Path, mode: str) -> None:
    content = (root / "images/a.png").read_bytes()
    for name in ("b.jpg", "b.mp4", "b.PNG", "b", "b.v2"):
        (root / name).write_bytes(content)
    for name, notes in (("b.jpg", True), ("b.mp4", True), ("b.PNG", False), ("b.v2", False)):
        assert ("wrong_extension" in look_at(root, name, mode=mode).notes) == notes
    assert look_at(root, "b", mode=mode).notes == ()


@pytest.mark.parametrize("mode", ["decode", "header"])
def test_a_videos_facts_are_those_of_the_file_that_was_hashed(root: Path, mode: str) -> None:
    clip = write_clip(root / "clip.mp4", [0, 100, 200, 250], fps=4)
    fact = look_at(root, "clip.mp4", kind="video", mode=mode)
    assert (fact.problem, fact.notes, fact.format) == (None, (), "mp4")
    assert fact.sha256 == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert (fact.size, fact.num_frames, fact.num_bytes) == ((32, 32), 4, clip.stat().st_size)
    assert (fact.seconds, fact.frames_per_second) == (pytest.approx(1), pytest.approx(4))


def test_a_link_inside_the_folder_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to("images/a.png")
    (root / "folder").symlink_to(root / "images")
    assert look_at(root, "link.png").problem is None
    assert look_at(root, "folder/a.png").problem is None


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert look_at(link, "images/a.png").problem is None


# ---- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/passwd", "'/etc/passwd' is not relative to the data folder"),
        ("~/a.png", "'~/a.png' is not relative to the data folder"),
        ("../outside.png", "'../outside.png' leaves the data folder"),
        ("images/../../outside.png", "leaves the data folder"),
        ("https://example.org/a.png", "is an address, not a file"),
        ("file:images/a.png", "is an address, not a file"),
        ("data:image/png;base64,AAAA", "is an address, not a file"),
        ("images/a.png\0.jpg", "holds a NUL character"),
        ("out.png", "'out.png' is a symbolic link out of the data folder"),
        ("elsewhere/outside.png", "is a symbolic link out of the data folder"),
        ("nowhere.png", "'nowhere.png' is a symbolic link out of the data folder"),
        ("loop.png", "'loop.png' cannot be followed"),
        ("x" * 300, "cannot be followed"),
        ("images/\ud83d.png", "cannot be followed"),
    ],
)
@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_path_out_of_the_folder_is_not_opened(
    root: Path, path: str, words: str, kind: str
) -> None:
    (root / "out.png").symlink_to(root.parent / "outside.png")
    (root / "elsewhere").symlink_to("..")
    (root / "nowhere.png").symlink_to("/nowhere/at/all.png")
    (root / "loop.png").symlink_to("loop.png")
    fact = look_at(root, path, kind=kind)
    assert (fact.problem, fact.sha256) == ("unsafe_path", None)
    assert words in fact.detail


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "s3://a/b.png", "out.png", "a\0b"])
def test_an_unsafe_path_is_told_without_opening_it(root: Path, path: str) -> None:
    (root / "out.png").symlink_to(root.parent / "outside.png")
    assert unsafe_reason(path, root.resolve()) == look_at(root, path).detail
    assert unsafe_reason("images/a.png", root.resolve()) is None


def test_two_dots_in_a_name_are_no_way_out(root: Path) -> None:
    write_picture(root / "a..b.png", 100)
    assert look_at(root, "a..b.png").problem is None
    assert unsafe_reason("a..b.png", root.resolve()) is None


def test_a_folder_whose_name_begins_like_ours_is_outside(root: Path) -> None:
    write_picture(root.parent / "raw2/a.png", 100)
    (root / "out.png").symlink_to(root.parent / "raw2/a.png")
    assert look_at(root, "out.png").problem == "unsafe_path"


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_is_no_file_is_not_waited_for(root: Path, kind: str) -> None:
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.png"))
        for path in ("pipe.png", "socket.png", "images", ""):
            fact = look_at(root, path, kind=kind)
            assert fact.problem == "not_a_file"
            assert fact.detail == f"{path} is not a regular file; put a plain file there"


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("path", ["images/b.png", "images/a.png/b.png", "gone/a.png"])
def test_a_missing_file_is_named(root: Path, kind: str, path: str) -> None:
    fact = look_at(root, path, kind=kind)
    assert (fact.problem, fact.detail) == ("missing_media", f"{path} is missing; add the file")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_sizes_in_bytes_have_their_limits(root: Path, kind: str) -> None:
    (root / "empty").touch()
    (root / "full").write_bytes(bytes(101))
    assert look_at(root, "empty", kind=kind).problem == "empty_file"
    limits = {"max_image_bytes": 100, "max_video_bytes": 100}
    fact = look_at(root, "full", kind=kind, **limits)
    assert (fact.problem, fact.sha256) == ("too_many_bytes", None)
    assert fact.detail.startswith("full has 101 bytes, above the limit of 100; compress it")
    assert look_at(root, "full", kind=kind).problem == "wrong_format"


def test_a_file_that_goes_on_growing_is_read_up_to_the_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "log").write_bytes(bytes(50))
    read = os.read

    def growing(descriptor: int, count: int) -> bytes:
        with (root / "log").open("ab") as file:
            file.write(bytes(50))
        return read(descriptor, count)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(MediaError, match="above the limit of 1,000"):
        read_below(str(root), "log", max_bytes=1000)


# ---- bad content ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["decode", "header"])
@pytest.mark.parametrize(
    ("size", "limits", "problem"),
    [
        ((1, 9), {}, "too_small"),
        ((27, 40), {"min_side": 28}, "too_small"),
        ((2, 401), {}, "extreme_shape"),
        ((11, 10), {"max_pixels": 109}, "too_many_pixels"),
    ],
)
def test_limits_hold_in_both_modes(
    root: Path, mode: str, size: tuple[int, int], limits: dict[str, int], problem: str
) -> None:
    Image.new("L", size).save(root / "b.png")
    fact = look_at(root, "b.png", mode=mode, **limits)
    assert fact.problem == problem
    assert fact.detail.startswith(f"b.png is {size[0]} x {size[1]} px")
    assert fact.sha256 is not None


def test_a_bad_file_is_hashed_and_named_by_its_path(root: Path) -> None:
    (root / "page.jpg").write_text("<html>404</html>")
    fact = look_at(root, "page.jpg")
    assert (fact.problem, fact.num_bytes) == ("wrong_format", 16)
    assert fact.detail.startswith("page.jpg cannot be decoded as an image: it is a web page")
    assert fact.sha256 == hashlib.sha256(b"<html>404</html>").hexdigest()


@pytest.mark.parametrize("cut", [40, 400])
def test_a_bad_video_is_named_by_its_path(root: Path, cut: int) -> None:
    clip = write_clip(root / "clips/a.mp4", [0, 100, 200, 250])
    clip.write_bytes(clip.read_bytes()[:cut])
    fact = look_at(root, "clips/a.mp4", kind="video")
    assert fact.problem in ("unreadable_media", "cut_off", "no_frames")
    assert fact.detail.startswith("clips/a.mp4 ")
    assert "/proc" not in fact.detail


def test_pixels_without_a_range_are_found_in_the_header(root: Path) -> None:
    Image.new("F", (9, 9)).save(root / "float.tiff")
    for mode in ("decode", "header"):
        assert look_at(root, "float.tiff", mode=mode).problem == "undefined_range"


def test_damage_further_in_is_found_by_decoding_only(root: Path) -> None:
    picture(100, side=64).save(root / "a.bmp")
    content = (root / "a.bmp").read_bytes()
    (root / "a.bmp").write_bytes(content[:-100])
    assert look_at(root, "a.bmp").problem == "unreadable_media"
    assert look_at(root, "a.bmp", mode="header").problem is None
