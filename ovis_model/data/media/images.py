"""Opening images that strangers made: which are refused, and what RGB means for the rest.

`Image.open(path).convert("RGB")` alone would turn 16-bit greys white, show what is hidden under
transparent pixels, ignore the camera's orientation and the picture's colour profile, and let a
small file fill the memory.  `load_rgb` is the one way from a file to pixels, the same when data
is checked, extracted and shown to the model.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ovis_model.data.media import colours, containers
from ovis_model.errors import DataError, MediaError
from ovis_model.processing.aspect_ratio import MAX_ASPECT_RATIO

#: Decoders that may run.  Pillow knows dozens more, some of which start other programs.
_OPEN: dict[str, Callable[[IO[bytes], str], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
FORMATS = tuple(_OPEN)
#: Refused above this, in pixels: 192 MB once decoded, about twice the largest phone picture.
MAX_PIXELS = 64_000_000
#: What Pillow raises on broken files, beyond the OSErrors it documents.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_HEAD_BYTES = 256
_ORIENTATION_TAG = 0x0112
_BITS_TAG = 0x0102
#: Orientations that swap width and height.
_ON_ITS_SIDE = (5, 6, 7, 8)
#: Pictures smaller than this have too little detail for `look`, in pixels a side.
_MIN_LOOK_SIDE = 64
#: Bits that must be set, and that must not be, for two pictures of one `look` to be alike.
_MIN_LOOK_BITS = 6


@dataclass(frozen=True)
class Header:
    """What an image's header says.

    Attributes:
        format: One of `FORMATS`, or "MPO".
        mode: Pillow's mode of the stored pixels.
        size: Width and height in pixels, as the picture is shown.
        is_turned: Whether the stored picture has to be turned to be upright.
    """

    format: str
    mode: str
    size: tuple[int, int]
    is_turned: bool = False


def load_image(
    source: Path | bytes, *, name: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Decode a whole image, whatever its mode.

    Args:
        source: A file, or its bytes: what was hashed is what is decoded.
        name: What messages call it; the path by default.
        max_pixels: Refused above this; `MAX_PIXELS` by default.

    Returns:
        The image as stored: not yet turned upright, not yet RGB.

    Raises:
        MediaError: If it is no image of a known format, broken, animated, too large, or holds
            more than an image; `code` says which.
    """
    with _opened(source, name, max_pixels, whole=True) as (image, _):
        image.load()
        return image


def load_rgb(
    source: Path | bytes, *, name: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Decode a whole image, upright and in 8-bit sRGB.

    Args:
        source: See `load_image`.
        name: See `load_image`.
        max_pixels: See `load_image`.

    Raises:
        MediaError: As `load_image` and `to_rgb` do, naming the file.
    """
    return decode(source, name=name, max_pixels=max_pixels)[1]


def decode(
    source: Path | bytes, *, name: str | None = None, max_pixels: int | None = None
) -> tuple[Header, Image.Image]:
    """Do as `load_rgb` does, and tell what the header said.

    Raises:
        MediaError: As `load_rgb` does.
    """
    with _opened(source, name, max_pixels, whole=True) as (image, called):
        header = _header(image, called)  # before decoding, which turns a TIFF
        image.load()
        return header, _convert(image, called)


def read_header(
    source: Path | bytes, *, name: str | None = None, max_pixels: int | None = None
) -> Header:
    """Read an image's header, without decoding a pixel.

    Of bytes, the whole container is checked as `load_rgb` checks it; of a file, only its header
    is read.

    Raises:
        MediaError: As `load_rgb` does, as far as can be told; damaged pixels go unnoticed.
    """
    if isinstance(source, bytes) and containers.find_format(source) == "JPEG":
        called = name or "the image"
        layout = containers.lay_out_jpeg(source, called)
        if plain := containers.read_plain_jpeg(source, layout):
            mode, width, height = plain
            _check_area(width, height, called, max_pixels)
            containers.check_jpeg_size(len(source), (width, height), called)
            containers.check_jpeg(source, layout, called)
            return Header("JPEG", mode, (width, height))
    with _opened(source, name, max_pixels, whole=isinstance(source, bytes)) as (image, called):
        return _header(image, called)


def read_size(source: Path | bytes, *, name: str | None = None) -> tuple[int, int]:
    """Read from an image's header which size `load_rgb` will have, without decoding a pixel.

    Returns:
        Width and height in pixels, the camera's orientation applied.

    Raises:
        MediaError: As `read_header` does.
    """
    return read_header(source, name=name).size


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a decoded image upright and into 8-bit sRGB.

    Transparency is laid on white; 16-bit grey is scaled, not cut off; a colour profile is
    applied where it makes a difference.

    Returns:
        A new image, also where nothing had to be done.

    Raises:
        MediaError: For pixels without an agreed range (32-bit integers and floats), or a damaged
            note of the orientation.
    """
    try:
        rgb = _convert(image, "the image")
    except _BROKEN as error:
        raise _undecodable("the image", str(error)) from error
    return rgb.copy() if rgb is image else rgb


def check_shape(size: tuple[int, int], *, name: str, min_side: int) -> None:
    """Check that a picture is neither tiny nor a line.

    Raises:
        MediaError: too_small or extreme_shape.
    """
    width, height = size
    if min(size) < min_side:
        raise MediaError(
            "too_small",
            f"{name} is {width} x {height} px, with a side under {min_side} px; remove it",
        )
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise MediaError(
            "extreme_shape",
            f"{name} is {width} x {height} px, more than {MAX_ASPECT_RATIO} times as long as "
            "wide; crop it",
        )


def is_blank(rgb: Image.Image) -> bool:
    """Tell whether a picture is of one colour."""
    extrema: Any = rgb.getextrema()
    return all(low == high for low, high in extrema)


def look(image: Image.Image) -> str | None:
    """Summarise how a picture looks, so that copies of it are found after scaling and saving.

    A difference hash, which finds candidates: the picture as 9 x 8 greys, and whether each is
    brighter than its right neighbour.  And 8 x 8 greys, which tell drawings on an empty ground
    apart, of which most bits say nothing.  `ovis_model.data.checks.looks` compares them.

    Args:
        image: Upright and in RGB.

    Returns:
        16 hexadecimal digits of the hash and 128 of the greys; None where there is too little
        to compare.
    """
    if min(image.size) < _MIN_LOOK_SIDE:
        return None
    whole = image.convert("L")
    grey = whole.resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(0, 72, 9):
        for at in range(row, row + 8):
            bits = bits << 1 | (grey[at] > grey[at + 1])
    enough = _MIN_LOOK_BITS <= bits.bit_count() <= 64 - _MIN_LOOK_BITS
    if not enough:
        return None
    return f"{bits:016x}{whole.resize((8, 8), Image.Resampling.BOX).tobytes().hex()}"


def plain_extension(source: Path | bytes, image: Image.Image) -> str | None:
    """Tell whether a file's own bytes already are what `to_rgb` would make of them.

    Returns:
        "jpg" or "png" if the file may be copied as it is, else None.
    """
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        return None
    if _orientation(image, "the image") != 1 or colours.transform_of(image) is not None:
        return None
    if image.format == "JPEG":
        return "jpg"
    return "png" if image.format == "PNG" and _png_bit_depth(source) == 8 else None


def _png_bit_depth(source: Path | bytes) -> int:
    with _stream(source) as file:
        return file.read(25)[24]  # signature 8, chunk length 4, "IHDR" 4, width 4, height 4


def _stream(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


@contextlib.contextmanager
def _opened(
    source: Path | bytes, name: str | None, max_pixels: int | None, *, whole: bool
) -> Iterator[tuple[ImageFile.ImageFile, str]]:
    """Open an image and check what its header says; whatever is found later is blamed on it.

    Where it is wanted `whole`, or is given as bytes, its container is checked too.
    """
    called = name or (str(source) if isinstance(source, Path) else "the image")
    try:
        if whole and isinstance(source, Path):
            source = source.read_bytes()
        with _stream(source) as file, warnings.catch_warnings():
            # Pillow's, of metadata that it could read in part.
            warnings.simplefilter("ignore")
            kind = _format_of(file.read(_HEAD_BYTES), called)
            if isinstance(source, bytes):
                containers.check_container(source, kind, called)
            file.seek(0)
            with _OPEN[kind](file, "") as image:
                _check_header(image, called, max_pixels)
                if isinstance(source, bytes) and kind == "JPEG":
                    containers.check_jpeg_size(len(source), image.size, called)
                yield image, called
    except DataError:
        raise
    except (Image.DecompressionBombError, *_BROKEN) as error:
        raise _blamed(error, called) from error


def _format_of(head: bytes, name: str) -> str:
    kind = containers.find_format(head)
    if kind is None:
        what = containers.describe_stranger(head) if head else "empty"
        raise MediaError(
            "wrong_format" if head else "empty_file",
            _no_image(name, f"it is {what}, not one of {', '.join(FORMATS)}"),
        )
    return kind


def _blamed(error: Exception, name: str) -> MediaError:
    if isinstance(error, FileNotFoundError):
        return MediaError("missing_media", _no_image(name, str(error.strerror)))
    if isinstance(error, IsADirectoryError):
        return MediaError("not_a_file", _no_image(name, str(error.strerror)))
    if isinstance(error, Image.DecompressionBombError):  # a GIF's frame, larger than its screen
        return MediaError("too_many_pixels", f"{name} is too large ({error}); scale it down")
    reason = str(error) or type(error).__name__
    return _undecodable(name, reason.replace(repr(name), "the file").replace(name, "the file"))


def _no_image(name: str, reason: str) -> str:
    return f"{name} cannot be decoded as an image: {reason}"


def _undecodable(name: str, reason: str) -> MediaError:
    return MediaError("unreadable_media", _no_image(name, reason[:300]))


def _check_header(image: ImageFile.ImageFile, name: str, max_pixels: int | None) -> None:
    width, height = image.size
    _check_area(width, height, name, max_pixels)
    # A phone's MPO holds a preview beside the picture; a GIF or APNG is a film.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise MediaError(
            "animated",
            f"{name} is animated; save one frame, or list its frames under 'video'",
        )


def _check_area(width: int, height: int, name: str, max_pixels: int | None) -> None:
    if width < 1 or height < 1:
        raise _undecodable(name, f"its header says {width} x {height} px")
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise MediaError(
            "too_many_pixels",
            f"{name} is {width} x {height} px, above the limit of {limit:,} px; scale it down",
        )


def _header(image: ImageFile.ImageFile, name: str) -> Header:
    _check_range(image, name)
    mode = image.mode
    if image.format == "PNG" and "exif" not in image.info and _has_late_metadata(image):
        image.load()  # the rare PNG that notes its orientation behind the pixels
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    orientation = tags.get(_ORIENTATION_TAG) or _orientation(image, name)
    # Pillow gives the upright size of a TIFF, but not the stored size of anything else.
    if _ORIENTATION_TAG not in tags and orientation in _ON_ITS_SIDE:
        width, height = height, width
    return Header(str(image.format), mode, (width, height), orientation in range(2, 9))


def _convert(image: Image.Image, name: str) -> Image.Image:
    _check_range(image, name)
    # DIVERGES(rgb-conversion): the reference calls convert("RGB") and nothing else.
    upright = image if _orientation(image, name) == 1 else ImageOps.exif_transpose(image)
    transform = colours.transform_of(image)
    if upright.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_TAG, (16,))[0]
        return colours.to_srgb(colours.grey_of_16_bits(upright, bits=bits), transform)
    if upright.has_transparency_data:
        return colours.on_white(upright, transform)
    return colours.to_srgb(upright, transform)


def _check_range(image: Image.Image, name: str) -> None:
    if image.mode in ("I", "F"):
        raise MediaError(
            "undefined_range",
            f"{name} has 32-bit pixels (mode {image.mode!r}), whose range is not defined; "
            "convert it to 8 or 16 bits",
        )


def _orientation(image: Image.Image, name: str) -> int:
    try:
        noted = _noted_in_exif(image.info.get("exif"))
        # Not the format's own method: that of a PNG decodes it, on the search for EXIF data.
        found: int = noted or Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except _BROKEN as error:
        raise MediaError(
            "damaged_metadata",
            f"{name} has damaged EXIF data ({error}), so which side is up is not known; save it "
            "again without EXIF data",
        ) from error
    return found


def _noted_in_exif(data: bytes | None) -> int | None:
    """Read the orientation from EXIF data.

    Pillow reads those of a JPEG early on, and keeps to itself what went wrong.

    Raises:
        ValueError: If they are damaged, and it is not in what can be read.
    """
    if not data:
        return None
    exif = Image.Exif()
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        exif.load(data)
    noted: int | None = exif.get(_ORIENTATION_TAG)
    if noted is None and complaints:
        raise ValueError(str(complaints[0].message).strip())
    return noted


def _has_late_metadata(image: ImageFile.ImageFile) -> bool:
    """Tell whether a PNG has chunks behind its pixels that may hold EXIF data or XMP."""
    file: Any = image.fp
    where = file.tell()
    try:
        return _notes_behind_pixels(file)
    finally:
        file.seek(where)


def _notes_behind_pixels(file: IO[bytes]) -> bool:
    seen_pixels = False
    file.seek(8)  # the signature
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        seen_pixels = seen_pixels or kind == b"IDAT"
        if seen_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return True
        file.seek(length + 4, 1)  # the chunk and its checksum
    return False
