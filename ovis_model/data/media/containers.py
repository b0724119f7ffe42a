"""Image files as bytes: what they are, where they end, and whether something else hides in them.

Pillow opens a PNG with a program behind it, or a JPEG that also is a ZIP archive, and says
nothing.  The rule here, checked before a decoder sees a byte:

    PNG     every checksum holds, compressed texts stay small, and only zeros follow IEND
    WebP    only zeros follow the size its header gives
    GIF     only zeros follow its trailer, where it has one
    JPEG    behind its end there may be padding; the further pictures of an MPO; and up to 4 KiB
            that are no other file, as some cameras leave notes there
    BMP     as JPEG; many name a wrong size
    TIFF    has no end; it is never copied, only converted
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ovis_model.errors import MediaError

#: First bytes of what is read here.
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
#: What picture files that are none often are, by a pattern for their first bytes.
_STRANGERS = (
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"8BPS", "a Photoshop document"),
    (rb"\x00\x00[\x01\x02]\x00", "an icon"),
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "HEIC"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (rb"\xd7\xcd\xc6\x9a|\x01\x00\x09\x00", "a Windows metafile"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "gzip data"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<(?:\?xml|!--|!doctype svg).*?>\s*)*<svg", "SVG"),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body|title)", "a web page"),
    (rb"(?:\xef\xbb\xbf)?\s*<", "XML or HTML"),
    (rb"\s*[{\[]", "JSON"),
)
_STRANGER_PATTERNS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), words) for pattern, words in _STRANGERS
)
#: Files that may hide behind a picture, by what is found anywhere in them.
_HIDDEN_FILE = re.compile(
    rb"PK\x03\x04|PK\x05\x06|Rar!\x1a|7z\xbc\xaf\x27|\x1f\x8b\x08"  # archives
    rb"|%PDF-|<\?php|<\?xml|<script|<html|<svg"  # documents
    rb"|\x89PNG|GIF8[79]a|\xff\xd8\xff|ftyp|RIFF....(?:WEBP|AVI |WAVE)|\x1a\x45\xdf\xa3"  # media
    rb"|\x7fELF|\A(?:MZ|#!)",  # programs
    re.DOTALL | re.IGNORECASE,
)
_MAX_NOTE_BYTES = 4096
_PADDING = b"\0\t\n\r "
#: Segments and chunks of an honest file are far fewer.
_MAX_PIECES = 100_000
#: Decompressed, of one compressed text or colour profile of a PNG; Pillow's limit too.
_MAX_TEXT_BYTES = 1 << 20
#: The same of all of them together.
_MAX_TEXTS_BYTES = 4 << 20
#: In compressed image data: a marker that is no escaped byte and no restart.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN, _END = 0xDA, 0xD9
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
#: Segments that say nothing about how the picture is shown: JFIF, comments, tables, scans.
_PLAIN_SEGMENTS = {*_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, 0xFE, _SCAN}


@dataclass(frozen=True, slots=True)
class JpegLayout:
    """Where the parts of a JPEG lie.

    Attributes:
        end: Offset behind its end, or None if it has none.
        segments: (marker, offset of its content, length) of each segment, in their order.
    """

    end: int | None
    segments: tuple[tuple[int, int, int], ...]


def find_format(head: bytes) -> str | None:
    """Name the format of an image by its first bytes, or None if it is not read here.

    Example:
        >>> find_format(b"RIFF1234WEBPVP8 ")
        'WEBP'
        >>> find_format(b"<html>")
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return "WEBP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def describe_stranger(head: bytes) -> str:
    """Say what a file seems to be that is no image read here.

    Example:
        >>> describe_stranger(b"%PDF-1.7")
        'a PDF document'
    """
    for pattern, words in _STRANGER_PATTERNS:
        if pattern.match(head):
            return words
    return f"of no known format (it begins with {head[:8]!r})"


def check_container(content: bytes, kind: str, name: str) -> None:
    """Check a whole image file by the rules above.

    Args:
        content: All bytes of the file.
        kind: Its format, as `find_format` gives it.
        name: What messages call it.

    Raises:
        MediaError: unreadable_media if its end is missing; trailing_data if a checksum does not
            hold or something follows the end; damaged_metadata for texts that would unpack to
            too much.
    """
    if kind == "JPEG":
        check_jpeg(content, lay_out_jpeg(content, name), name)
    elif kind == "PNG":
        _only_zeros(content, _png_end(content, name), name)
    elif kind == "WEBP":
        end = 8 + int.from_bytes(content[4:8], "little")
        if end > len(content):
            raise truncated(name)
        _only_zeros(content, end, name)
    elif kind == "GIF":
        _only_zeros(content, _gif_end(content), name)
    elif kind == "BMP":
        end = int.from_bytes(content[2:6], "little")
        _no_other_file(content[end if end > 14 else len(content) :], name)


def truncated(name: str) -> MediaError:
    """Return the error of a file that is cut off."""
    return MediaError(
        "unreadable_media",
        f"{name} cannot be decoded as an image: it is truncated, its end is missing",
    )


def lay_out_jpeg(content: bytes, name: str) -> JpegLayout:
    """Find the segments and the end of a JPEG, without decoding.

    Raises:
        MediaError: damaged_metadata if it is cut into absurdly many pieces.
    """
    segments: list[tuple[int, int, int]] = []
    at = 2
    for _ in range(_MAX_PIECES):
        found = _NEXT_MARKER.search(content, at)
        if found is None:
            return JpegLayout(None, tuple(segments))
        marker, at = content[found.end() - 1], found.end()
        if marker == _END:
            return JpegLayout(at, tuple(segments))
        length = int.from_bytes(content[at : at + 2], "big")
        segments.append((marker, at + 2, length - 2))
        at += length
    raise _too_many_pieces(name)


def check_jpeg(content: bytes, layout: JpegLayout, name: str) -> None:
    """Check that a JPEG has an end, and what follows it.

    Raises:
        MediaError: unreadable_media if there is no end, trailing_data if another file follows.
    """
    if layout.end is None:
        raise truncated(name)
    if layout.end == len(content):
        return
    rest = content[layout.end :].strip(_PADDING)
    is_mpo = any(
        marker == 0xE2 and content[at : at + 4] == b"MPF\0" for marker, at, _ in layout.segments
    )
    while is_mpo and rest.startswith(b"\xff\xd8\xff"):
        end = lay_out_jpeg(rest, name).end
        rest = b"" if end is None else rest[end:].strip(_PADDING)
    _no_other_file(rest, name)


def check_jpeg_size(num_bytes: int, size: tuple[int, int], name: str) -> None:
    """Check that a JPEG's header does not claim more pixels than its bytes can hold.

    libjpeg would paint the missing ones grey, and complain to nobody.

    Raises:
        MediaError: unreadable_media if it does.
    """
    width, height = size
    # Every block of 8 x 8 pixels takes a bit at least, be it of one colour.
    if (width // 8) * (height // 8) > 8 * num_bytes:
        raise MediaError(
            "unreadable_media",
            f"{name} cannot be decoded as an image: its header says {width} x {height} px, for "
            f"which {num_bytes:,} bytes are too few",
        )


def read_plain_jpeg(content: bytes, layout: JpegLayout) -> tuple[str, int, int] | None:
    """Read mode and size of a JPEG without EXIF, colour profile or other notes.

    It takes a tenth of the time Pillow takes for a header, and most pictures of a large set
    are like this.

    Returns:
        Pillow's mode, width and height; None if the file needs a closer look.
    """
    frames = [piece for piece in layout.segments if piece[0] in _FRAMES]
    if len(frames) != 1 or any(piece[0] not in _PLAIN_SEGMENTS for piece in layout.segments):
        return None
    at = frames[0][1]
    if len(content) < at + 6:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", content, at)
    if precision != 8 or components not in (1, 3) or not width or not height:
        return None
    return "L" if components == 1 else "RGB", width, height


def _png_end(content: bytes, name: str) -> int:
    view, at, texts = memoryview(content), 8, 0
    for kind, start, end in _png_chunks(content, name):
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise MediaError(
                "trailing_data",
                f"{name} has a {kind.decode('latin-1')} chunk whose checksum does not hold: it "
                "is damaged, or was changed by hand; save it again",
            )
        if kind in (b"zTXt", b"iTXt", b"iCCP"):
            texts += _unpacked_bytes(view[start:end].tobytes(), kind)
            if texts > _MAX_TEXTS_BYTES:
                raise _too_much_text(name)
        at = end + 4
    return at


def _png_chunks(content: bytes, name: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind and extent of each chunk of a PNG, IEND the last."""
    at = 8
    for _ in range(_MAX_PIECES):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(content):
            raise truncated(name)
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise _too_many_pieces(name)


def _unpacked_bytes(chunk: bytes, kind: bytes) -> int:
    """Tell how much a compressed text unpacks to; beyond the limit of one, more than of all."""
    packed = chunk.partition(b"\0")[2]
    if kind == b"iTXt":
        if packed[:1] != b"\1":
            return len(packed)
        packed = packed[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        packed = packed[1:]  # the method
    try:
        size = len(zlib.decompressobj().decompress(packed, _MAX_TEXT_BYTES + 1))
    except zlib.error:  # a broken text or profile is not used
        return 0
    return size if size <= _MAX_TEXT_BYTES else _MAX_TEXTS_BYTES + 1


def _gif_end(content: bytes) -> int:
    """Find the end of a GIF; that of the file if it has none."""
    at = 13 + _colour_table_bytes(content, 10)
    while at < len(content):
        block = content[at]
        if block == 0x3B:  # the trailer
            return at + 1
        if block == 0x21:  # an extension: a label, then data
            at += 2
        elif block == 0x2C:  # a picture: a descriptor, perhaps colours, a code size, then data
            at += 11 + _colour_table_bytes(content, at + 9)
        else:
            break
        while at < len(content) and content[at]:
            at += 1 + content[at]
        at += 1
    return len(content)


def _colour_table_bytes(content: bytes, at: int) -> int:
    flags = content[at] if at < len(content) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _only_zeros(content: bytes, end: int, name: str) -> None:
    rest = content[end:]
    if rest.strip(b"\0"):
        raise _follows(len(rest), name)


def _no_other_file(rest: bytes, name: str) -> None:
    rest = rest.strip(_PADDING)
    if not rest.strip(b"\xff"):  # fill bytes
        return
    if len(rest) > _MAX_NOTE_BYTES or _HIDDEN_FILE.search(rest):
        raise _follows(len(rest), name)


def _follows(num_bytes: int, name: str) -> MediaError:
    return MediaError(
        "trailing_data",
        f"{name} goes on behind the picture's end, for {num_bytes:,} bytes that may be another "
        "file; save it again as a plain image",
    )


def _too_many_pieces(name: str) -> MediaError:
    return MediaError(
        "damaged_metadata",
        f"{name} is cut into more than {_MAX_PIECES:,} pieces; save it again",
    )


def _too_much_text(name: str) -> MediaError:
    return MediaError(
        "damaged_metadata",
        f"{name} holds compressed texts that unpack to more than {_MAX_TEXT_BYTES >> 20} MiB; "
        "save it again without metadata",
    )
