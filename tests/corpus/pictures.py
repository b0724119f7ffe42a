"""Kinds 39 to 47: pictures that are cut, disguised, huge, or of an unusual make."""

import struct
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.corpus.dataset import Dataset, Expectation, Kind
from tests.corpus.media import (
    BLUE,
    GREEN,
    RED,
    SIZE,
    YELLOW,
    corners,
    encoded,
    patched,
    png,
    quadrants,
)

#: JPEG is not exact.
LOSSY = 12
GREYS = (30, 90, 150, 210)
#: How a picture is stored that an EXIF orientation turns upright again.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_ORIENTATION = 0x0112
#: Where a colour profile tells when it was made.
_ICC_DATE = 24


def start(data: Dataset) -> None:
    """Write a sample with a good picture."""
    data.good()
    quadrants(turn=3).save(data.path("images/good.png"))
    data.image("good-image", "images/good.png")


def add(data: Dataset, name: str, content: bytes, *codes: str, **how: Any) -> str:
    """Write a file and a sample of the same name that shows it; return its path."""
    file = f"images/{name}"
    data.path(file).write_bytes(content)
    data.image(name, file, *codes, **how)
    return file


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """Return a JPEG with as little loss as it can."""
    return encoded(image, "JPEG", quality=95, subsampling=0, **options)


def grey_quadrants(kind: Any, factor: int) -> np.ndarray[Any, Any]:
    """Return `GREYS`, times a factor, in the four quadrants; [height, width]."""
    shades = np.asarray(GREYS).reshape(2, 2) * factor
    return np.kron(shades, np.ones((SIZE[1] // 2, SIZE[0] // 2))).astype(kind)


def _grey_corners() -> tuple[Any, ...]:
    return corners(colours=[(grey,) * 3 for grey in GREYS])


def truncated(data: Dataset) -> Expectation:
    start(data)
    large = (160, 120)
    noise = np.random.default_rng(0).integers(0, 256, (*large[::-1], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = encoded(picture, form)
        add(data, f"half.{form.lower()}", whole[: len(whole) // 2], "unreadable_media")
    whole = jpeg(picture)
    add(data, "end.jpg", whole[:-200], "unreadable_media")
    add(data, "header.jpg", whole[:20], "unreadable_media")
    add(data, "signature.png", b"\x89PNG\r\n\x1a\n", "unreadable_media")
    return data.write("Q", "The copy was interrupted.")


def misnamed(data: Dataset) -> Expectation:
    start(data)
    picture = quadrants()
    for name, content in (
        ("jpeg.png", jpeg(picture)),
        ("png.jpg", encoded(picture, "PNG")),
        ("webp.jpeg", encoded(picture, "WEBP", lossless=True)),
        ("bmp.webp", encoded(picture, "BMP")),
    ):
        file = add(data, name, content, warn=["wrong_extension"])
        data.shows(file, SIZE, *corners(), tolerance=LOSSY)
    add(data, "JPEG.JPEG", jpeg(picture))
    return data.write("W", "It is read as what it is.")


def web_page(data: Dataset) -> Expectation:
    start(data)
    page = b"<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n"
    add(data, "page.jpg", page, "wrong_format")
    add(data, "denied.png", b'{"error": "denied"}', "wrong_format")
    add(data, "pointer.jpg", b"version 1\noid sha256:0\nsize 12\n", "wrong_format")
    add(data, "zeros.jpg", bytes(4096), "wrong_format")
    return data.write("Q", "A server's excuse in place of a picture.")


def bomb(data: Dataset) -> Expectation:
    start(data)
    side = 30_000
    black = b"\0" * (side * (side // 8 + 1))
    add(data, "bomb.png", png(side, side, depth=1, colour=0, rows=black), "too_many_pixels")
    return data.write("Q", "110 kB that would be 2.7 GB in RGB.")


def small_bomb(data: Dataset) -> Expectation:
    start(data)
    side = 12_992
    black = b"\0" * (side * (side // 8 + 1))
    content = png(side, side, depth=1, colour=0, rows=black)
    add(data, "almost.png", content, "too_many_pixels")
    return data.write("Q", "20 kB that are 483 MiB in RGB, and no bomb yet to Pillow.")


def deep(data: Dataset) -> Expectation:
    start(data)
    sixteen = grey_quadrants(np.uint16, 257)
    rgb = np.repeat(sixteen[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    for name, content in (
        ("grey16.png", encoded(Image.fromarray(sixteen), "PNG")),
        ("grey16.tiff", encoded(Image.fromarray(sixteen), "TIFF")),
        ("rgb16.png", png(*SIZE, depth=16, colour=2, rows=rows)),
    ):
        data.shows(add(data, name, content), SIZE, *_grey_corners())
    big_endian = Image.frombytes("I;16B", SIZE, sixteen.astype(">u2").tobytes())
    file = add(data, "grey16-big-endian.tiff", encoded(big_endian, "TIFF"))
    data.shows(file, SIZE, *_grey_corners())
    floats = Image.fromarray(grey_quadrants(np.float32, 1))
    add(data, "float.tiff", encoded(floats, "TIFF"), "undefined_range")
    integers = Image.fromarray(grey_quadrants(np.int32, 65_793))
    add(data, "int32.tiff", encoded(integers, "TIFF"), "undefined_range")
    return data.write("S", "16 bits are scaled; what 32 bits mean, nobody says.")


def transparent(data: Dataset) -> Expectation:
    start(data)
    white, picture = (255, 255, 255), quadrants()
    shown = corners(colours=(white, GREEN, _on_white(BLUE, 128), YELLOW))
    alpha = np.full((SIZE[1], SIZE[0]), 255, dtype=np.uint8)
    alpha[: SIZE[1] // 2, : SIZE[0] // 2] = 0
    alpha[SIZE[1] // 2 :, : SIZE[0] // 2] = 128
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha))
    for name, form, options in (
        ("rgba.png", "PNG", {}),
        ("rgba.webp", "WEBP", {"lossless": True, "exact": True}),
    ):
        data.shows(add(data, name, encoded(rgba, form, **options)), SIZE, *shown)
    keyed = corners(colours=(white, GREEN, BLUE, YELLOW))
    file = add(data, "key.png", encoded(picture, "PNG", transparency=RED))
    data.shows(file, SIZE, *keyed)
    _add_palette(data, keyed)
    grey = Image.merge("LA", (Image.fromarray(grey_quadrants(np.uint8, 1)), rgba.getchannel("A")))
    greys = (white, (90,) * 3, _on_white((150,) * 3, 128), (210,) * 3)
    file = add(data, "grey-alpha.png", encoded(grey, "PNG"))
    data.shows(file, SIZE, *corners(colours=greys))
    bits = (
        Image.fromarray(grey_quadrants(np.uint8, 1)).point(lambda v: 255 * (v > 100)).convert("1")
    )
    file = add(data, "bits.png", encoded(bits, "PNG"))
    data.shows(file, SIZE, *corners(colours=((0,) * 3, (0,) * 3, white, white)))
    return data.write("S", "Laid on white; what hides under it stays hidden.")


def _add_palette(data: Dataset, shown: tuple[Any, ...]) -> None:
    indexed = Image.fromarray(np.kron(np.arange(4).reshape(2, 2), np.ones((20, 24))).astype("u1"))
    indexed = indexed.convert("L")
    indexed.putpalette([channel for colour in (RED, GREEN, BLUE, YELLOW) for channel in colour])
    for name, form in (("palette.png", "PNG"), ("palette.gif", "GIF")):
        data.shows(add(data, name, encoded(indexed, form, transparency=0)), SIZE, *shown)


def _on_white(colour: tuple[int, ...], alpha: int) -> tuple[int, ...]:
    return tuple(round((c * alpha + 255 * (255 - alpha)) / 255) for c in colour)


def colour_spaces(data: Dataset) -> Expectation:
    start(data)
    picture = quadrants()
    cmyk = picture.convert("CMYK")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    srgb = patched(srgb, _ICC_DATE, bytes(12))
    for name, content in (
        ("cmyk.jpg", jpeg(cmyk)),
        ("ycck.jpg", _ycck(cmyk)),
        ("cmyk.tiff", encoded(cmyk, "TIFF")),
        ("icc.png", encoded(picture, "PNG", icc_profile=srgb)),
        ("icc.jpg", jpeg(picture, icc_profile=srgb)),
        ("progressive.jpg", jpeg(picture, progressive=True)),
    ):
        data.shows(add(data, name, content), SIZE, *corners(), tolerance=LOSSY)
    grey = Image.fromarray(grey_quadrants(np.uint8, 1))
    data.shows(add(data, "grey.jpg", jpeg(grey)), SIZE, *_grey_corners(), tolerance=LOSSY)
    return data.write("S", "Printers' and cameras' colours become RGB.")


def _ycck(cmyk: Image.Image) -> bytes:
    """Return a JPEG in Adobe's YCCK, whose colours are those of `cmyk`."""
    cyan, magenta, yellow, black = cmyk.split()
    luma = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    # Pillow stores the complement of what it is given, which Adobe wants of black alone.
    bands = [band.point(lambda v: 255 - v) for band in luma.split()]
    stored = jpeg(Image.merge("CMYK", (*bands, black)))
    transform = stored.index(b"Adobe") + 11
    assert stored[transform] == 0
    return stored[:transform] + b"\x02" + stored[transform + 1 :]


def orientation(data: Dataset) -> Expectation:
    start(data)
    picture = quadrants()
    for value, method in _STORED.items():
        content = jpeg(picture.transpose(method), exif=_exif(value))
        file = add(data, f"orientation-{value}.jpg", content)
        data.shows(file, SIZE, *corners(), tolerance=LOSSY)
    lying = picture.transpose(_STORED[6])
    for form in ("PNG", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = encoded(lying, form, exif=_exif(6), **options)
        file = add(data, f"orientation-6.{form.lower()}", content)
        data.shows(file, SIZE, *corners())
    for value in (0, 9):
        file = add(data, f"orientation-{value}.jpg", jpeg(picture, exif=_exif(value)))
        data.shows(file, SIZE, *corners(), tolerance=LOSSY)
    for name, exif in (("cut", b"Exif\0\0MM\0*\0"), ("text", b"Exif\0\0not a TIFF header")):
        add(data, f"{name}-exif.jpg", jpeg(picture, exif=exif), "damaged_metadata")
    astray = b"Exif\0\0II*\0" + struct.pack("<I", 2**31)
    add(data, "astray-exif.jpg", jpeg(picture, exif=astray), "damaged_metadata")
    return data.write("S", "Turned upright; a damaged note leaves open which side is up.")


def _exif(orientation_value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation_value
    return exif


PICTURES = (
    Kind(39, "truncated", truncated),
    Kind(40, "misnamed", misnamed),
    Kind(41, "web_page", web_page),
    Kind(42, "bomb", bomb),
    Kind(43, "small_bomb", small_bomb),
    Kind(44, "deep", deep),
    Kind(45, "transparent", transparent),
    Kind(46, "colour_spaces", colour_spaces),
    Kind(47, "orientation", orientation),
)
