"""Frames through moviepy: the second reader, for comparison.

Frame i is read at the time (i + 0.5) / fps, the middle of the moment it is shown, so that no
rounding can reach its neighbour.  For a variable frame rate moviepy works with the mean rate:
the frames then are those shown at evenly spaced times, not those with the numbers asked for.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from moviepy import VideoFileClip
from PIL import Image

from ovis_model.config import FrameSampling
from ovis_model.data.media.frames import (
    TimedFrame,
    VideoInfo,
    cut_off,
    empty_range,
    frames_between,
    unreadable,
)
from ovis_model.processing.frame_sampling import sample_frame_indices

#: Share of the promised frames that may be missing at the end.
_MAX_MISSING_FRACTION = 0.1
#: What moviepy's reading of ffmpeg's messages raises where they are not as it expects.
_UNEXPECTED = (OSError, KeyError, IndexError, AttributeError, TypeError, ValueError)


class _EndOfVideoError(Exception):
    """A frame was asked for that the file does not hold."""


def read(
    path: Path,
    info: VideoInfo,
    sampling: FrameSampling,
    *,
    start: float | None,
    end: float | None,
) -> list[TimedFrame]:
    """Decode sampled frames of a video that has been probed; see `frames.read_timed_frames`."""
    with _open(path, info) as clip, contextlib.suppress(_EndOfVideoError):
        return _decode(clip, info, _indices(path, info, info.num_frames, sampling, (start, end)))
    with _open(path, info) as clip:
        held = _count_frames(clip, info)
    if held < info.num_frames * (1 - _MAX_MISSING_FRACTION):
        raise cut_off(path, info.num_frames, held)
    with _open(path, info) as clip:
        try:
            return _decode(clip, info, _indices(path, info, held, sampling, (start, end)))
        except _EndOfVideoError as error:
            raise unreadable(path, "moviepy does not find its way by its time stamps") from error


def _indices(
    path: Path,
    info: VideoInfo,
    held: int,
    sampling: FrameSampling,
    part: tuple[float | None, float | None],
) -> list[int]:
    start, end = part
    first = 0 if start is None else frames_between(info, None, start)
    count = min(frames_between(info, start, end), held - first)
    if count < 1:
        raise empty_range(path, start, end, info.seconds)
    picked = sample_frame_indices(
        count, min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    return [first + n for n in picked]


@contextlib.contextmanager
def _open(path: Path, info: VideoInfo) -> Iterator[VideoFileClip]:
    with _missing_frames_raise():
        try:
            clip = VideoFileClip(
                str(path.absolute()), audio=False, target_resolution=(info.width, info.height)
            )
        except (*_UNEXPECTED, _EndOfVideoError) as error:
            raise unreadable(path, _last_line(error)) from error
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
        warnings.filterwarnings("ignore", message=r"(?s).*stream parsing is not supported")
        try:
            yield
        except UserWarning as warning:
            raise _EndOfVideoError(str(warning)) from warning


def _decode(clip: VideoFileClip, info: VideoInfo, indices: list[int]) -> list[TimedFrame]:
    with _missing_frames_raise():
        return [
            TimedFrame(Image.fromarray(clip.get_frame((i + 0.5) / clip.fps)), i / info.fps)
            for i in indices
        ]


def _count_frames(clip: VideoFileClip, info: VideoInfo) -> int:
    """Count by decoding; for the rare file whose packets are more than its frames."""
    for index in range(info.num_frames):
        try:
            _decode(clip, info, [index])
        except _EndOfVideoError:
            return index
    return info.num_frames


def _last_line(error: Exception) -> str:
    # ffmpeg's own last line says what is wrong; moviepy wraps it in its whole output.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
