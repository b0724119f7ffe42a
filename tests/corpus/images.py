"""Kinds 48 to 58: pictures that move, say nothing, carry something else, or change."""

import io
import struct
import time
import zipfile
import zlib

import numpy as np
from PIL import Image

from tests.corpus.dataset import Dataset, Expectation, Kind
from tests.corpus.media import (
    SIZE,
    corners,
    encoded,
    patched,
    png,
    png_chunk,
    quadrants,
    with_chunk,
)
from tests.corpus.pictures import LOSSY, PICTURES, add, jpeg, start

#: Metadata that decompresses to this many bytes.
_BOMB_BYTES = 32 * 2**20
_MAX_SIDE = 65_535


def animated(data: Dataset) -> Expectation:
    start(data)
    pages = [quadrants(turn=turn) for turn in range(3)]
    for name, form in (("film.gif", "GIF"), ("film.png", "PNG"), ("film.webp", "WEBP")):
        content = encoded(pages[0], form, save_all=True, append_images=pages[1:], duration=100)
        add(data, name, content, "animated")
    pages_of_tiff = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    add(data, "pages.tiff", pages_of_tiff, "animated")
    stereo = encoded(pages[0], "MPO", save_all=True, append_images=pages[1:2], quality=95)
    data.shows(add(data, "phone.jpg", stereo), SIZE, *corners(), tolerance=LOSSY)
    data.shows(add(data, "still.gif", encoded(pages[0], "GIF")), SIZE, *corners())
    return data.write("Q", "A film is no picture; a phone's preview beside it is no film.")


def tiny(data: Dataset) -> Expectation:
    start(data)
    for size in ((1, 1), (1, 64), (64, 1)):
        add(data, f"{size[0]}x{size[1]}.png", encoded(_spots(size), "PNG"), "too_small")
    for size in ((2, 2), (3, 60), (27, 27)):
        file = add(data, f"{size[0]}x{size[1]}.png", encoded(_spots(size), "PNG"))
        data.shows(file, size)
    return data.write("Q", "A side of one pixel shows nothing; below 28 px it is enlarged.")


def _spots(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(size[0]).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def ribbons(data: Dataset) -> Expectation:
    start(data)
    for size in ((402, 2), (2, 402), (3000, 10)):
        add(data, f"{size[0]}x{size[1]}.png", encoded(_spots(size), "PNG"), "extreme_shape")
    for size in ((400, 2), (2, 400)):
        add(data, f"{size[0]}x{size[1]}.png", encoded(_spots(size), "PNG"))
    return data.write("Q", "Resizing to the model's limits would distort it.")


def blank(data: Dataset) -> Expectation:
    start(data)
    for colour in ("black", "white", "teal"):
        content = encoded(Image.new("RGB", SIZE, colour), "PNG")
        add(data, f"{colour}.png", content, warn=["blank"])
    hidden = quadrants()
    hidden.putalpha(0)
    add(data, "hidden.png", encoded(hidden, "PNG"), warn=["blank"])
    return data.write("W", "There may be nothing to see.")


def false_sizes(data: Dataset) -> Expectation:
    start(data)
    few = bytes(64)
    wide = png(_MAX_SIDE, _MAX_SIDE, depth=8, colour=2, rows=few)
    add(data, "wide.png", wide, "too_many_pixels")
    widest = png(2**31 - 1, 2**31 - 1, depth=8, colour=2, rows=few)
    add(data, "widest.png", widest, "too_many_pixels")
    promising = png(8_000, 4_000, depth=8, colour=0, rows=few)
    add(data, "promising.png", promising, "unreadable_media")
    for name, sides in (("no-width.png", (0, 40)), ("no-height.png", (48, 0))):
        content = png(*sides, depth=8, colour=2, rows=few)
        add(data, name, content, "unreadable_media")
    picture = jpeg(quadrants())
    add(data, "wide.jpg", _with_jpeg_size(picture, _MAX_SIDE, _MAX_SIDE), "too_many_pixels")
    add(data, "promising.jpg", _with_jpeg_size(picture, 4_000, 4_000), "unreadable_media")
    add(data, "no-height.jpg", _with_jpeg_size(picture, 48, 0), "unreadable_media")
    screen = patched(encoded(quadrants(), "GIF"), 6, struct.pack("<HH", _MAX_SIDE, _MAX_SIDE))
    add(data, "wide.gif", screen, "too_many_pixels")
    film = encoded(quadrants(), "GIF")
    frame = film.index(b"," + struct.pack("<HHHH", 0, 0, *SIZE)) + 1
    far = patched(film, frame, struct.pack("<HH", _MAX_SIDE, _MAX_SIDE))
    add(data, "far.gif", far, "too_many_pixels")
    bitmap = patched(encoded(quadrants(), "BMP"), 18, struct.pack("<ii", 2**30, 2**30))
    add(data, "wide.bmp", bitmap, "too_many_pixels")
    return data.write("Q", "A header that its data does not keep.")


def _with_jpeg_size(content: bytes, width: int, height: int) -> bytes:
    frame = content.index(b"\xff\xc0")
    return patched(content, frame + 5, struct.pack(">HH", height, width))


def passengers(data: Dataset) -> Expectation:
    start(data)
    picture = encoded(quadrants(), "PNG")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), "a passenger")
    add(data, "polyglot.png", picture + buffer.getvalue(), "trailing_data")
    add(data, "trailing.png", picture + b"#!/bin/sh\n", "trailing_data")
    checksum = picture.index(b"IDAT") + 4 + struct.unpack(">I", _length(picture))[0]
    wrong = bytes(byte ^ 0xFF for byte in picture[checksum : checksum + 4])
    add(data, "checksum.png", patched(picture, checksum, wrong), "trailing_data")
    note = with_chunk(picture, b"tEXt", b"Comment\0harmless")
    at = note.index(b"harmless") + 8
    add(data, "note-checksum.png", patched(note, at, b"\0\0\0\0"), "trailing_data")
    add(data, "note.png", note)
    add(data, "polyglot.jpg", jpeg(quadrants()) + buffer.getvalue(), "trailing_data")
    return data.write("Q", "Something else rides along.")


def _length(picture: bytes) -> bytes:
    at = picture.index(b"IDAT")
    return picture[at - 4 : at]


def disguised(data: Dataset) -> Expectation:
    start(data)
    picture = quadrants()
    for form in ("PDF", "EPS", "ICO", "AVIF", "JPEG2000", "TGA", "PPM", "PCX", "ICNS"):
        dates = dict.fromkeys(("creationDate", "modDate"), time.gmtime(0))
        content = encoded(picture, form, **(dates if form == "PDF" else {}))
        add(data, f"{form.lower()}.png", content, "wrong_format")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    heic = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(64)
    psd = b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 40, 48, 8, 3) + bytes(64)
    for name, content in (("svg", svg), ("heic", heic), ("psd", psd)):
        add(data, f"{name}.jpg", content, "wrong_format")
    return data.write("Q", "Only JPEG, PNG, WebP, BMP, GIF and TIFF are decoded.")


def programs(data: Dataset) -> Expectation:
    """Write pictures whose decoders start other programs; none may leave its mark."""
    start(data)
    canary = data.folder.absolute() / "canary"
    script = f"(%pipe%touch '{canary}') (w) file closefile showpage\n".encode()
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\n%%EndComments\n" + script
    wmf = struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 48, 40, 72, 0, 0) + bytes(64)
    emf = struct.pack("<II", 1, 88) + bytes(32) + b" EMF" + bytes(44)
    for name, content in (("eps", eps), ("wmf", wmf), ("emf", emf)):
        add(data, f"{name}.jpg", content, "wrong_format")
        add(data, f"plain.{name}", content, "wrong_format")
    mvg = f"push graphic-context\nimage over 0,0 0,0 'touch {canary}'\n".encode()
    add(data, "magick.png", mvg, "wrong_format")
    return data.write("Q", "Ghostscript and the like are never started.")


def metadata_bombs(data: Dataset) -> Expectation:
    start(data)
    picture = encoded(quadrants(), "PNG")
    zeros = zlib.compress(bytes(_BOMB_BYTES), 9)
    for name, kind, head in (
        ("text", b"zTXt", b"Comment\0\0"),
        ("profile", b"iCCP", b"icc\0\0"),
        ("unicode", b"iTXt", b"Comment\0\x01\0\0\0"),
    ):
        content = with_chunk(picture, kind, head + zeros)
        add(data, f"{name}.png", content, "damaged_metadata")
    words = b"".join(png_chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(2**20))) for _ in range(80))
    add(data, "many-texts.png", picture[:33] + words + picture[33:], "damaged_metadata")
    return data.write("Q", "30 kB of comment that unpack to 32 MB.")


def flood(data: Dataset) -> Expectation:
    start(data)
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 200, (9, 12, 3), dtype=np.uint8))
    scene = np.asarray(coarse.resize((128, 96), Image.Resampling.BICUBIC)).astype(np.int16)
    for number in range(20):
        warn = ["near_duplicate"] if number else []  # the first is like none before it
        noisy = np.clip(scene + number + rng.integers(-2, 3, scene.shape), 0, 255)
        content = encoded(Image.fromarray(noisy.astype(np.uint8)), "PNG")
        add(data, f"scene-{number:02}.png", content, warn=warn)
    return data.write("W", "Twenty views of one scene.")


def changing(data: Dataset) -> Expectation:
    start(data)
    quadrants(turn=1).save(data.path("images/fickle.png"))
    quadrants(turn=2).save(data.path("images/fickle.png", below="later"))
    data.image("fickle", "images/fickle.png", later=["unreadable_media"])
    return data.write("Q", "What was checked is what is used, or nothing.", stage="extract")


IMAGES = (
    *PICTURES,
    Kind(48, "animated", animated),
    Kind(49, "tiny", tiny),
    Kind(50, "ribbons", ribbons),
    Kind(51, "blank", blank),
    Kind(52, "false_sizes", false_sizes),
    Kind(53, "passengers", passengers),
    Kind(54, "disguised", disguised),
    Kind(55, "programs", programs),
    Kind(56, "metadata_bombs", metadata_bombs),
    Kind(57, "flood", flood),
    Kind(58, "changing", changing),
)
