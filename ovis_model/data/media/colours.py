"""What colours the numbers in a picture mean: colour profiles, transparency, 16 bits, Lab.

numpy and the colour engine are imported where a picture needs them; few do, and the processes
that decode start often.
"""

import io
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

#: Colour space of a profile, as its header spells it, for the modes it can be applied to.
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
#: Levels of 255 by which a profile may differ from sRGB and still count as it.
_SAME_COLOUR = 3


def transform_of(image: Image.Image) -> "ImageCmsTransform | None":
    """Return the way from an image's colours to sRGB, or None if its numbers are sRGB.

    They are taken as sRGB without a colour profile, with that of sRGB under whatever name, with
    a broken one, and with one for another kind of pixels.
    """
    profile = image.info.get("icc_profile")
    if not profile or not isinstance(profile, bytes):
        return None
    return _transform(profile, _colour_mode(image.mode))


def _colour_mode(mode: str) -> str:
    """Name the mode in which a picture of `mode` meets its profile."""
    if mode in ("L", "LA", "La", "1") or mode.startswith("I;16"):
        return "L"
    return "CMYK" if mode == "CMYK" else "RGB"


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> "ImageCmsTransform | None":
    from PIL import ImageCms  # noqa: PLC0415 - few pictures need the colour engine

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        srgb = ImageCms.createProfile("sRGB")
        found = ImageCms.buildTransform(source, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if mode != "CMYK" and _is_srgb(found, mode) else found


def _is_srgb(transform: "ImageCmsTransform", mode: str) -> bool:
    """Try a transform on colours from all over the space."""
    steps = range(0, 256, 51)
    if mode == "L":
        numbers = bytes(range(256))
    else:
        numbers = bytes(n for r in steps for g in steps for b in steps for n in (r, g, b))
    probe = Image.frombytes(mode, (len(numbers) // len(mode), 1), numbers)
    differences = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
    return max(differences.tobytes()) <= _SAME_COLOUR


def to_srgb(image: Image.Image, transform: "ImageCmsTransform | None") -> Image.Image:
    """Turn an image without transparency into 8-bit sRGB.

    Args:
        image: Upright, of any mode but those of 16 and 32 bits.
        transform: What `transform_of` returned for it.

    Returns:
        The image itself if it is RGB and needs no transform.
    """
    if image.mode == "LAB":
        return _from_lab(image)
    if transform is not None:
        mode = _colour_mode(image.mode)
        return transform.apply(image if image.mode == mode else image.convert(mode))
    return image if image.mode == "RGB" else image.convert("RGB")


def on_white(image: Image.Image, transform: "ImageCmsTransform | None") -> Image.Image:
    """Lay an image with transparency on a white ground, in sRGB."""
    clear = image.convert("RGBA")
    if transform is None:
        shown = clear
    else:
        colours = image.convert("L") if _colour_mode(image.mode) == "L" else clear.convert("RGB")
        shown = transform.apply(colours)
        shown.putalpha(clear.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), shown).convert("RGB")


def grey_of_16_bits(image: Image.Image, *, bits: int) -> Image.Image:
    """Scale 16-bit greys to 8 bits; a transparent grey becomes white.

    Args:
        image: Of one of Pillow's modes I;16.
        bits: How many of the 16 are used; 12 in some scans.
    """
    import numpy as np  # noqa: PLC0415 - see above

    grey = np.asarray(image, dtype=np.uint16)  # [height, width]
    most = (1 << bits) - 1
    scaled = np.minimum((grey.astype(np.uint32) * 255 + most // 2) // most, 255)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled[grey == clear] = 255
    return Image.fromarray(scaled.astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # noqa: PLC0415 - see above

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
