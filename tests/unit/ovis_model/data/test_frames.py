from pathlib import Path

import pytest

from ovis_model.config import FrameSampling
from ovis_model.data.frames import probe_video, read_frames
from ovis_model.errors import DataError
from tests.support.raw_data import write_clip

SHADES = [0, 36, 72, 108, 144, 180, 216, 252]


def sampling(count: int) -> FrameSampling:
    return FrameSampling(min_frames=count, max_frames=count)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("videos") / "clip.mp4", SHADES)


def test_the_header_says_size_rate_and_frames(clip: Path) -> None:
    info = probe_video(clip)
    assert (info.width, info.height, info.fps, info.num_frames) == (32, 32, 4.0, 8)


@pytest.mark.parametrize(
    ("count", "indices"),
    [(1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7]), (8, list(range(8)))],
)
def test_exactly_the_sampled_frames_are_read(clip: Path, count: int, indices: list[int]) -> None:
    frames = read_frames(clip, sampling(count))
    assert [frame.mode for frame in frames] == ["RGB"] * count
    shades = [frame.getpixel((16, 16))[0] for frame in frames]
    # H.264 is lossy; neighbours are 36 apart.
    assert shades == pytest.approx([SHADES[i] for i in indices], abs=6)


def test_a_short_video_repeats_frames(clip: Path) -> None:
    frames = read_frames(clip, sampling(12))
    assert len(frames) == 12


def test_a_video_of_one_frame_can_be_read(tmp_path: Path) -> None:
    assert len(read_frames(write_clip(tmp_path / "one.mp4", [128]), sampling(4))) == 4


@pytest.mark.parametrize("read", [probe_video, lambda path: read_frames(path, sampling(2))])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad\.mp4 is not a video container .*begins with b''"),
        (b"<html>404</html>", r"bad\.mp4 is not a video container"),
        (b"#EXTM3U\nfile:///etc/passwd\n", r"bad\.mp4 is not a video container"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", r"bad\.mp4 is not a video container"),
        (b"\0\0\0\x20ftypisom" + bytes(64), r"bad\.mp4 cannot be read as a video: .*[Ii]nvalid"),
    ],
    ids=["empty", "web-page", "playlist", "concat-script", "header-only"],
)
def test_what_is_no_video_is_a_data_error(
    tmp_path: Path, content: bytes, message: str, read: object
) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_missing_video_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.mp4 cannot be read as a video: .*No such file"):
        probe_video(tmp_path / "none.mp4")


def test_a_video_cut_off_in_the_middle_says_how_many_frames_it_holds(tmp_path: Path) -> None:
    # A Matroska header at the front keeps promising what was cut off.
    whole = write_clip(tmp_path / "whole.mkv", [n * 2 for n in range(120)], fps=24, side=64)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.mkv promises 1\d\d frames but holds \d+: .*cut"):
        read_frames(cut, sampling(8))
