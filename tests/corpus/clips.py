"""Kinds 59 to 68: clips that are cut, timed or shown in odd ways."""

import struct
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.corpus.dataset import Dataset, Expectation, Kind
from tests.corpus.media import find_box, moment, patched, write_clip, write_sound

#: A float64 in Matroska: the duration's id, then its length.
_DURATION = b"\x44\x89\x88"
_FIVE_GB = 5 * 2**30
_VARYING = (0, 1, 2, 9, 10, 30, 31, 32, 60, 61, 80, 99)


def start(data: Dataset) -> None:
    """Write a sample with a good clip."""
    data.good()
    write_clip(data.path("videos/good.mp4"), 16)
    data.video("good-clip", "videos/good.mp4")


def add(data: Dataset, name: str, content: bytes, *codes: str, **how: Any) -> None:
    """Write a file and a sample of the same name that shows it."""
    data.path(f"videos/{name}").write_bytes(content)
    data.video(name, f"videos/{name}", *codes, **how)


def make(data: Dataset, name: str, *codes: str, warn: Any = (), **how: Any) -> bytes:
    """Encode a clip and write a sample of the same name that shows it; return its bytes."""
    path = write_clip(data.path(f"videos/{name}"), **how)
    data.video(name, f"videos/{name}", *codes, warn=warn)
    return path.read_bytes()


def clip(data: Dataset, name: str, **how: Any) -> bytes:
    """Return the bytes of a clip that is in no sample and leaves no file."""
    path = write_clip(data.path(f"videos/{name}"), **how)
    content = path.read_bytes()
    path.unlink()
    return content


def cut(data: Dataset) -> Expectation:
    start(data)
    content = clip(data, "whole.mp4", num_frames=40)
    moov = find_box(content, b"moov")[0]
    add(data, "no-index.mp4", content[:moov], "unreadable_media")
    add(data, "half-an-index.mp4", content[: moov + 200], "no_frames")
    add(data, "signature.mp4", content[:40], "unreadable_media")
    early = clip(data, "early.mp4", num_frames=40, container={"movflags": "faststart"})
    add(data, "index-first.mp4", early[: len(early) * 2 // 3], "cut_off")
    for form, codec in (("mkv", "libx264"), ("avi", "mpeg4"), ("ts", "libx264")):
        whole = clip(data, f"whole.{form}", num_frames=400, codec=codec)
        codes = () if form == "ts" else ("cut_off",)  # a stream promises nothing
        add(data, f"half.{form}", whole[: len(whole) // 2], *codes)
    return data.write("Q", "The copy was interrupted.")


def no_picture(data: Dataset) -> Expectation:
    start(data)
    for name in ("sound.mp4", "sound.mkv"):
        write_sound(data.path(f"videos/{name}"))
        data.video(name, f"videos/{name}", "no_frames")
    fragments = {"movflags": "empty_moov+frag_keyframe"}
    make(data, "frameless.mp4", "no_frames", num_frames=0, container=fragments, prepare=_begin)
    return data.write("Q", "Sound, or a stream without a frame.")


def _begin(output: Any, _: Any) -> None:
    output.start_encoding()


def odd_rates(data: Dataset) -> Expectation:
    start(data)
    make(data, "90000.mp4", "implausible_rate", rate=90_000)
    make(data, "hourly.mp4", "implausible_rate", rate=Fraction(1, 60))
    content = clip(data, "timed.mkv", num_frames=16)
    at = content.index(_DURATION) + len(_DURATION)
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        add(data, f"{name}.mkv", patched(content, at, struct.pack(">d", value)))
    negative = patched(content, at, struct.pack(">d", -1500.0))
    add(data, "negative.mkv", negative, "implausible_rate")
    still = clip(data, "still.mp4", num_frames=12)
    times = find_box(still, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")[0] + 16
    assert struct.unpack(">I", still[times : times + 4])[0] == 12
    backwards = patched(still, times + 4, struct.pack(">I", 2**32 - 512))
    add(data, "backwards.mp4", backwards, "implausible_rate")
    # All frames at once: they are counted where their times say nothing.
    add(data, "timeless.mp4", patched(still, times + 4, bytes(4)))
    return data.write("Q", "A rate nobody filmed with; a header's nonsense alone is not believed.")


def broken_promises(data: Dataset) -> Expectation:
    start(data)
    content = clip(data, "long.mkv", num_frames=16)
    at = content.index(_DURATION) + len(_DURATION)
    longer = struct.pack(">d", 20_000.0)
    add(data, "longer.mkv", patched(content, at, longer), "cut_off")
    index = clip(data, "index.mp4", num_frames=40, container={"movflags": "faststart"})
    begin, end = find_box(index, b"mdat")
    kept = begin + (end - begin) * 2 // 3
    add(data, "missing-third.mp4", index[:kept], "cut_off")
    return data.write("Q", "Fewer frames than the header says.")


def varying_rates(data: Dataset) -> Expectation:
    start(data)
    for name in ("varying.mp4", "varying.mkv"):
        make(data, name, warn=["variable_rate"], times=_VARYING)
    make(data, "late.mkv", num_frames=16, times=range(80, 96))
    make(data, "negative.mkv", num_frames=16, times=range(-3, 13))
    make(data, "reordered.mp4", num_frames=16, options={"preset": "ultrafast", "bf": "3"})
    add(data, "jumping.ts", _with_jumps(data), warn=["variable_rate"])
    return data.write("W", "Frames are taken by time, not by number.")


def _with_jumps(data: Dataset) -> bytes:
    """Return a transport stream some of whose times follow too closely."""
    source = write_clip(data.path("videos/source.ts"), 16)
    target = data.path("videos/target.ts")
    with av.open(str(source)) as read, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            packet.stream = stream
            if number in (5, 6, 11):
                packet.pts = packet.dts = (packets[number - 1].pts or 0) + 1
            output.mux(packet)
    content = target.read_bytes()
    source.unlink()
    target.unlink()
    return content


def short(data: Dataset) -> Expectation:
    start(data)
    for count in (1, 2, 7):
        make(data, f"{count}.mp4", num_frames=count, warn=["few_frames"])
    make(data, "8.mp4", num_frames=8)
    still = data.path("images/still.png")
    Image.fromarray(moment(0)).save(still)
    data.video("one-file", ["images/still.png"], warn=["few_frames"])
    return data.write("W", "Frames are repeated to fill up, and counted.")


def costly(data: Dataset) -> Expectation:
    start(data)
    make(
        data,
        "ten-hours.mp4",
        "too_long",
        num_frames=7200,
        rate=Fraction(1, 5),
        size=(32, 32),
        codec="mpeg4",
    )
    make(
        data,
        "8k.mp4",
        "too_many_pixels",
        num_frames=1,
        rate=120,
        size=(7680, 4320),
    )
    add(data, "five-gigabytes.mp4", clip(data, "small.mp4"), "too_many_bytes")
    with data.path("videos/five-gigabytes.mp4").open("r+b") as file:
        file.truncate(_FIVE_GB)  # a hole takes no room
    return data.write(
        "Q",
        "Hours, gigabytes, or more pixels than the limits allow.",
        config={"limits": {"max_pixels": 32_000_000}},
    )


def changing_frames(data: Dataset) -> Expectation:
    start(data)
    small = clip(data, "small.ts", num_frames=12)
    large = clip(data, "large.ts", num_frames=12, size=(96, 64))
    add(data, "grows.ts", small + large, later=["changing_size"])
    add(data, "grows.avi", _grown_avi(data), later=["changing_size"])
    return data.write("Q", "The first frame's size is not everybody's.", stage="extract")


def _grown_avi(data: Dataset) -> bytes:
    """Return Motion JPEG whose last frames are larger than its header says."""
    target = data.path("videos/target.avi")
    parts = [
        write_clip(data.path(f"videos/part{n}.avi"), 8, size=s, codec="mjpeg", pixels="yuvj420p")
        for n, s in enumerate(((64, 48), (96, 64)))
    ]
    with (
        av.open(str(target), "w") as output,
        av.open(str(parts[0])) as first,
        av.open(str(parts[1])) as second,
    ):
        stream = output.add_stream_from_template(first.streams.video[0])
        packets = [p for source in (first, second) for p in source.demux(video=0) if p.size]
        for number, packet in enumerate(packets):
            packet.pts = packet.dts = number
            packet.stream = stream
            output.mux(packet)
    content = target.read_bytes()
    for path in (*parts, target):
        path.unlink()
    return content


def turned(data: Dataset) -> Expectation:
    start(data)
    for degrees in (90, 180, 270):
        make(
            data,
            f"turned-{degrees}.mp4",
            num_frames=16,
            prepare=lambda _, stream, degrees=degrees: stream.set_display_rotation(degrees),
        )
    make(data, "wide-pixels.mp4", num_frames=16, prepare=_wide_pixels)
    return data.write("S", "Frames are turned upright, their pixels made square.")


def _wide_pixels(_: Any, stream: Any) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(2, 1)


def rich_pixels(data: Dataset) -> Expectation:
    start(data)
    make(data, "ten-bit.mp4", num_frames=16, pixels="yuv420p10le")
    make(data, "hdr.mp4", num_frames=16, pixels="yuv420p10le", codec="libx265", prepare=_hdr)
    make(data, "full-colour.mp4", num_frames=16, pixels="yuv444p")
    make(data, "lossless.mkv", num_frames=16, pixels="gbrp10le", codec="ffv1")
    make(data, "twelve-bit.mkv", num_frames=16, pixels="yuv422p12le", codec="ffv1")
    make(data, "alpha.mov", num_frames=16, pixels="yuva444p10le", codec="prores_ks")
    lines = {"preset": "ultrafast", "x264-params": "tff=1"}
    make(data, "interlaced.mp4", num_frames=16, options=lines)
    make(data, "grey.mp4", num_frames=16, pixels="gray")
    return data.write("S", "More bits, more colour, half pictures: all become 8-bit RGB.")


def _hdr(_: Any, stream: Any) -> None:
    bt2020, smpte2084 = 9, 16
    stream.codec_context.color_primaries = bt2020
    stream.codec_context.color_trc = smpte2084
    stream.codec_context.colorspace = bt2020


CLIPS = (
    Kind(59, "cut", cut),
    Kind(60, "no_picture", no_picture),
    Kind(61, "odd_rates", odd_rates),
    Kind(62, "broken_promises", broken_promises),
    Kind(63, "varying_rates", varying_rates),
    Kind(64, "short", short),
    Kind(65, "costly", costly),
    Kind(66, "changing_frames", changing_frames),
    Kind(67, "turned", turned),
    Kind(68, "rich_pixels", rich_pixels),
)
