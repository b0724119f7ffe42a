"""Opening a video with PyAV, and reading its packets.

Only what `frames.find_container` named may be opened: one demuxer, one protocol, one file.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ovis_model.config import MediaLimits
from ovis_model.data.media.frames import Container, check_size, unreadable
from ovis_model.data.media.frames_index import PacketFact
from ovis_model.errors import MediaError

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext

    VideoPacket: TypeAlias = Packet[VideoStream]

#: Sound, subtitles and attachments included.
MAX_STREAMS = 64
#: Packets without a decoded frame after which a video is given up.
_MAX_SILENT_PACKETS = 1000
#: Demuxers whose header says how long the video is; the others guess it from what is there.
_DECLARING = ("mov", "avi", "matroska", "flv")
#: Of these, those that do not also say how many frames there are: all streams are read, to tell
#: a file that is cut off from one with more sound than pictures.
PROMISING_SECONDS = ("matroska", "flv")


@dataclass
class OpenVideo:
    """A file that is open, at any place."""

    path: Path
    container: Container
    limits: MediaLimits
    input: InputContainer
    stream: VideoStream

    def seek(self, time: int) -> None:
        """Go to a keyframe that is not behind the time, in ticks of the stream's clock."""
        self.input.seek(time, stream=self.stream)

    def rewind(self) -> None:
        """Open it anew: unlike seeking, this begins at the first packet of any file."""
        self.input.close()
        self.input, self.stream = _open(self.path, self.container, self.limits)


@contextlib.contextmanager
def open_video(path: Path, container: Container, limits: MediaLimits) -> Iterator[OpenVideo]:
    """Open a video; whatever goes wrong in the library, also later, is blamed on the file.

    Raises:
        MediaError: If it cannot be read, or has no picture stream that can be.
    """
    try:
        video = OpenVideo(path, container, limits, *_open(path, container, limits))
        try:
            yield video
        finally:
            video.input.close()
    except (FFmpegError, ValueError) as error:  # ValueError: what PyAV has no word for
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from error


def _open(
    path: Path, container: Container, limits: MediaLimits
) -> tuple[InputContainer, VideoStream]:
    # Twice, because decoders count whole blocks; the frames themselves are checked later.
    allowed = str(2 * limits.max_pixels)
    opened = av.open(
        # With the protocol in front no character of the name has a meaning.
        f"file:{path.absolute()}",
        format=container.demuxer,
        metadata_errors="replace",
        options={
            "protocol_whitelist": "file",
            "enable_drefs": "0",
            "max_streams": "5000",  # to be counted below
            "max_pixels": allowed,
        },
    )
    with contextlib.ExitStack() as on_error:
        on_error.callback(opened.close)
        stream = _picture_stream(path, opened, limits)
        on_error.pop_all()
    for other in opened.streams:
        if other.index != stream.index and container.demuxer not in PROMISING_SECONDS:
            other.discard = Discard.all
    context = stream.codec_context
    context.thread_count = 1
    context.thread_type = "NONE"
    context.options = {"max_pixels": allowed}
    return opened, stream


def _picture_stream(path: Path, opened: InputContainer, limits: MediaLimits) -> VideoStream:
    if len(opened.streams) > MAX_STREAMS:
        raise MediaError(
            "too_many_streams",
            f"{path} has {len(opened.streams)} streams, above the limit of {MAX_STREAMS}; keep "
            "the picture stream alone",
        )
    streams = [s for s in opened.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        raise MediaError(
            "no_frames", f"{path} holds no picture stream, only sound or data; replace the file"
        )
    stream = max(streams, key=_preference)
    # PyAV has no decoder's context for what it has no decoder for, whatever its types say.
    context = cast("VideoCodecContext | None", stream.codec_context)
    if context is None:
        raise _unknown_codec(path, f"{_codec_words(opened)!r}, which is not known here")
    size = (context.width, context.height)
    if size[0] * size[1] > limits.max_pixels:
        check_size(path, size, limits)
    return stream


def _unknown_codec(path: Path, what: str) -> MediaError:
    return MediaError(
        "unknown_codec", f"{path} has pictures in the codec {what}; convert it to H.264"
    )


def _codec_words(opened: InputContainer) -> str:
    """Return what ffmpeg would print as the codec of the picture stream."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        text = cast("Any", opened).dumps_format()  # documented, but not among its types
    finally:
        av.logging.set_level(level)
    found = re.search(r"Video: ([^,\n]{1,100})", text)
    return found.group(1) if found else "unknown"


def _preference(stream: VideoStream) -> tuple[int, int]:
    """Rank picture streams as the ffmpeg program does, so that moviepy shows the same one."""
    if stream.codec_context is None:
        return (0, -stream.index)
    is_default = bool(stream.disposition & stream.disposition.default)
    area = stream.codec_context.width * stream.codec_context.height
    return (area + 5_000_000 * is_default + 1, -stream.index)


def header_seconds(video: OpenVideo) -> float:
    """Return how long the header says the video lasts, or 0 if it does not.

    Raises:
        MediaError: If that is negative.
    """
    duration = video.input.duration
    if duration is None or video.container.demuxer not in _DECLARING:
        return 0.0
    seconds = float(duration / av.time_base)
    if seconds < 0:
        raise MediaError(
            "implausible_rate", f"{video.path} claims to last {seconds:g} s; convert it again"
        )
    return seconds


def scan(video: OpenVideo) -> tuple[VideoFrame | None, list[PacketFact], float]:
    """Read all packets.

    Returns:
        The first frame that could be decoded, the packets of the picture stream in decoding
        order, and the time in seconds that the packets of any stream reach.

    Raises:
        MediaError: If the pictures are encrypted.
    """
    first: VideoFrame | None = None
    packets: list[PacketFact] = []
    reached = 0.0
    begin = (video.input.start_time or 0) / av.time_base
    all_streams = video.container.demuxer in PROMISING_SECONDS
    for packet in demux(video, None if all_streams else video.stream):
        if packet.pts is not None and packet.time_base:
            ends = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            reached = max(reached, ends, ends - begin)
        if packet.stream_index != video.stream.index:
            continue
        if packet.size:
            packets.append(_fact(packet))
        if first is None and len(packets) <= _MAX_SILENT_PACKETS:
            if packet.has_sidedata("encryption_info"):
                codec = video.stream.codec_context.codec.canonical_name
                raise _unknown_codec(video.path, f"{codec!r}, encrypted")
            first = next(iter(decode(video.stream, packet)), None)
    return first, packets, reached


def _fact(packet: "VideoPacket") -> PacketFact:
    return PacketFact(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        is_keyframe=packet.is_keyframe,
        is_shown=not packet.is_discard,
    )


def demux(video: OpenVideo, stream: VideoStream | None) -> Iterator["VideoPacket"]:
    """Yield the packets of a stream, or of all, and in the end an empty one of each."""
    demuxed = video.input.demux() if stream is None else video.input.demux(stream)
    packets = cast("Iterator[VideoPacket]", demuxed)
    # A file that ends in the middle of a packet holds what came before.
    with contextlib.suppress(FFmpegError):
        yield from packets


def decode(
    stream: VideoStream,
    packet: "VideoPacket | None",
    on_error: Callable[[], None] = lambda: None,
) -> list[VideoFrame]:
    """Decode a packet; None or an empty one brings what the decoder has held back.

    Args:
        stream: The picture stream.
        packet: One of its packets.
        on_error: Called if the packet is damaged, which then gives no frame.
    """
    try:
        return stream.codec_context.decode(packet if packet is not None and packet.size else None)
    except FFmpegError:
        on_error()
        return []
