"""Opening images that strangers made: which are refused, and what RGB means for the rest.

`Image.open(path).convert("RGB")` alone would turn 16-bit greys white, show what is hidden under
transparent pixels, ignore the camera's orientation, and let a small file fill the memory.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from ovis_model.errors import DataError

#: Decoders that may run.  Pillow knows dozens more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
#: Refused above this, in pixels: 192 MB once decoded, about twice the largest phone picture.
MAX_PIXELS = 64_000_000
#: What Pillow raises on broken files, beyond the OSErrors it documents.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ORIENTATION_TAG = 0x0112
#: Orientations that swap width and height.
_ON_ITS_SIDE = (5, 6, 7, 8)


def load_image(path: Path) -> Image.Image:
    """Decode a whole image, whatever its mode.

    Returns:
        The image as stored: not yet turned upright, not yet RGB.

    Raises:
        DataError: If it is no image of a known format, broken, animated or too large.
    """
    with _opened(path) as image:
        image.load()
        return image


def load_rgb(path: Path) -> Image.Image:
    """Decode a whole image, upright and in 8-bit RGB.

    Raises:
        DataError: As `load_image` and `to_rgb` do, naming the file.
    """
    return _convert(load_image(path), str(path))


def read_size(path: Path) -> tuple[int, int]:
    """Read from an image's header which size `load_rgb` will have, without decoding a pixel.

    Returns:
        Width and height in pixels, the camera's orientation applied.

    Raises:
        DataError: As `load_rgb` does, as far as a header tells; damaged pixels go unnoticed.
    """
    with _opened(path) as image:
        _check_range(image, str(path))
        if image.format == "PNG" and "exif" not in image.info and _has_late_metadata(path):
            image.load()  # the rare PNG that notes its orientation behind the pixels
        width, height = image.size
        # Pillow gives the upright size of a TIFF, but not the stored size of anything else.
        is_upright = _ORIENTATION_TAG in getattr(image, "tag_v2", ())
        turned = not is_upright and _orientation(image, str(path)) in _ON_ITS_SIDE
        return (height, width) if turned else (width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a decoded image upright and into 8-bit RGB.

    Transparency is laid on white; 16-bit grey is scaled, not cut off.

    Returns:
        A new image, also where nothing had to be done.

    Raises:
        DataError: For pixels without an agreed range (32-bit integers and floats), or a damaged
            note of the orientation.
    """
    rgb = _convert(image, "the image")
    return rgb.copy() if rgb is image else rgb


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image and check what its header says; whatever is found later is blamed on it."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path} is {width} x {height} px, above the limit of {MAX_PIXELS:,} px; "
                    "scale it down"
                )
            # A phone's MPO holds a preview beside the picture; a GIF or APNG is a film.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise DataError(
                    f"{path} is animated; save one frame, or list its frames under 'video'"
                )
            yield image
    except _BOMBS as error:
        raise DataError(f"{path} decodes to too many pixels ({error}); scale it down") from error
    except _BROKEN as error:
        reason = str(error).replace(str(path), "the file").replace(repr(str(path)), "the file")
        raise DataError(f"{path} cannot be decoded as an image: {reason}") from error


def _convert(image: Image.Image, name: str) -> Image.Image:
    _check_range(image, name)
    # DIVERGES(rgb-conversion): the reference calls convert("RGB") and nothing else.
    upright = image if _orientation(image, name) == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright, dtype=np.uint16)  # [height, width]
        return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert(
            "RGB"
        )
    if upright.has_transparency_data:
        ground = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def _check_range(image: Image.Image, name: str) -> None:
    if image.mode in ("I", "F"):
        raise DataError(
            f"{name} has 32-bit pixels (mode {image.mode!r}), whose range is not defined; "
            "convert it to 8 or 16 bits"
        )


def _orientation(image: Image.Image, name: str) -> int:
    try:
        # Not the format's own method: that of a PNG decodes it, on the search for EXIF data.
        found: int = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except _BROKEN as error:
        raise DataError(
            f"{name} has damaged EXIF data ({error}), so which side is up is not known; save it "
            "again without EXIF data"
        ) from error
    return found


def _has_late_metadata(path: Path) -> bool:
    """Tell whether a PNG has chunks behind its pixels that may hold EXIF data or XMP."""
    seen_pixels = False
    with path.open("rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            seen_pixels = seen_pixels or kind == b"IDAT"
            if seen_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(length + 4, 1)  # the chunk and its checksum
    return False


def plain_extension(path: Path, image: Image.Image) -> str | None:
    """Tell whether a file's own bytes already are what `to_rgb` would make of them.

    Returns:
        "jpg" or "png" if the file may be copied as it is, else None.
    """
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        return None
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        return None
    if image.format == "JPEG":
        return "jpg"
    return "png" if image.format == "PNG" and _png_bit_depth(path) == 8 else None


def _png_bit_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # signature 8, chunk length 4, "IHDR" 4, width 4, height 4
