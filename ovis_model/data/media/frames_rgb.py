"""Upright 8-bit RGB with square pixels out of decoded frames, whatever they are stored as."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What turns a stored frame upright, by the signs of a display matrix' left upper corner.
_UPRIGHT: dict[tuple[int, int, int, int], tuple[tuple[str, str | None], ...]] = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, 1): (("hflip", None),),
    (1, 0, 0, -1): (("vflip", None),),
    (-1, 0, 0, -1): (("hflip", None), ("vflip", None)),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}


class RgbConverter:
    """Makes upright RGB with square pixels out of decoded frames.

    It runs the filters that the ffmpeg program would run, with the scaling that moviepy asks for,
    so that both readers give the same bytes.
    """

    def __init__(self, stream: VideoStream, first: VideoFrame) -> None:
        self._time_base = stream.time_base  # the stream itself may be closed and opened anew
        self._turns = _UPRIGHT[_orientation(first)]
        width, height = first.width, first.height
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if aspect > 0:
            width = max(1, round(width * aspect))
        is_on_its_side = any(name == "transpose" for name, _ in self._turns)
        self.shown_size = (height, width) if is_on_its_side else (width, height)
        self._graphs: dict[tuple[object, ...], Graph] = {}

    def __call__(self, frame: VideoFrame) -> Image.Image:
        """Return the frame as it is shown."""
        key = (frame.format.name, frame.colorspace, frame.color_range, frame.interlaced_frame)
        if key not in self._graphs:
            self._graphs[key] = self._graph(frame)
        graph = self._graphs[key]
        graph.vpush(frame)
        return Image.fromarray(graph.vpull().to_ndarray())

    def _graph(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        width, height = self.shown_size
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=self._time_base,
            ),
            *(graph.add(name, argument) for name, argument in self._turns),
            graph.add("scale", f"{width}:{height}:flags=bicubic"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ).configure()
        return graph


def _orientation(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return the signs of the nearest matrix of `_UPRIGHT`."""
    found = cast("Mapping[str, Any]", frame.side_data).get("DISPLAYMATRIX")
    if found is None:
        return (1, 0, 0, 1)
    matrix = np.frombuffer(bytes(found), dtype="<i4")
    a, b, c, d = (int(matrix[n]) for n in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)
