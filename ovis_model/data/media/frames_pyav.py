"""Frames by their time stamps, through PyAV: the reader that is right whatever the frame rate.

A video is opened once.  Its packets are read without decoding, which tells when every frame is
shown; then only what the wanted frames need is decoded.  Where time stamps are missing or frames
turn out to be damaged, it is decoded from the beginning to the end, and frames are counted.

One thread: videos are read side by side by processes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from ovis_model.config import FrameSampling, MediaLimits
from ovis_model.data.media.frames import (
    TIME_TOLERANCE,
    Container,
    TimedFrame,
    VideoInfo,
    check_duration,
    check_info,
    check_size,
    cut_off,
    empty_range,
    unreadable,
)
from ovis_model.data.media.frames_index import FrameIndex, Keyframe, index_packets
from ovis_model.data.media.frames_input import (
    PROMISING_SECONDS,
    OpenVideo,
    decode,
    demux,
    header_seconds,
    open_video,
    scan,
)
from ovis_model.data.media.frames_rgb import RgbConverter
from ovis_model.errors import MediaError
from ovis_model.processing.frame_sampling import sample_frame_indices

if TYPE_CHECKING:
    from ovis_model.data.media.frames_input import VideoPacket

#: Share of the promised frames that may be missing; beyond it a file counts as cut off.
MAX_MISSING_FRACTION = 0.1
#: Codecs whose frames marked as no reference are referred to by no frame at all.  (In HEVC those
#: of a higher temporal layer may refer to them.)
_SKIPPING_IS_EXACT = ("h264", "mpeg1video", "mpeg2video", "mpeg4")


def probe(path: Path, container: Container, limits: MediaLimits) -> VideoInfo:
    """Read a video's packets and its first frame; see `frames.probe_video`."""
    with open_video(path, container, limits) as video:
        return _survey(video).info


def read(  # noqa: PLR0913 - as the function it serves
    path: Path,
    container: Container,
    sampling: FrameSampling,
    *,
    start: float | None,
    end: float | None,
    limits: MediaLimits,
) -> list[TimedFrame]:
    """Decode sampled frames; see `frames.read_timed_frames`."""
    with open_video(path, container, limits) as video:
        survey = _survey(video)
        if survey.index.pts is not None:
            chosen = _choose(path, survey.index.seconds, sampling, start, end)
            with contextlib.suppress(_DamagedError):
                found = _decode_by_time(video, survey, [survey.index.pts[i] for i in chosen])
                return [
                    TimedFrame(found[survey.index.pts[i]], survey.index.seconds[i]) for i in chosen
                ]
        seconds = _count_by_decoding(video, survey)
        chosen = _choose(path, seconds, sampling, start, end)
        images = _decode_in_order(video, survey, set(chosen))
        return [TimedFrame(images[i], seconds[i]) for i in chosen]


class _DamagedError(Exception):
    """A frame on the way to a wanted one is damaged or missing."""


@dataclass(frozen=True)
class _Survey:
    """What is known before frames are decoded."""

    info: VideoInfo
    index: FrameIndex
    promised: int
    """Frames, by the file's header or its packets."""
    stored_size: tuple[int, int]
    """Width and height of a frame as decoded, before it is turned and scaled."""
    convert: RgbConverter


def _survey(video: OpenVideo) -> _Survey:
    """Read all packets, and decode until there is a frame."""
    path, limits, stream = video.path, video.limits, video.stream
    declared = header_seconds(video)
    check_duration(path, declared, limits)
    first, packets, reached = scan(video)
    if not any(packet.is_shown for packet in packets):
        raise MediaError("no_frames", f"{path} holds no frames; replace the file")
    if first is None:
        raise unreadable(path, f"none of its {len(packets)} frames can be decoded")
    index = index_packets(
        packets,
        tick=stream.time_base or Fraction(1, 90_000),
        rates=(stream.average_rate, stream.guessed_rate),
    )
    convert = RgbConverter(stream, first)
    info = VideoInfo(
        width=convert.shown_size[0],
        height=convert.shown_size[1],
        fps=index.rate,
        num_frames=len(index.seconds),
        seconds=index.total_seconds,
        container=video.container.name,
        codec=stream.codec_context.codec.canonical_name,
        is_variable_rate=index.is_variable,
    )
    stored_size = (first.width, first.height)
    check_size(path, stored_size, limits)
    check_info(path, info, limits)
    promised = max(stream.frames, len(packets))
    promises_seconds = video.container.demuxer in PROMISING_SECONDS
    if promises_seconds and reached < declared * (1 - MAX_MISSING_FRACTION):
        promised = max(promised, round(declared * float(stream.average_rate or info.fps)))
    if len(packets) < promised * (1 - MAX_MISSING_FRACTION):
        raise cut_off(path, promised, len(packets))
    missing = promised - len(packets)
    return _Survey(info, index, info.num_frames + missing, stored_size, convert)


def _choose(
    path: Path,
    seconds: Sequence[float],
    sampling: FrameSampling,
    start: float | None,
    end: float | None,
) -> list[int]:
    first = 0.0 if start is None else start - TIME_TOLERANCE
    last = float("inf") if end is None else end - TIME_TOLERANCE
    inside = [n for n, time in enumerate(seconds) if first <= time < last]
    if not inside:
        raise empty_range(path, start, end, seconds[-1])
    picked = sample_frame_indices(
        len(inside), min_frames=sampling.min_frames, max_frames=sampling.max_frames
    )
    return [inside[n] for n in picked]


def _decode_by_time(
    video: OpenVideo, survey: _Survey, wanted: Sequence[int]
) -> dict[int, Image.Image]:
    """Decode frames by their pts, and of the others only those they refer to.

    Every stretch from a keyframe to the next is entered at most once.

    Raises:
        _DamagedError: If a wanted frame does not come, or anything decoded is damaged.
    """
    images: dict[int, Image.Image] = {}
    for keyframe, group in groupby(sorted(set(wanted)), key=survey.index.keyframe_for):
        if keyframe is None:  # the video begins in the middle of a stretch
            raise _DamagedError
        targets = set(group)
        for frame in _frames_from(video, survey, keyframe, targets):
            if frame.pts is None or (frame.is_corrupt and frame.pts >= keyframe.pts):
                raise _DamagedError
            if frame.pts in targets:
                images[frame.pts] = survey.convert(frame)
    if len(images) < len(set(wanted)):
        raise _DamagedError
    return images


def _frames_from(
    video: OpenVideo, survey: _Survey, keyframe: Keyframe, targets: set[int]
) -> Iterator[VideoFrame]:
    def fail() -> None:
        raise _DamagedError

    left = len(targets)
    for packet in _packets_from(video, survey.index, keyframe):
        is_target = packet.pts in targets
        _skip_unneeded(video.stream, not is_target)
        for frame in decode(video.stream, packet, fail):
            yield _same_size(video, survey, frame)
        left -= is_target
        if not left:
            break
    # The decoder holds frames back to sort them; nothing after the last target is needed.
    for frame in decode(video.stream, None):
        yield _same_size(video, survey, frame)


def _skip_unneeded(stream: VideoStream, unneeded: bool) -> None:
    skippable = unneeded and stream.codec_context.codec.canonical_name in _SKIPPING_IS_EXACT
    stream.codec_context.skip_frame = "NONREF" if skippable else "DEFAULT"


def _packets_from(
    video: OpenVideo, index: FrameIndex, keyframe: Keyframe
) -> Iterator["VideoPacket"]:
    """Yield the packets of the picture stream from a keyframe on."""
    for is_second_try in (False, True):
        with contextlib.suppress(FFmpegError):
            if is_second_try:
                video.rewind()
            else:
                video.seek(keyframe.seek_to)
            packets = demux(video, video.stream)
            for packet in packets:
                position = index.positions.get(packet.pts, -1) if packet.pts is not None else -1
                if position > keyframe.position:
                    break  # the seek went too far
                if position == keyframe.position:
                    yield packet
                    yield from (packet for packet in packets if packet.size)
                    return
    raise _DamagedError


def _same_size(video: OpenVideo, survey: _Survey, frame: VideoFrame) -> VideoFrame:
    if (frame.width, frame.height) != survey.stored_size:
        width, height = survey.stored_size
        raise MediaError(
            "changing_size",
            f"{video.path} has frames of {width} x {height} px and of {frame.width} x "
            f"{frame.height} px; convert it to one size",
        )
    return frame


def _frames_in_order(
    video: OpenVideo, survey: _Survey, on_error: Callable[[], None] = lambda: None
) -> Iterator[VideoFrame]:
    video.rewind()
    for packet in demux(video, video.stream):
        for frame in decode(video.stream, packet, on_error):
            yield _same_size(video, survey, frame)


def _count_by_decoding(video: OpenVideo, survey: _Survey) -> tuple[float, ...]:
    """Decode everything, and tell when each frame is shown that comes out.

    Raises:
        MediaError: If too many are damaged or missing.
    """
    pts: list[int | None] = []
    sound = 0
    for frame in _frames_in_order(video, survey):
        pts.append(frame.pts)
        sound += not frame.is_corrupt
    if not pts or sound < survey.promised * (1 - MAX_MISSING_FRACTION):
        raise cut_off(video.path, survey.promised, sound)
    if len(pts) == len(survey.index.seconds):
        return survey.index.seconds
    times = [time for time in pts if time is not None]
    is_rising = all(a < b for a, b in pairwise(times))
    if len(times) < len(pts) or not is_rising or video.stream.time_base is None:
        return tuple(n / survey.info.fps for n in range(len(pts)))
    return tuple(float((time - times[0]) * video.stream.time_base) for time in times)


def _decode_in_order(
    video: OpenVideo, survey: _Survey, places: set[int]
) -> Mapping[int, Image.Image]:
    images: dict[int, Image.Image] = {}
    for place, frame in enumerate(_frames_in_order(video, survey)):
        if place in places:
            images[place] = survey.convert(frame)
        if len(images) == len(places):
            break
    return images
