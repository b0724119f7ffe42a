"""Frames out of video files: one interface, two readers, and what is refused as a video.

`frames_pyav` is the reader: it takes frames by their time stamps, so it is right for a variable
frame rate too.  `frames_moviepy` decodes through moviepy; for a constant frame rate both give the
same bytes.  Nothing else in this project opens videos, and either library is only imported when a
video is.

A video is what its first bytes say.  ffmpeg would also follow playlists, scripts and references
that name other files and addresses; the readers are told which container to expect, and may open
nothing but the one file.
"""

import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from ovis_model.config import FrameSampling, MediaLimits
from ovis_model.errors import MediaError
from ovis_model.processing.aspect_ratio import MAX_ASPECT_RATIO

#: Frames per second that are believed.
MIN_RATE, MAX_RATE = 0.1, 1000.0
#: Two times closer than this are the same time, in seconds: starts and ends are typed by people.
TIME_TOLERANCE = 1e-6

Reader = Literal["pyav", "moviepy"]

#: Containers by their first bytes, as (offset, bytes, name of ffmpeg's demuxer).
_CONTAINERS = (
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (8, b"AVI ", "avi"),
    (0, b"\x00\x00\x01\xba", "mpeg"),
    (0, b"FLV", "flv"),
    (0, b"OggS", "ogg"),
)
#: A transport stream repeats this byte with this period; the longer one has a time before it.
_TS_SYNC, _TS_LAYOUTS = 0x47, ((0, 188), (4, 192))
#: How containers are called in reports, where it is not the name of the demuxer.
_NAMES = {"mpeg": "mpg", "mpegts": "ts"}
#: Brands of still pictures in the container of mp4.
_PICTURE_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")
_READ_HERE = "mp4, mov, mkv, webm, avi, mpg, ts, flv, ogg"


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, as a player would show it.

    Attributes:
        width, height: Pixels of a frame as shown: turned upright, with square pixels.
        fps: Mean frame rate per second.
        num_frames: Frames, counted by their packets; none is decoded for it.
        seconds: From the first frame to the end of the last one.
        container: "mp4", "mov", "mkv", "webm", "avi", "mpg", "ts", "flv" or "ogg".
        codec: ffmpeg's name of it, such as "h264".
        is_variable_rate: Whether frames lie off the even grid that `fps` would make.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    seconds: float
    container: str
    codec: str
    is_variable_rate: bool


@dataclass(frozen=True)
class TimedFrame:
    """One frame in RGB, and when it is shown, in seconds from the first frame."""

    image: Image.Image
    seconds: float


@dataclass(frozen=True)
class Container:
    """What a file is by its first bytes."""

    demuxer: str
    """The one ffmpeg may use."""
    name: str
    """As reports call it."""


def probe_video(path: Path, *, limits: MediaLimits | None = None) -> VideoInfo:
    """Read what a video says about itself, and its first frame.

    Its packets are counted, not decoded.

    Args:
        path: A video file.
        limits: What it may cost; None for the usual ones.

    Raises:
        MediaError: If it is no video that is read here, is cut off, has no picture stream or no
            frames, cannot be decoded, or is beyond the limits.
    """
    from ovis_model.data.media.frames_pyav import probe  # noqa: PLC0415 - as the module docstring says

    limits = limits or MediaLimits()
    return probe(path, find_container(path, limits), limits)


def read_timed_frames(  # noqa: PLR0913 - what, which part of it, and how
    path: Path,
    sampling: FrameSampling,
    *,
    start: float | None = None,
    end: float | None = None,
    reader: Reader = "pyav",
    limits: MediaLimits | None = None,
) -> list[TimedFrame]:
    """Decode the sampled frames of a video, or of a part of it.

    Args:
        path: A video file.
        sampling: How many frames to take; where they lie is `sample_frame_indices`' decision,
            over the frames of the part in the order in which they are shown.
        start: Where the part begins, in seconds from the first frame; None for the beginning.
        end: Where it ends; a frame shown from this moment on is outside.  None for the end.
        reader: "pyav", or "moviepy", which for a variable frame rate takes evenly spaced moments
            instead of frames, and does not notice frames whose size changes.
        limits: What the video may cost; None for the usual ones.

    Returns:
        Frames in order of time; a short video repeats frames.

    Raises:
        MediaError: As `probe_video`; also if frames that are needed are missing or change their
            size, or if no frame lies between start and end.
    """
    limits = limits or MediaLimits()
    if reader == "moviepy":
        from ovis_model.data.media.frames_moviepy import read as read_by_moviepy  # noqa: PLC0415

        info = probe_video(path, limits=limits)
        return read_by_moviepy(path, info, sampling, start=start, end=end)
    from ovis_model.data.media.frames_pyav import read as read_by_pyav  # noqa: PLC0415

    container = find_container(path, limits)
    return read_by_pyav(path, container, sampling, start=start, end=end, limits=limits)


def read_frames(  # noqa: PLR0913 - as above
    path: Path,
    sampling: FrameSampling,
    *,
    start: float | None = None,
    end: float | None = None,
    reader: Reader = "pyav",
    limits: MediaLimits | None = None,
) -> list[Image.Image]:
    """Decode the sampled frames of a video: `read_timed_frames` without the times."""
    timed = read_timed_frames(path, sampling, start=start, end=end, reader=reader, limits=limits)
    return [frame.image for frame in timed]


def frames_between(info: VideoInfo, start: float | None, end: float | None) -> int:
    """Count the frames that are shown in [start, end): what a part offers to the sampler.

    Exact for a constant frame rate.  For a variable one it is what the mean rate makes of it.

    Args:
        info: The video.
        start: Seconds from the first frame; None for the beginning.
        end: Seconds from the first frame; None for the end.

    Example:
        >>> info = VideoInfo(64, 64, 25.0, 250, 10.0, "mp4", "h264", False)
        >>> frames_between(info, 1.0, 2.0), frames_between(info, 9.96, None)
        (25, 1)
    """
    after = info.num_frames if end is None else _frames_before(info, end)
    return max(0, after - (0 if start is None else _frames_before(info, start)))


def _frames_before(info: VideoInfo, seconds: float) -> int:
    if math.isinf(seconds):
        return info.num_frames if seconds > 0 else 0
    # Frame i is shown at i / fps; those are counted that are shown before `seconds`.
    count = math.ceil((seconds - TIME_TOLERANCE) * info.fps)
    return min(max(count, 0), info.num_frames)


def find_container(path: Path, limits: MediaLimits) -> Container:
    """Tell by its first bytes which container a file is.

    Raises:
        MediaError: If there is no such file, or it is no video that is read here, or too large.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MediaError("not_a_file", f"{path} is not a regular file; put a video there")
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError as error:
        raise MediaError(
            "missing_media", f"{path} cannot be read as a video: {error.strerror}; add the file"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, str(error)) from error
    if not head:
        raise MediaError("empty_file", f"{path} is empty, no video; copy the file again")
    if found.st_size > limits.max_video_bytes:
        raise MediaError(
            "too_many_bytes",
            f"{path} has {found.st_size:,} bytes, above the limit of {limits.max_video_bytes:,}; "
            "compress it, or raise the limit",
        )
    demuxer = _demuxer(head)
    if demuxer is None:
        raise MediaError(
            "wrong_format",
            f"{path} is not a video container that is read here ({_READ_HERE}); it begins with "
            f"{head[:8]!r}; convert it to mp4",
        )
    return Container(demuxer, _name(demuxer, head))


def _demuxer(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return None
    for at, magic, demuxer in _CONTAINERS:
        if head[at : at + len(magic)] == magic:
            return demuxer
    for first, period in _TS_LAYOUTS:
        if len(head) > first + period and set(head[first::period]) == {_TS_SYNC}:
            return "mpegts"
    return None


def _name(demuxer: str, head: bytes) -> str:
    if demuxer == "mov":
        is_mp4 = head[4:8] == b"ftyp" and head[8:12] != b"qt  "
        return "mp4" if is_mp4 else "mov"
    if demuxer == "matroska":
        return "webm" if b"webm" in head[:64] else "mkv"
    return _NAMES.get(demuxer, demuxer)


def check_info(path: Path, info: VideoInfo, limits: MediaLimits) -> None:
    """Hold a video against the limits.

    Raises:
        MediaError: Naming the first limit it is beyond.
    """
    check_size(path, (info.width, info.height), limits)
    rate_is_plausible = MIN_RATE <= info.fps <= MAX_RATE  # false for NaN
    if not rate_is_plausible or not 0 < info.seconds < math.inf:
        raise MediaError(
            "implausible_rate",
            f"{path} shows {info.num_frames} frames in {info.seconds:g} s ({info.fps:g} per "
            "second), which is not plausible; convert it again with a frame rate between "
            f"{MIN_RATE:g} and {MAX_RATE:,.0f} per second",
        )
    check_duration(path, info.seconds, limits)


def check_duration(path: Path, seconds: float, limits: MediaLimits) -> None:
    """Hold a duration against its limit.

    Raises:
        MediaError: If it is too long.
    """
    if seconds > limits.max_video_seconds:
        raise MediaError(
            "too_long",
            f"{path} lasts {seconds:,.0f} s, above the limit of {limits.max_video_seconds:,.0f}; "
            "cut it, or raise the limit",
        )


def check_size(path: Path, size: tuple[int, int], limits: MediaLimits) -> None:
    """Hold a frame's size against the limits.

    Raises:
        MediaError: If it has too many pixels, too short a side or too extreme a shape.
    """
    width, height = size
    what = f"{path} has frames of {width} x {height} px"
    if width * height > limits.max_pixels:
        raise MediaError(
            "too_many_pixels", f"{what}, above the limit of {limits.max_pixels:,}; scale it down"
        )
    if min(size) < limits.min_side:
        raise MediaError(
            "too_small", f"{what}; a side must have {limits.min_side} px; remove the video"
        )
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise MediaError(
            "extreme_shape",
            f"{what}, more than {MAX_ASPECT_RATIO} times as long as wide; crop it",
        )


def cut_off(path: Path, promised: int, held: int) -> MediaError:
    """Make the error for a video that holds fewer frames than it promises."""
    return MediaError(
        "cut_off",
        f"{path} promises {promised} frames but holds {held}: it is cut off or damaged; "
        "replace it or remove its sample",
    )


def empty_range(path: Path, start: float | None, end: float | None, seconds: float) -> MediaError:
    """Make the error for a part of a video without frames."""
    return MediaError(
        "empty_range",
        f"{path} shows no frame from {start or 0:g} s to {seconds if end is None else end:g} s; "
        f"it lasts {seconds:g} s; fix video_start and video_end",
    )


def unreadable(path: Path, reason: str) -> MediaError:
    """Make the error for what a library could not read."""
    return MediaError(
        "unreadable_media",
        f"{path} cannot be read as a video: {reason[:200]}; copy or convert the file again",
    )
