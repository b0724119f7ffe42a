"""When the frames of a video are shown, worked out from its packets alone.

Packets come in the order in which they are decoded; each says when its frame is shown.  Times are
counted from the first shown frame.  Nothing here knows a video library.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Seconds, float64 [num_frames].
Times = NDArray[np.floating[Any]]
#: Share of a frame's duration by which the frames of a constant rate may lie off their places.
MAX_JITTER = 0.05


class PacketFact(NamedTuple):
    """One packet of the picture stream; times are in ticks of the stream's clock."""

    pts: int | None
    """When its frame is shown."""
    dts: int | None
    """When it is decoded."""
    duration: int
    is_keyframe: bool
    is_shown: bool
    """False for a packet that is only decoded, such as those before an edit's beginning."""


class Keyframe(NamedTuple):
    """A packet that decoding can begin with."""

    pts: int
    position: int
    """Its place among the packets, in decoding order."""
    seek_to: int
    """A time in ticks that lies neither behind its dts nor behind its pts."""


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a video in the order in which they are shown.

    Attributes:
        seconds: When each is shown.
        pts: The same in ticks of the stream's clock; None if packets do not tell them apart, so
            that frames can only be counted by decoding.
        rate: Mean frames per second; NaN if nothing tells.
        is_variable: Whether frames lie off an even grid.  If not, `seconds` are the grid's times,
            without the rounding of the container.
        total_seconds: From the first frame to the end of the last.
        positions: Place of every packet in decoding order, by pts.
        keyframes: In order of pts.
    """

    seconds: tuple[float, ...]
    pts: tuple[int, ...] | None
    rate: float
    is_variable: bool
    total_seconds: float
    positions: dict[int, int]
    keyframes: tuple[Keyframe, ...]

    def keyframe_for(self, pts: int) -> Keyframe | None:
        """Return the last keyframe that is not shown after the frame, or None.

        Frames that a keyframe precedes in decoding but not in time may need an earlier one.
        """
        at = bisect_right(self.keyframes, pts, key=lambda keyframe: keyframe.pts)
        return self.keyframes[at - 1] if at else None


def index_packets(
    packets: Sequence[PacketFact], *, tick: Fraction, rates: Sequence[Fraction | None]
) -> FrameIndex:
    """Put packets in the order in which their frames are shown.

    Args:
        packets: In decoding order, at least one of them shown.
        tick: Seconds per unit of the stream's clock.
        rates: Frame rates that the container claims, the likeliest first.
    """
    claimed = [float(rate) for rate in rates if rate]
    known = [packet.pts for packet in packets if packet.pts is not None]
    if len(set(known)) < len(packets):
        return _index_of_places(sum(packet.is_shown for packet in packets), claimed)
    shown = sorted(
        (packet.pts, packet.duration)
        for packet in packets
        if packet.is_shown and packet.pts is not None
    )
    pts = tuple(time for time, _ in shown)
    offsets = (np.array(pts, dtype=np.int64) - pts[0]) * float(tick)
    last = shown[-1][1] * float(tick)
    mean = _mean_rate(offsets, last)
    grid = next((rate for rate in [*claimed, mean] if _fits(offsets, rate, float(tick))), None)
    if grid is None:
        rate = mean
        total = float(offsets[-1]) + (last or 1 / mean)
    else:
        rate = grid
        total = len(pts) / grid
    return FrameIndex(
        seconds=tuple(float(s) for s in offsets) if grid is None else _grid(len(pts), grid),
        pts=pts,
        rate=rate,
        is_variable=grid is None,
        total_seconds=total,
        positions={packet.pts: n for n, packet in enumerate(packets) if packet.pts is not None},
        keyframes=_keyframes(packets),
    )


def _mean_rate(offsets: Times, last: float) -> float:
    if len(offsets) > 1:
        return (len(offsets) - 1) / float(offsets[-1])
    return 1 / last if last > 0 else math.nan


def _index_of_places(count: int, claimed: Sequence[float]) -> FrameIndex:
    rate = claimed[0] if claimed else math.nan
    return FrameIndex(
        seconds=_grid(count, rate),
        pts=None,
        rate=rate,
        is_variable=False,
        total_seconds=count / rate,
        positions={},
        keyframes=(),
    )


def _grid(count: int, rate: float) -> tuple[float, ...]:
    return tuple(n / rate for n in range(count))


def _fits(offsets: Times, rate: float, tick: float) -> bool:
    """Tell whether frames lie on the grid of a rate, as well as the container's clock can say."""
    off_place = np.abs(offsets - np.arange(len(offsets)) / rate).max()
    return bool(off_place <= max(tick, MAX_JITTER / rate))


def _keyframes(packets: Sequence[PacketFact]) -> tuple[Keyframe, ...]:
    found = [
        Keyframe(packet.pts, n, packet.pts if packet.dts is None else min(packet.pts, packet.dts))
        for n, packet in enumerate(packets)
        if packet.is_keyframe and packet.pts is not None
    ]
    return tuple(sorted(found))
