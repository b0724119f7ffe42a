"""Kinds 69 to 76: clips that are damaged, slow, somewhere else, locked, or not alone."""

import struct
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests.corpus.clips import CLIPS, add, clip, make, start
from tests.corpus.dataset import Dataset, Expectation, Kind
from tests.corpus.media import Prepare, find_box, moment, patched, quadrants, write_clip
from tests.corpus.slow_media import slow_clip, slow_jpeg

#: More streams than any film has.
_STREAMS = 80
_TOO_MANY_FRAMES = 10_001


def damaged(data: Dataset) -> Expectation:
    start(data)
    content = clip(data, "whole.mp4", num_frames=40, size=(128, 96))
    begin, end = find_box(content, b"mdat")
    third = (end - begin) // 3
    add(data, "zeros.mp4", patched(content, begin + third, bytes(third)), later=["cut_off"])
    noise = bytes((n * 197 + 31) % 256 for n in range(third))
    add(data, "noise.mp4", patched(content, begin + third, noise), later=["cut_off"])
    flips = content
    for at in range(begin + third, begin + 2 * third, 61):
        flips = patched(flips, at, bytes([flips[at] ^ 0x10]))
    add(data, "flips.mp4", flips, later=["cut_off"])
    return data.write(
        "Q", "Frames that cannot be decoded are not replaced by their neighbours.", stage="extract"
    )


def endless(data: Dataset) -> Expectation:
    start(data)
    slow_clip(data.path("videos/slow.webm"))
    data.video("slow-clip", "videos/slow.webm", later=["decoder_timeout"])
    data.path("images/slow.jpg").write_bytes(slow_jpeg())
    data.image("slow-picture", "images/slow.jpg", "decoder_timeout")
    return data.write(
        "Q",
        "Small files that keep a decoder busy are given up on.",
        config={"limits": {"decode_seconds": 1.0}},
    )


def playlists(data: Dataset) -> Expectation:
    start(data)
    secret = write_clip(data.path("secret.mp4", below="outside")).absolute()
    texts = {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "hls-address": "#EXTM3U\n#EXTINF:1,\nhttp://host.invalid/a.ts\n#EXT-X-ENDLIST\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "session.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "manifest.mpd": '<?xml version="1.0"?><MPD><BaseURL>file:///etc/</BaseURL></MPD>',
        "clip.avs": 'DirectShowSource("http://host.invalid/a.avi")\n',
        "image.txt": f"concat:{secret}|{secret}",
    }
    for name, text in texts.items():
        add(data, name, text.encode(), "wrong_format")
        add(data, f"{Path(name).stem}.mp4", text.encode(), "wrong_format")
    data.video("concat", f"concat:{secret}", "unsafe_path")
    # To ffmpeg an address, here a name, of nothing.
    data.video("subfile", "subfile,,start,0,end,9,,:videos/good.mp4", "missing_media")
    content = clip(data, "own.mp4", num_frames=16)
    elsewhere = _with_reference(content, str(secret))
    add(data, "reference.mp4", elsewhere, "no_frames")
    return data.write("Q", "A playlist names other files; none is opened.")


def _with_reference(content: bytes, path: str) -> bytes:
    """Make an MP4 say, with an alias as Macintoshes had them, that its data is elsewhere."""
    way = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    name = path.encode()
    name += bytes(len(name) % 2)
    # Counted bytes are those that ffmpeg's demuxer reads or skips, one after the other.
    alias = bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12) + b"\x06secret".ljust(64, b"\0")
    alias += bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    begin, end = find_box(content, *way)
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    grown = len(new) - (end - begin)
    whole = content[:begin] + new + content[end:]
    for depth in range(1, len(way)):
        at = find_box(content, *way[:depth])[0]
        size = struct.unpack(">I", content[at : at + 4])[0]
        whole = patched(whole, at, struct.pack(">I", size + grown))
    return whole


def odd_names(data: Dataset) -> Expectation:
    start(data)
    movie = (data.raw / "videos/good.mp4").read_bytes()
    names = (
        *("-y.mp4", "-i", "%03d.mp4", "a:b.mp4", "two words.mp4", "line\nbreak.mp4"),
        *("'; touch canary; '.mp4", "$(touch canary).mp4", "*.mp4", "[a].mp4", "\N{BUG}.mp4"),
        *("q?x=1#y.mp4", "back\\slash.mp4", "ends with dot.", "n" * 200 + ".mp4"),
    )
    for number, name in enumerate(names):
        data.path(f"videos/{name}").write_bytes(movie)
        data.video(f"video-{number}", f"videos/{name}")
        data.path(f"images/{name}.png")
        quadrants().save(data.path(f"images/{name}.png"))
        data.image(f"image-{number}", f"images/{name}.png")
    (data.raw / "-loglevel.mp4").write_bytes(movie)
    data.video("top", "-loglevel.mp4")
    data.image("nul", "images/a\0.png", "unsafe_path")
    data.image("half", "images/\ud83d.png", "not_json")
    return data.write("S", "A name is a name, never an option, a pattern or a command.")


def locked(data: Dataset) -> Expectation:
    start(data)
    cipher = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "00" * 16,
        "encryption_kid": "11" * 16,
    }
    make(data, "cipher.mp4", "unknown_codec", num_frames=16, container=cipher)
    content = clip(data, "plain.mp4", num_frames=16)
    add(data, "labelled.mp4", _with_sample_entry(content, b"encv"), "unknown_codec")
    return data.write("Q", "Without its key a film is noise.")


def _with_sample_entry(content: bytes, kind: bytes) -> bytes:
    """Give the picture track of an MP4 another codec's name."""
    at = find_box(content, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")[0]
    return patched(content, at + 16 + 4, kind)


def unknown_codecs(data: Dataset) -> Expectation:
    start(data)
    content = clip(data, "plain.mp4", num_frames=16)
    add(data, "unheard-of.mp4", _with_sample_entry(content, b"zzzz"), "unknown_codec")
    film = clip(data, "plain.avi", num_frames=16, codec="mpeg4")
    strange = film.replace(b"FMP4", b"ZZZZ")
    assert strange != film
    add(data, "unheard-of.avi", strange, "unknown_codec")
    matroska = clip(data, "plain.mkv", num_frames=16)
    strange = matroska.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG9/ISO/ZZZ")
    assert strange != matroska
    add(data, "unheard-of.mkv", strange, "unknown_codec")
    return data.write("Q", "The message names the codec.")


def frame_lists(data: Dataset) -> Expectation:
    start(data)
    for number in range(10):
        Image.fromarray(moment(number)).save(data.path(f"frames/{number}.png"))
    quadrants((96, 40)).save(data.path("frames/wide.png"))
    data.path("frames/page.png").write_text("<html>404</html>", encoding="utf-8")
    frames = [f"frames/{number}.png" for number in range(10)]
    data.video("whole", frames)
    data.video("backwards", frames[::-1])
    data.video("missing-one", [*frames, "frames/10.png"], "missing_media")
    data.video("mixed-sizes", [*frames, "frames/wide.png"], "frame_sizes")
    data.video("web-page", [*frames, "frames/page.png"], "wrong_format")
    data.video("clip-as-frame", [*frames, "videos/good.mp4"], "wrong_format")
    data.video("nested", [frames], "schema")
    data.video("number", [*frames, 10], "schema")
    data.video("too-many", ["frames/0.png"] * _TOO_MANY_FRAMES, "too_many_frames")
    return data.write("Q", "A list of frames; that its order is wrong, nobody can tell.")


def crowds(data: Dataset) -> Expectation:
    start(data)
    for name in ("crowd.mkv", "crowd.mp4"):
        fragments = {"movflags": "empty_moov+frag_keyframe"} if name.endswith("4") else {}
        path = data.path(f"videos/{name}")
        write_clip(path, prepare=_add_sounds(_STREAMS), container=fragments)
        data.video(name, f"videos/{name}", "too_many_streams")
    subtitles = data.path("subtitles.srt", below="outside")
    subtitles.write_text("1\n00:00:00,000 --> 00:00:01,000\nHi!\n", encoding="utf-8")
    with av.open(str(subtitles)) as texts:
        make(data, "company.mkv", num_frames=16, prepare=_add_company(texts))
    return data.write("Q", "Sound, subtitles and fonts are never decoded; 64 streams are enough.")


def _add_sounds(count: int) -> Prepare:
    def prepare(output: Any, _: Any) -> None:
        for _ in range(count):
            output.add_stream("aac", rate=8000)

    return prepare


def _add_company(texts: Any) -> Prepare:
    def prepare(output: Any, _: Any) -> None:
        _add_sounds(2)(output, None)
        lines = output.add_stream_from_template(texts.streams.subtitles[0])
        for number in range(3):
            output.add_attachment(f"{number}.ttf", "font/ttf", bytes(200_000))
        for packet in texts.demux():
            if packet.size:
                packet.stream = lines
                output.mux(packet)

    return prepare


VIDEOS = (
    *CLIPS,
    Kind(69, "damaged", damaged),
    Kind(70, "slow", endless),
    Kind(71, "playlists", playlists),
    Kind(72, "odd_names", odd_names),
    Kind(73, "locked", locked),
    Kind(74, "unknown_codecs", unknown_codecs),
    Kind(75, "frame_lists", frame_lists),
    Kind(76, "crowds", crowds),
)
