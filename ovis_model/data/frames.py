"""Frames out of video files: the one place that opens videos, through moviepy.

Frame i is read at the time (i + 0.5) / fps, the middle of the moment it is shown, so that no
rounding can reach its neighbour.  For a variable frame rate moviepy works with the mean rate:
the frames then are those shown at evenly spaced times, not those with the numbers asked for.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moviepy import VideoFileClip
from moviepy.video.io.ffmpeg_reader import ffmpeg_parse_infos
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.images import MAX_PIXELS
from ovis_model.errors import DataError
from ovis_model.processing.frame_sampling import sample_frame_indices

#: First bytes of the containers that are read, as (offset, bytes).  ffmpeg would also follow
#: playlists and scripts that name other files and addresses; those are no videos here.
_CONTAINERS = (
    (4, b"ftyp"),  # mp4, mov
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (4, b"free"),
    (0, b"\x1a\x45\xdf\xa3"),  # mkv, webm
    (8, b"AVI "),
    (0, b"\x00\x00\x01\xba"),  # mpg
    (0, b"\x47"),  # ts
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"GIF8"),
)
#: Share of the promised frames that may be missing at the end (sound often runs a bit longer
#: than the picture); beyond it the file counts as cut off.
_MAX_MISSING_FRACTION = 0.1


@dataclass(frozen=True)
class VideoInfo:
    """What a video says about itself; num_frames is duration times rate, not counted."""

    width: int
    height: int
    fps: float
    num_frames: int


class _EndOfVideoError(Exception):
    """A frame was asked for that the file does not hold."""


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header, without decoding its frames.

    Raises:
        DataError: If it is no video, has no picture, no frames or too large ones.
    """
    _check_container(path)
    try:
        found = ffmpeg_parse_infos(str(path.absolute()))
    except OSError as error:
        raise _unreadable(path, error) from error
    size, fps = found.get("video_size"), found.get("video_fps")
    if not found.get("video_found") or not size or not fps:
        raise DataError(f"{path} holds no video stream that ffmpeg can read")
    return _checked(path, tuple(size), float(fps), float(found["duration"]))


def read_frames(path: Path, sampling: FrameSampling) -> list[Image.Image]:
    """Decode the sampled frames of a video.

    Args:
        path: A video file.
        sampling: How many frames to take; where they lie is `sample_frame_indices`' decision.

    Returns:
        RGB frames in order of time; a short video repeats frames.

    Raises:
        DataError: If the file is no video, is broken, or holds fewer frames than it promises.
    """
    with _open(path) as clip:
        promised = _checked(path, tuple(clip.size), clip.fps, clip.duration).num_frames
        with contextlib.suppress(_EndOfVideoError):
            return _decode(clip, _indices(promised, sampling))
    with _open(path) as clip:
        held = _count_frames(clip, promised)
    if held < promised * (1 - _MAX_MISSING_FRACTION):
        raise DataError(
            f"{path} promises {promised} frames but holds {held}: it is cut off or damaged; "
            "replace it or remove its sample"
        )
    with _open(path) as clip:
        return _decode(clip, _indices(held, sampling))


def _indices(num_frames: int, sampling: FrameSampling) -> list[int]:
    return sample_frame_indices(
        num_frames, min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[VideoFileClip]:
    _check_container(path)
    with _missing_frames_raise():
        try:
            clip = VideoFileClip(str(path.absolute()), audio=False)
        except (OSError, KeyError, _EndOfVideoError) as error:
            raise _unreadable(path, error) from error
        try:
            yield clip
        finally:
            _close(clip)


def _close(clip: VideoFileClip) -> None:
    # moviepy leaves the pipes of a decoder open that ended by itself.
    process = clip.reader.proc
    clip.close()
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    process.wait()


@contextlib.contextmanager
def _missing_frames_raise() -> Iterator[None]:
    # moviepy warns and repeats the last frame; a repeated frame must not pass for a real one.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"(?s).*bytes wanted but", category=UserWarning)
        try:
            yield
        except UserWarning as warning:
            raise _EndOfVideoError(str(warning)) from warning


def _decode(clip: VideoFileClip, indices: list[int]) -> list[Image.Image]:
    with _missing_frames_raise():
        return [Image.fromarray(clip.get_frame((i + 0.5) / clip.fps)) for i in indices]


def _count_frames(clip: VideoFileClip, promised: int) -> int:
    """Count by decoding; for the rare file whose header is wrong."""
    for index in range(promised):
        try:
            _decode(clip, [index])
        except _EndOfVideoError:
            return index
    return promised


def _checked(path: Path, size: tuple[int, ...], fps: float, duration: float) -> VideoInfo:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path} has frames of {width} x {height} px; scale it down")
    # Rounded, not cut off: ffmpeg gives the duration in hundredths of a second.
    num_frames = round(duration * fps)
    if num_frames < 1:
        raise DataError(f"{path} holds no frames ({duration} s at {fps} frames/s)")
    return VideoInfo(width, height, fps, num_frames)


def _check_container(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not any(head[at : at + len(magic)] == magic for at, magic in _CONTAINERS):
        raise DataError(
            f"{path} is not a video container that is read here (mp4, mov, mkv, webm, avi, mpg, "
            f"ts, flv, ogg, gif); it begins with {head[:8]!r}"
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    # ffmpeg's own last line says what is wrong; moviepy wraps it in its whole output.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return DataError(f"{path} cannot be read as a video: {reason[:200]}")
