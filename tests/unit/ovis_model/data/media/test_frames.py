import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from moviepy.config import FFMPEG_BINARY
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import (
    Reader,
    TimedFrame,
    frames_between,
    probe_video,
    read_frames,
    read_timed_frames,
)
from ovis_model.errors import MediaError
from ovis_model.processing.frame_sampling import sample_frame_indices
from tests.support.raw_data import write_clip

SHADES = [0, 36, 72, 108, 144, 180, 216, 252]
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "3", "-threads", "1")
BT709 = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709")


def sampling(count: int) -> FrameSampling:
    return FrameSampling(min_frames=count, max_frames=count)


def ffmpeg(*arguments: str | Path) -> bytes:
    command = [FFMPEG_BINARY, "-loglevel", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def encode(
    path: Path, *options: str | Path, size: str = "96x64", rate: str = "25", seconds: float = 2
) -> Path:
    """Write a clip whose frames all differ."""
    source = f"testsrc2=s={size}:r={rate}:d={seconds},noise=alls=4:all_seed=1"
    ffmpeg("-f", "lavfi", "-i", source, *options, path)
    return path


def every_frame(path: Path, size: tuple[int, int]) -> list[bytes]:
    """Decode everything with the ffmpeg program, in order, with moviepy's scaling."""
    width, height = size
    scaled = ("-vf", f"scale={width}:{height}", "-sws_flags", "bicubic", "-pix_fmt", "rgb24")
    raw = ffmpeg("-i", path, "-fps_mode", "passthrough", *scaled, "-f", "rawvideo", "-")
    step = width * height * 3
    return [raw[at : at + step] for at in range(0, len(raw), step)]


def as_bytes(frames: Sequence[TimedFrame]) -> list[bytes]:
    return [frame.image.tobytes() for frame in frames]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return write_clip(folder / "clip.mp4", SHADES)


@pytest.fixture(scope="module")
def steady(folder: Path) -> Path:
    """50 frames, 25 per second, in short groups."""
    return encode(folder / "steady.mp4", *H264, "-g", "12")


@pytest.fixture(scope="module")
def uneven(folder: Path) -> Path:
    """25 frames per second of which only some are left, at the times they had."""
    left = "select='not(mod(n,7))+not(mod(n,3))'"
    return encode(
        folder / "uneven.mp4", "-vf", left, "-fps_mode", "vfr", *H264, "-g", "6", seconds=4
    )


def test_the_header_says_size_rate_and_frames(clip: Path) -> None:
    info = probe_video(clip)
    assert (info.width, info.height, info.fps, info.num_frames) == (32, 32, 4.0, 8)
    assert (info.seconds, info.container, info.codec) == (2.0, "mp4", "h264")
    assert not info.is_variable_rate


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
@pytest.mark.parametrize(
    ("count", "indices"),
    [(1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7]), (8, list(range(8)))],
)
def test_exactly_the_sampled_frames_are_read(
    clip: Path, count: int, indices: list[int], reader: Reader
) -> None:
    frames = read_frames(clip, sampling(count), reader=reader)
    assert [frame.mode for frame in frames] == ["RGB"] * count
    shades = [frame.getpixel((16, 16))[0] for frame in frames]
    # H.264 is lossy; neighbours are 36 apart.
    assert shades == pytest.approx([SHADES[i] for i in indices], abs=6)


def test_a_frame_has_the_time_at_which_it_is_shown(clip: Path) -> None:
    frames = read_timed_frames(clip, sampling(4))
    assert [frame.seconds for frame in frames] == [0.25, 0.75, 1.25, 1.75]


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
def test_a_short_video_repeats_frames(clip: Path, reader: Reader) -> None:
    frames = read_timed_frames(clip, sampling(12), reader=reader)
    indices = sample_frame_indices(8, min_frames=12, max_frames=12)
    assert [frame.seconds for frame in frames] == [i / 4 for i in indices]


def test_a_video_of_one_frame_can_be_read(tmp_path: Path) -> None:
    assert len(read_frames(write_clip(tmp_path / "one.mp4", [128]), sampling(4))) == 4


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ((*H264, "-g", "9"), {"rate": "24"}),
        ((*H264, "-g", "250"), {"rate": "30000/1001"}),
        ((*H264, "-g", "1"), {"rate": "30"}),
        ((*H264, "-g", "20", *BT709), {"rate": "30", "size": "1280x720", "seconds": 1}),
        ((*H264, "-vf", "scale=out_range=full", "-color_range", "pc"), {"size": "98x66"}),
        (("-c:v", "libx264", "-pix_fmt", "yuv420p10le"), {}),
        (("-c:v", "libx264", "-pix_fmt", "yuv444p"), {"size": "97x65"}),
        ((*H264, "-flags", "+ildct+ilme", "-x264opts", "tff=1"), {}),
        ((*H264, "-vf", "setsar=4/3"), {}),
        ((*H264, "-vf", "setsar=1/2"), {}),
    ],
    ids=[
        *("24", "29.97", "30-all-keyframes", "30-hd", "full-range", "10-bit", "444"),
        *("interlaced", "wide-pixels", "narrow-pixels"),
    ],
)
def test_both_readers_give_every_pixel_that_decoding_everything_gives(
    tmp_path: Path, options: tuple[str, ...], how: dict[str, str]
) -> None:
    path = encode(tmp_path / "clip.mp4", *options, **how)
    info = probe_video(path)
    expected = every_frame(path, (info.width, info.height))
    assert len(expected) == info.num_frames
    for count in (1, 7, info.num_frames):
        indices = sample_frame_indices(len(expected), min_frames=count, max_frames=count)
        by_pyav = read_timed_frames(path, sampling(count))
        by_moviepy = read_timed_frames(path, sampling(count), reader="moviepy")
        assert as_bytes(by_pyav) == [expected[i] for i in indices]
        assert as_bytes(by_moviepy) == [expected[i] for i in indices]
        assert [f.seconds for f in by_pyav] == [f.seconds for f in by_moviepy]


@pytest.mark.parametrize(
    ("name", "container", "options"),
    [
        ("a.mov", "mov", H264),
        ("a.mkv", "mkv", H264),
        ("a.webm", "webm", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime")),
        ("b.webm", "webm", ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16")),
        ("a.avi", "avi", ("-c:v", "mpeg4", "-bf", "2", "-g", "20")),
        ("b.avi", "avi", ("-c:v", "mjpeg")),
        ("a.mpg", "mpg", ("-c:v", "mpeg2video", "-bf", "2", "-g", "15")),
        ("a.ts", "ts", (*H264, "-g", "20")),
        ("a.m2ts", "ts", (*H264, "-mpegts_m2ts_mode", "1", "-f", "mpegts")),
        ("a.flv", "flv", H264),
        ("a.ogv", "ogg", ("-c:v", "libtheora")),
        ("a.mp4", "mp4", (*H264, "-g", "9", "-movflags", "+frag_keyframe+empty_moov")),
        ("b.mp4", "mp4", (*H264, "-x264opts", "open-gop=1:keyint=12:b-pyramid=normal")),
        ("c.mp4", "mp4", (*H264, "-x264opts", "intra-refresh=1:keyint=12")),
        ("d.mp4", "mp4", ("-c:v", "libx265", "-x265-params", "log-level=none:keyint=9")),
    ],
    ids=[
        *(
            "mov",
            "mkv",
            "vp9",
            "vp8-hidden-frames",
            "mpeg4",
            "mjpeg",
            "mpeg2",
            "ts",
            "m2ts",
            "flv",
        ),
        *("theora", "fragments", "open-groups", "no-keyframes", "hevc"),
    ],
)
def test_every_container_gives_the_frames_that_decoding_everything_gives(
    tmp_path: Path, name: str, container: str, options: tuple[str, ...]
) -> None:
    path = encode(tmp_path / name, *options)
    info = probe_video(path)
    assert (info.container, info.num_frames, info.fps, info.seconds) == (container, 50, 25.0, 2.0)
    expected = every_frame(path, (96, 64))
    for count in (1, 5, 50):
        indices = sample_frame_indices(50, min_frames=count, max_frames=count)
        frames = read_timed_frames(path, sampling(count))
        assert as_bytes(frames) == [expected[i] for i in indices]
        assert [frame.seconds for frame in frames] == [i / 25 for i in indices]


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
@pytest.mark.parametrize(
    ("start", "end", "indices"),
    [
        (None, 0.12, [0, 1, 2]),
        (1.92, None, [48, 49]),
        (1.0, 1.12, [25, 26, 27]),
        (0.96, 1.12, [24, 25, 26, 27]),
        (1.001, 1.12, [26, 27]),
        (1.0, 1.121, [25, 26, 27, 28]),
        (1.0, 1.119, [25, 26, 27]),
        (-3.0, 0.04, [0]),
        (1.96, 99.0, [49]),
    ],
    ids=[
        *("from-the-beginning", "to-the-end", "both", "a-frame-earlier", "just-after-a-frame"),
        *("just-after-the-end", "just-before-the-end", "before-the-beginning", "behind-the-end"),
    ],
)
def test_a_part_holds_the_frames_shown_from_its_start_until_before_its_end(
    steady: Path, start: float | None, end: float | None, indices: list[int], reader: Reader
) -> None:
    count = len(indices)
    frames = read_timed_frames(steady, sampling(count), start=start, end=end, reader=reader)
    expected = every_frame(steady, (96, 64))
    assert as_bytes(frames) == [expected[i] for i in indices]
    assert frames_between(probe_video(steady), start, end) == count


def test_a_part_may_begin_at_a_time_that_was_rounded(tmp_path: Path) -> None:
    path = encode(tmp_path / "ntsc.mp4", *H264, rate="30000/1001")
    info = probe_video(path)
    for index in range(info.num_frames):
        start = round(float(Fraction(1001, 30000) * index), 6)
        first, *_ = read_timed_frames(path, sampling(1), start=start, end=start + 0.03)
        assert first.seconds == pytest.approx(start, abs=1e-6)
        assert frames_between(info, None, start) == index


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
@pytest.mark.parametrize(("start", "end"), [(2.0, None), (1.0, 1.0), (0.5, 0.2), (1.01, 1.03)])
def test_a_part_without_frames_is_an_error(
    steady: Path, start: float, end: float | None, reader: Reader
) -> None:
    assert frames_between(probe_video(steady), start, end) == 0
    with pytest.raises(MediaError, match=r"steady\.mp4 shows no frame from .*video_start") as info:
        read_frames(steady, sampling(2), start=start, end=end, reader=reader)
    assert info.value.code == "empty_range"


def kept_times(seconds: int) -> list[float]:
    """When the frames of `uneven` are shown."""
    return [n / 25 for n in range(25 * seconds) if n % 7 == 0 or n % 3 == 0]


def test_frames_of_a_variable_rate_are_taken_by_their_place_and_have_their_own_times(
    uneven: Path,
) -> None:
    times, expected = kept_times(4), every_frame(uneven, (96, 64))
    info = probe_video(uneven)
    assert (info.is_variable_rate, info.num_frames) == (True, len(times))
    assert info.fps == pytest.approx((len(times) - 1) / times[-1])
    for count in (6, len(times)):
        indices = sample_frame_indices(len(times), min_frames=count, max_frames=count)
        frames = read_timed_frames(uneven, sampling(count))
        assert as_bytes(frames) == [expected[i] for i in indices]
        assert [f.seconds for f in frames] == pytest.approx([times[i] for i in indices])


def test_a_part_of_a_variable_rate_goes_by_time(uneven: Path) -> None:
    times = kept_times(4)
    inside = [n for n, time in enumerate(times) if 1.0 <= time < 1.6]
    frames = read_timed_frames(uneven, sampling(len(inside)), start=1.0, end=1.6)
    expected = every_frame(uneven, (96, 64))
    assert as_bytes(frames) == [expected[n] for n in inside]


def test_moviepy_takes_other_frames_of_a_variable_rate(uneven: Path) -> None:
    # The reason why it is not the default.  Its frames are among those of the video.
    expected = every_frame(uneven, (96, 64))
    frames = read_timed_frames(uneven, sampling(len(expected)), reader="moviepy")
    assert set(as_bytes(frames)) <= set(expected)
    assert as_bytes(frames) != expected


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        (("-display_rotation", "90"), Image.Transpose.ROTATE_90),
        (("-display_rotation", "180"), Image.Transpose.ROTATE_180),
        (("-display_rotation", "270"), Image.Transpose.ROTATE_270),
        (("-display_hflip",), Image.Transpose.FLIP_LEFT_RIGHT),
        (("-display_vflip",), Image.Transpose.FLIP_TOP_BOTTOM),
        (("-display_rotation", "90", "-display_hflip"), Image.Transpose.TRANSVERSE),
        (("-display_rotation", "270", "-display_hflip"), Image.Transpose.TRANSPOSE),
    ],
    ids=["left", "over", "right", "mirrored", "upside-down", "transverse", "transposed"],
)
def test_frames_are_turned_as_a_player_turns_them(
    tmp_path: Path, matrix: tuple[str, ...], upright: Image.Transpose
) -> None:
    flat = encode(tmp_path / "flat.mp4", *H264, "-qp", "0", seconds=1)
    turned = tmp_path / "turned.mp4"
    ffmpeg(*matrix, "-i", flat, "-c", "copy", turned)
    (as_stored,) = read_frames(flat, sampling(1))
    (shown,) = read_frames(turned, sampling(1))
    info = probe_video(turned)
    assert (info.width, info.height) == shown.size
    assert as_bytes(read_timed_frames(turned, sampling(25))) == every_frame(turned, shown.size)
    # Not to the bit: colours are stored for blocks, and blocks are turned before they are spread.
    difference = np.asarray(shown, float) - np.asarray(as_stored.transpose(upright), float)
    assert np.abs(difference).mean() < 6


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    path = encode(tmp_path / "wide.mp4", *H264, "-vf", "setsar=3/2", seconds=1)
    info = probe_video(path)
    assert (info.width, info.height) == (144, 64)
    assert read_frames(path, sampling(1))[0].size == (144, 64)


def test_what_an_edit_leaves_out_is_not_counted(tmp_path: Path, steady: Path) -> None:
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "0.8", "-i", steady, "-c", "copy", cut)
    expected = every_frame(cut, (96, 64))
    assert probe_video(cut).num_frames == len(expected) == 30
    assert as_bytes(read_timed_frames(cut, sampling(30))) == expected


def test_sound_may_be_longer_than_the_pictures(tmp_path: Path) -> None:
    sound = ("-f", "lavfi", "-i", "sine=d=4")
    path = encode(tmp_path / "long.mkv", *sound, *H264, "-c:a", "aac")
    assert probe_video(path).num_frames == 50
    assert len(read_frames(path, sampling(4))) == 4


def test_frames_damaged_here_and_there_are_read_as_far_as_they_go(
    tmp_path: Path, steady: Path
) -> None:
    path = tmp_path / "damaged.mp4"
    content = bytearray(steady.read_bytes())
    begin = content.index(b"mdat") + len(content) // 2
    content[begin : begin + 60] = bytes(60)
    path.write_bytes(content)
    frames = read_timed_frames(path, sampling(10))
    expected = every_frame(steady, (96, 64))
    indices = sample_frame_indices(50, min_frames=10, max_frames=10)
    assert [frame.seconds for frame in frames] == [i / 25 for i in indices]
    right = sum(a == expected[i] for a, i in zip(as_bytes(frames), indices, strict=True))
    assert 7 <= right < 10


def test_the_interface_imports_no_video_library() -> None:
    program = (
        "import sys, ovis_model.data.media.frames\n"
        "print(sorted({'av', 'moviepy', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
