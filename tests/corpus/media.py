"""Pictures and clips that the corpus is made of, and the bytes they are changed by."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 160, 60), (40, 60, 200), (220, 200, 40)
SIZE = (48, 40)
CLIP_SIZE = (64, 48)

#: Keeps times of writing and random numbers out of a container.
EXACT = {"fflags": "+bitexact"}
#: Called with container and stream before the first frame.
Prepare = Callable[[Any, Any], None]
Pixel = tuple[int, int, int, int, int]


def quadrants(size: tuple[int, int] = SIZE, *, turn: int = 0) -> Image.Image:
    """Return red, green over blue, yellow, so that turning and mirroring show.

    Args:
        size: Width and height in pixels.
        turn: Moves the colours on by so many corners.
    """
    width, height = size
    colours = (RED, GREEN, BLUE, YELLOW)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    halves = (slice(None, height // 2), slice(height // 2, None))
    sides = (slice(None, width // 2), slice(width // 2, None))
    for number in range(4):
        pixels[halves[number // 2], sides[number % 2]] = colours[(number + turn) % 4]
    return Image.fromarray(pixels)


def corners(
    size: tuple[int, int] = SIZE, colours: Sequence[Sequence[int]] = (RED, GREEN, BLUE, YELLOW)
) -> tuple[Pixel, ...]:
    """Return what the four quadrants of a picture look like, as `Shown.pixels` has it."""
    width, height = size
    places = [(x, y) for y in (height // 4, height - 4) for x in (width // 4, width - 4)]
    return tuple(
        (x, y, *(int(c) for c in colour))  # type: ignore[misc]
        for (x, y), colour in zip(places, colours, strict=True)
    )


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """Return a picture's file as bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Insert a chunk behind a PNG's header."""
    header_ends = 8 + 25  # signature; length, IHDR, 13 bytes and checksum
    return png[:header_ends] + png_chunk(kind, content) + png[header_ends:]


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG by hand, which may say what no library would.

    Args:
        width: In pixels, as the header says.
        height: Likewise.
        depth: Bits per channel.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
        rows: Raw rows, each after its filter byte; zlib-compressed here.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def moment(number: int, size: tuple[int, int] = CLIP_SIZE) -> np.ndarray[Any, Any]:
    """Return frame `number`: quadrants, with a white bar that wanders; uint8 [h, w, 3]."""
    pixels = np.asarray(quadrants(size)).copy()
    width = size[0]
    start = (number * 4) % (width - 4)
    pixels[size[1] // 3 : size[1] // 2, start : start + 4] = 255
    return pixels


def write_clip(  # noqa: PLR0913 - an encoder has so many settings
    path: Path,
    num_frames: int = 12,
    *,
    rate: Fraction | int = 8,
    size: tuple[int, int] = CLIP_SIZE,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    container: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """Write a clip with PyAV.

    Args:
        path: Its name's ending chooses the container, unless `form` does.
        num_frames: How many.
        rate: Frames per second.
        size: Width and height in pixels.
        codec: As ffmpeg names it.
        pixels: Pixel format of the stream.
        times: When each frame is shown, in units of 1 / rate; 0, 1, 2, ... by default.
        prepare: Sets what has no option.
        container: Options of the container.
        options: Options of the encoder.
        form: The container, as ffmpeg names it.
    """
    with av.open(str(path), "w", format=form, options={**EXACT, **(container or {})}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or _options(codec))
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.thread_count = 1
        if prepare is not None:
            prepare(output, stream)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(moment(number, size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = 1 / Fraction(rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _options(codec: str) -> dict[str, str]:
    """Return options that make an encoder fast, and its bytes the same on every machine."""
    if codec == "libx264":
        return {"preset": "ultrafast", "crf": "12"}
    return {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """Write a file that holds a tone and no picture."""
    rate = 8000
    wave = np.sin(np.arange(int(rate * seconds)) / 6).astype(np.float32)
    with av.open(str(path), "w", options=EXACT) as output:
        stream = output.add_stream("aac", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(
                wave[None, start : start + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate = rate
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, begin and end of an MP4's boxes."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        yield kind, start, start + length
        start += max(length, 8)


def find_box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Return begin and end of the first box that lies along `path`.

    Raises:
        KeyError: If there is none.
    """
    start, end = 0, len(data)
    for depth, wanted in enumerate(path):
        found = next(((b, e) for kind, b, e in boxes(data, start, end) if kind == wanted), None)
        if found is None:
            raise KeyError(wanted)
        if depth == len(path) - 1:
            return found
        start, end = found[0] + 8, found[1]
    raise KeyError("no path")


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Return bytes with some replaced, their number unchanged."""
    return data[:at] + new + data[at + len(new) :]
