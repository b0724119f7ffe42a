"""Small, legal files that take a decoder many seconds."""

import struct
from pathlib import Path

import av
import numpy as np

from tests.corpus.media import EXACT

#: Frames that repeat the one before, each a few bytes to store and a whole picture to make.
_REPEATS = 2000
_CLIP_SIZE = (3840, 2160)
#: Progressive JPEG: each scan refines the whole picture by nothing.
_SCANS = 1500
_JPEG_SIDE = 7680
#: Blocks without a coefficient that one end-of-band code may span.
_MAX_RUN = 32_767


def slow_clip(path: Path) -> None:
    """Write a clip of one key frame and thousands that copy it."""
    width, height = _CLIP_SIZE
    picture = np.random.default_rng(0).integers(0, 255, (height // 240, width // 240, 3), np.uint8)
    picture = np.kron(picture, np.ones((240, 240, 1), np.uint8))
    with av.open(str(path), "w", options=EXACT) as output:
        # Every frame is coded as if it alone followed the key frame.
        options = {"deadline": "realtime", "cpu-used": "16", "error-resilient": "default"}
        stream = output.add_stream("libvpx", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = 1000
        packets = []
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode()
        key, copies = bytes(packets[0]), bytes(packets[1])
        for number in range(_REPEATS):
            packet = av.Packet(key if number == 0 else copies)
            packet.pts = packet.dts = number
            packet.time_base = packets[0].time_base
            packet.is_keyframe = number == 0
            packet.stream = stream
            output.mux(packet)


def slow_jpeg() -> bytes:
    """Return a progressive JPEG of many scans that say nothing, about a large picture."""
    blocks = (_JPEG_SIDE // 8) ** 2
    frame = struct.pack(">BHHB", 8, _JPEG_SIDE, _JPEG_SIDE, 1) + bytes((1, 0x11, 0))
    parts = [
        b"\xff\xd8",
        _segment(0xDB, bytes([0]) + bytes([1] * 64)),  # quantisation
        _segment(0xC2, frame),
        # One code each, of one bit: no difference to the block before; a run of 2**14 blocks.
        _segment(0xC4, bytes([0x00]) + bytes([1] + [0] * 15) + bytes([0])),
        _segment(0xC4, bytes([0x10]) + bytes([1] + [0] * 15) + bytes([0xE0])),
        _segment(0xDA, bytes((1, 1, 0x00, 0, 0, 0))) + _bits("0" * blocks),
    ]
    scan = _segment(0xDA, bytes((1, 1, 0x00, 1, 63, 0))) + _bits(_runs(blocks))
    return b"".join(parts) + scan * _SCANS + b"\xff\xd9"


def _runs(blocks: int) -> str:
    """Say in bits that no block has a coefficient, in runs of up to `_MAX_RUN` blocks."""
    bits = ""
    while blocks:
        run = min(max(blocks, 1 << 14), _MAX_RUN)
        bits += "0" + format(run - (1 << 14), "014b")
        blocks = max(blocks - run, 0)
    return bits


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _bits(bits: str) -> bytes:
    """Pack bits as a scan has them: filled up with ones, 0xFF followed by a zero byte."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
