"""Opening images that strangers made: which are refused, and what RGB means for the rest.

`Image.open(path).convert("RGB")` alone would turn 16-bit greys white, show what is hidden under
transparent pixels, ignore the camera's orientation, and let a small file fill the memory.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ovis_model.errors import DataError

#: Decoders that may run.  Pillow knows dozens more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
#: Refused above this, in pixels: 192 MB once decoded, about twice the largest phone picture.
MAX_PIXELS = 64_000_000
#: What Pillow raises on broken files, beyond the OSErrors it documents.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_ORIENTATION_TAG = 0x0112


def load_image(path: Path) -> Image.Image:
    """Decode a whole image, whatever its mode.

    Returns:
        The image as stored: not yet turned upright, not yet RGB.

    Raises:
        DataError: If it is no image of a known format, broken, animated or too large.
    """
    try:
        image: Image.Image
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
            image.load()
            return image
    except _BOMBS as error:
        raise DataError(f"{path} decodes to too many pixels ({error}); scale it down") from error
    except _BROKEN as error:
        reason = str(error).replace(str(path), "the file").replace(repr(str(path)), "the file")
        raise DataError(f"{path} cannot be decoded as an image: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a decoded image upright and into 8-bit RGB.

    Transparency is laid on white; 16-bit grey is scaled, not cut off.

    Raises:
        DataError: For pixels without an agreed range (32-bit integers and floats).
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright, dtype=np.uint16)  # [height, width]
        return Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert(
            "RGB"
        )
    if upright.mode in ("I", "F"):
        raise DataError(
            f"the image has 32-bit pixels (mode {upright.mode!r}), whose range is not defined; "
            "convert it to 8 or 16 bits"
        )
    if upright.has_transparency_data:
        ground = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(ground, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


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
