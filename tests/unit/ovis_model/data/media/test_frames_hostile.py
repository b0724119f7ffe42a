"""Files that are no videos, or should not be read as ones."""

import os
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from moviepy.config import FFMPEG_BINARY

from ovis_model.config import FrameSampling, MediaLimits
from ovis_model.data.media.frames import Reader, probe_video, read_frames, read_timed_frames
from ovis_model.data.reasons import MEDIA_PROBLEMS
from ovis_model.errors import DataError, MediaError
from tests.support.raw_data import write_clip

FOUR = FrameSampling(min_frames=4, max_frames=4)
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1")
SOUND = ("-f", "lavfi", "-i", "sine=d=1")


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([FFMPEG_BINARY, "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def encode(
    path: Path, *options: str | Path, size: str = "64x48", seconds: float = 2, rate: str = "25"
) -> Path:
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", *options, path)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("good") / "good.mp4", *H264, "-g", "10")


def refuse(path: Path, code: str, message: str, limits: MediaLimits | None = None) -> None:
    """Expect that neither looking at a file nor reading it gets further than an error."""
    attempts = (
        lambda: probe_video(path, limits=limits),
        lambda: read_frames(path, FOUR, limits=limits),
        lambda: read_frames(path, FOUR, reader="moviepy", limits=limits),
    )
    assert code in MEDIA_PROBLEMS
    for attempt in attempts:
        with pytest.raises(DataError, match=message) as info:
            attempt()
        assert isinstance(info.value, MediaError)
        assert info.value.code == code
        assert str(info.value).startswith(str(path))


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "empty_file", r"is empty, no video; copy the file again"),
        (b"<html>404</html>", "wrong_format", r"is not a video container .*begins with b'<html>"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n", "wrong_format", r"not a video container"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "wrong_format", r"not a video container"),
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "wrong_format", r"not a video container"),
        (b"<?xml version='1.0'?><MPD></MPD>", "wrong_format", r"not a video container"),
        (b"GIF89a" + bytes(30), "wrong_format", r"not a video container"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wrong_format", r"not a video container"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "wrong_format", r"not a video container"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "wrong_format", r"not a video container"),
        (b"GET / HTTP/1.1\r\n", "wrong_format", r"not a video container"),
        (b"\0\0\0\x20ftypisom" + bytes(64), "unreadable_media", r"as a video: .*[Ii]nvalid data"),
        (b"\x1a\x45\xdf\xa3" + bytes(64), "unreadable_media", r"cannot be read as a video: "),
        (b"\0\0\x01\xba" + bytes(2000), "(no_frames|unreadable_media)", r""),
    ],
    ids=[
        *("empty", "web-page", "hls", "concat", "sdp", "dash", "gif", "sound", "heic", "avif"),
        *("web-request", "mp4-header-only", "mkv-header-only", "mpg-header-only"),
    ],
)
def test_what_is_no_video_is_refused_by_its_content(
    tmp_path: Path, content: bytes, code: str, message: str
) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    if "|" in code:
        with pytest.raises(MediaError) as info:
            probe_video(path)
        assert info.value.code in code
        return
    refuse(path, code, message)


def test_a_playlist_named_like_a_transport_stream_opens_nothing(tmp_path: Path) -> None:
    segment = encode(tmp_path / "secret.ts", *H264)
    path = tmp_path / "list.ts"
    path.write_text(f"#EXTM3U\n#EXTINF:2,\nfile://{segment}\n#EXT-X-ENDLIST\n", encoding="utf-8")
    refuse(path, "wrong_format", "not a video container")


def test_a_missing_video_a_folder_and_a_pipe_are_told_apart(tmp_path: Path) -> None:
    refuse(tmp_path / "none.mp4", "missing_media", r"none\.mp4 cannot be read .*No such file")
    refuse(tmp_path, "not_a_file", "is not a regular file")
    os.mkfifo(tmp_path / "pipe.mp4")
    refuse(tmp_path / "pipe.mp4", "not_a_file", "is not a regular file")


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
@pytest.mark.parametrize(
    "name",
    [
        *("-y.mp4", "%03d.mp4", "a:b.mp4", "file:c.mp4", "two words.mp4", "line\nbreak.mp4"),
        *("concat:a|b.mp4", "$(touch x).mp4", "[a]*?.mp4", "\N{BUG}.mp4", "q?x=1#y.mp4"),
    ],
)
def test_no_character_of_a_name_has_a_meaning(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reader: Reader
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(good.read_bytes())
    found = read_frames(Path(name), FOUR, reader=reader)
    assert [frame.tobytes() for frame in found] == [
        frame.tobytes() for frame in read_frames(good, FOUR)
    ]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def find_box(content: bytes, *names: bytes) -> tuple[int, int]:
    """Return where a box of an mp4 begins and ends, found from the outermost inwards."""
    begin, end = 0, len(content)
    for name in names:
        while content[begin + 4 : begin + 8] != name:
            begin += struct.unpack(">I", content[begin : begin + 4])[0]
        end = begin + struct.unpack(">I", content[begin : begin + 4])[0]
        outer, begin = begin, begin + 8
    return outer, end


def with_reference(content: bytes, target: Path) -> bytes:
    """Let the sample data of an mp4 lie in another file, by an alias as old movies have it."""
    way = (b"moov", b"trak", b"mdia", b"minf", b"dinf")
    # As ffmpeg walks through it: ten bytes, the volume, dates, the name, ids, levels, the path.
    name = str(target).encode()
    name += b"\0" * (len(name) % 2)
    alias = bytes(10) + b"\1v".ljust(28, b"\0") + bytes(12) + b"\1n".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">HH", 2, len(name)) + name
    alias += struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", len(alias) + 12, b"alis", 0) + alias
    dref = struct.pack(">I4sII", len(entry) + 16, b"dref", 0, 1) + entry
    begin, end = find_box(content, *way)
    changed = bytearray(content)
    grown = len(dref) + 8 - (end - begin)
    changed[begin:end] = struct.pack(">I4s", len(dref) + 8, b"dinf") + dref
    for depth in range(1, len(way)):
        at, stop = find_box(content, *way[:depth])
        changed[at : at + 4] = struct.pack(">I", stop - at + grown)
    return bytes(changed)


@pytest.mark.parametrize("reader", ["pyav", "moviepy"])
def test_a_movie_that_refers_to_another_file_does_not_show_it(
    good: Path, tmp_path: Path, reader: Reader
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(good.read_bytes())
    path = tmp_path / "refers.mov"
    path.write_bytes(with_reference(good.read_bytes(), secret))
    with av.open(str(path), options={"enable_drefs": "1"}) as trusting:
        assert next(trusting.decode(video=0)).width == 64  # the attack works
    with pytest.raises(MediaError, match=r"refers\.mov"):
        read_frames(path, FOUR, reader=reader)


def test_a_movie_without_its_index_is_unreadable(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(content[: find_box(content, b"moov")[0]])
    refuse(path, "unreadable_media", r"half\.mp4 cannot be read as a video: Invalid data")


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4", "cut.flv", "cut.avi"])
def test_a_video_cut_off_in_the_middle_says_how_many_frames_it_holds(
    tmp_path: Path, name: str
) -> None:
    # A header at the front keeps promising what was cut off.
    first = ("-movflags", "+faststart") if name.endswith("mp4") else ()
    path = encode(tmp_path / name, *H264, *first, seconds=5, size="96x64")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refuse(path, "cut_off", rf"{name} promises 1\d\d frames but holds \d+: .*cut off or damaged")


def test_a_video_that_lost_its_last_frame_only_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "short.mp4", *H264, "-movflags", "+faststart", "-bf", "0")
    path.write_bytes(path.read_bytes()[:-20])
    assert probe_video(path).num_frames >= 48
    assert len(read_frames(path, FOUR)) == 4


def test_a_video_damaged_all_over_is_cut_off(tmp_path: Path) -> None:
    path = encode(tmp_path / "noise.mp4", *H264, "-g", "10", size="128x96")
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    begin, end = find_box(content.tobytes(), b"mdat")
    random = np.random.default_rng(0)
    places = random.integers(begin + 1500, end, (end - begin) // 40)
    content[places] ^= 255
    path.write_bytes(content.tobytes())
    with pytest.raises(MediaError, match=r"promises 50 frames but holds \d+") as info:
        read_frames(path, FrameSampling(min_frames=50, max_frames=50))
    assert info.value.code == "cut_off"


def test_sound_alone_has_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    ffmpeg(*SOUND, "-c:a", "aac", path)
    refuse(path, "no_frames", r"sound\.m4a holds no picture stream")


def test_the_picture_on_the_cover_is_no_video(tmp_path: Path) -> None:
    cover = encode(tmp_path / "cover.png", "-frames:v", "1")
    path = tmp_path / "song.m4a"
    disposition = ("-disposition:v", "attached_pic", "-c:v", "copy")
    ffmpeg(*SOUND, "-i", cover, "-map", "0", "-map", "1", "-c:a", "aac", *disposition, path)
    refuse(path, "no_frames", r"holds no picture stream")


def test_a_picture_stream_without_frames_is_told(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    fragments = ("-movflags", "+frag_keyframe+empty_moov", "-frames:v", "0")
    ffmpeg("-i", good, "-c", "copy", *fragments, path)
    refuse(path, "no_frames", r"none\.mp4 holds no frames")


def write_at(path: Path, times: list[Fraction]) -> Path:
    """Write frames that are shown at these seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        stream.codec_context.options = {"bf": "0", "threads": "1"}
        for number, time in enumerate(times):
            pixels = np.full((48, 64, 3), number * 20 % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(time * 90_000), Fraction(1, 90_000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Fraction(1, 90_000), r"\(90000 per second\), which is not plausible"),
        (Fraction(1, 2000), r"\(2000 per second\)"),
        (Fraction(20), r"\(0\.05 per second\)"),
    ],
    ids=["clock-rate", "2000", "slides"],
)
def test_a_rate_that_cannot_be_is_refused(tmp_path: Path, step: Fraction, message: str) -> None:
    path = write_at(tmp_path / "rate.mp4", [n * step for n in range(12)])
    refuse(path, "implausible_rate", message)


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), -5000.0, 0.0])
def test_an_impossible_duration_in_the_header_ends_well(tmp_path: Path, duration: float) -> None:
    path = encode(tmp_path / "time.mkv", *H264)
    content = path.read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # the duration, eight bytes
    path.write_bytes(content[:at] + struct.pack(">d", duration) + content[at + 8 :])
    try:
        assert probe_video(path).num_frames == 50
    except MediaError as error:
        assert error.code in ("implausible_rate", "cut_off", "too_long")  # noqa: PT017


@pytest.mark.parametrize(
    ("limits", "code", "message"),
    [
        (MediaLimits(max_video_seconds=1.9), "too_long", r"lasts 2 s, above the limit of 2"),
        (MediaLimits(max_video_bytes=1000), "too_many_bytes", r"bytes, above the limit of 1,000"),
        (MediaLimits(max_pixels=3000), "too_many_pixels", r"64 x 48 px, above the limit of 3,000"),
        (MediaLimits(min_side=49), "too_small", r"64 x 48 px; a side must have 49 px"),
    ],
)
def test_a_limit_that_is_exceeded_is_named(
    good: Path, limits: MediaLimits, code: str, message: str
) -> None:
    refuse(good, code, message, limits)


def test_a_ribbon_is_no_picture(tmp_path: Path) -> None:
    path = encode(tmp_path / "ribbon.mp4", *H264, size="820x4")
    refuse(path, "extreme_shape", r"820 x 4 px, more than 200 times as long as wide")


def test_pixels_may_not_be_stretched_beyond_the_limits(tmp_path: Path) -> None:
    path = encode(tmp_path / "stretched.mp4", *H264, "-vf", "setsar=20/1", size="640x48")
    refuse(path, "extreme_shape", r"12800 x 48 px")
    refuse(path, "too_many_pixels", r"12800 x 48 px", MediaLimits(max_pixels=600_000))


def test_a_size_that_changes_is_refused(tmp_path: Path) -> None:
    small = encode(tmp_path / "small.ts", *H264)
    large = encode(tmp_path / "large.ts", *H264, size="96x64")
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert probe_video(both).num_frames == 100
    with pytest.raises(MediaError, match=r"64 x 48 px and of 96 x 64 px; convert") as info:
        read_frames(both, FOUR)
    assert info.value.code == "changing_size"


def test_time_stamps_that_begin_again_do_not_confuse(tmp_path: Path) -> None:
    one = encode(tmp_path / "one.ts", *H264)
    twice = tmp_path / "twice.ts"
    twice.write_bytes(one.read_bytes() * 2)
    frames = read_timed_frames(twice, FrameSampling(min_frames=100, max_frames=100))
    assert [frame.seconds for frame in frames] == [n / 25 for n in range(100)]
    once = read_frames(one, FrameSampling(min_frames=50, max_frames=50))
    assert [frame.image.tobytes() for frame in frames] == [f.tobytes() for f in once] * 2


def test_an_encrypted_video_is_told_from_a_broken_one(tmp_path: Path) -> None:
    key = ("-encryption_key", "0f" * 16, "-encryption_kid", "a1" * 16)
    path = encode(tmp_path / "locked.mp4", *H264, "-encryption_scheme", "cenc-aes-ctr", *key)
    refuse(path, "unknown_codec", r"pictures in the codec 'h264', encrypted; convert it")


def test_a_codec_that_is_not_known_is_named(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.mp4"
    path.write_bytes(good.read_bytes().replace(b"avc1", b"zzzz"))
    refuse(path, "unknown_codec", r"the codec 'none \(zzzz / 0x7A7A7A7A\)', which is not known")


@pytest.mark.parametrize("count", [64, 65])
def test_a_file_may_have_64_streams(tmp_path: Path, count: int) -> None:
    streams = ("-map", "0:v") * count
    path = encode(tmp_path / "many.mkv", *streams, "-c:v", "mjpeg", size="16x16", seconds=0.2)
    if count == 64:
        assert len(read_frames(path, FOUR)) == 4
    else:
        refuse(path, "too_many_streams", r"has 65 streams, above the limit of 64")


def test_a_first_frame_that_cannot_be_decoded_is_unreadable(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "flat.mp4", [10, 200, 90])
    content = path.read_bytes()
    begin, end = find_box(content, b"mdat")
    path.write_bytes(content[: begin + 8] + bytes(end - begin - 8) + content[end:])
    refuse(path, "unreadable_media", r"none of its 3 frames can be decoded")
