import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from ovis_model.data.media import containers, images
from ovis_model.data.media.images import (
    decode,
    load_image,
    load_rgb,
    look,
    plain_extension,
    read_header,
    read_size,
    to_rgb,
)
from ovis_model.errors import DataError, MediaError
from tests.support.raw_data import picture


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_16_bit_grey_is_scaled_not_cut_off(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    path = save(tmp_path / "grey.png", Image.fromarray(grey))
    image = load_image(path)
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 1, 128, 255]
    assert plain_extension(path, image) is None


def test_what_lies_under_transparent_pixels_stays_hidden(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    path = save(tmp_path / "clear.png", image)
    assert to_rgb(load_image(path)).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_colour_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    path = save(tmp_path / "palette.png", image, transparency=0)
    assert to_rgb(load_image(path)).getpixel((0, 0)) == (255, 255, 255)


def test_the_orientation_a_camera_notes_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    wide = Image.new("RGB", (40, 20), "black")
    path = save(tmp_path / "turned.jpg", wide, exif=exif)
    image = load_image(path)
    assert to_rgb(image).size == (20, 40)
    assert plain_extension(path, image) is None


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("a.png", "RGB", "png"),
        ("a.png", "L", "png"),
        ("a.jpg", "RGB", "jpg"),
        ("a.jpg", "CMYK", None),
        ("a.png", "1", None),
        ("a.bmp", "RGB", None),
    ],
)
def test_only_plain_pictures_may_be_copied(
    tmp_path: Path, name: str, mode: str, expected: str | None
) -> None:
    path = save(tmp_path / name, picture(100).convert(mode))
    image = load_image(path)
    assert plain_extension(path, image) == expected
    assert to_rgb(image).mode == "RGB"


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "named.jpg", picture(100), format="PNG")
    assert plain_extension(path, load_image(path)) == "png"


def test_floating_point_pixels_have_no_agreed_range(tmp_path: Path) -> None:
    path = save(tmp_path / "float.tiff", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(DataError, match=r"32-bit pixels \(mode 'F'\).*convert it to 8 or 16 bits"):
        to_rgb(load_image(path))


def test_a_cut_off_jpeg_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.jpg", picture(100, side=128))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"cut\.jpg cannot be decoded as an image: .*truncated"):
        load_image(path)


def test_a_web_page_named_as_a_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"page\.jpg cannot be decoded .*: it is a web page, not"):
        load_image(path)


def test_a_small_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100 - 1)
    path = save(tmp_path / "large.png", Image.new("L", (100, 100)))
    with pytest.raises(DataError, match=r"is 100 x 100 px, above the limit of 9,999 px; scale"):
        load_image(path)


def test_a_higher_limit_of_ours_is_not_undone_by_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "large.png", Image.new("L", (100, 100)))
    assert load_image(path, max_pixels=10_000).size == (100, 100)
    with pytest.raises(MediaError, match="above the limit of 9,999 px"):
        load_image(path, max_pixels=9_999)


def test_a_film_is_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    picture(0).save(path, save_all=True, append_images=[picture(200)])
    with pytest.raises(DataError, match=r"film\.gif is animated; save one frame"):
        load_image(path)


# ---- sizes out of headers -------------------------------------------------------------------


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_the_header_tells_the_size_the_upright_image_has(
    tmp_path: Path, name: str, orientation: int
) -> None:
    path = save(tmp_path / name, Image.new("RGB", (40, 20)), exif=turned(orientation))
    expected = (20, 40) if orientation > 4 else (40, 20)
    assert read_size(path) == load_rgb(path).size == expected


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "I;16"),
        ("a.png", "LA"),
        ("a.png", "P"),
        ("a.gif", "L"),
        ("a.bmp", "1"),
        ("a.jpg", "CMYK"),
        ("a.tiff", "L"),
    ],
)
def test_every_format_and_mode_tells_its_size(tmp_path: Path, name: str, mode: str) -> None:
    path = save(tmp_path / name, Image.new(mode, (7, 3)))
    assert read_size(path) == load_rgb(path).size == (7, 3)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tiff"])
def test_an_orientation_noted_in_xmp_counts(tmp_path: Path, name: str) -> None:
    options = {"tiffinfo": {700: XMP}} if name == "a.tiff" else {"xmp": XMP}
    path = save(tmp_path / name, Image.new("RGB", (40, 20)), **options)
    assert read_size(path) == load_rgb(path).size == (20, 40)


def test_a_png_may_note_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (40, 20)))
    note = b"eXIf" + turned(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(note) - 4) + note + struct.pack(">I", zlib.crc32(note))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])  # before IEND
    assert read_size(path) == load_rgb(path).size == (20, 40)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.gif", "a.bmp"])
def test_no_pixel_is_decoded_for_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = save(tmp_path / name, picture(100))
    size = load_rgb(path).size

    def decode(image: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    assert read_size(path) == size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "page.jpg",
            b"<html>404</html>",
            r"page\.jpg cannot be decoded .*: it is a web page",
        ),
        ("gone.jpg", None, r"gone\.jpg cannot be decoded .*No such file"),
    ],
)
def test_what_has_no_header_has_no_size(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_size(tmp_path / name)


def test_a_header_is_refused_for_what_the_image_would_be_refused_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, numbers = tmp_path / "film.gif", tmp_path / "float.tiff"
    picture(0).save(film, save_all=True, append_images=[picture(200)])
    Image.fromarray(np.ones((2, 2), np.float32)).save(numbers)
    for read in (read_size, load_rgb):
        with pytest.raises(DataError, match=r"film\.gif is animated"):
            read(film)
        with pytest.raises(DataError, match=r"float\.tiff has 32-bit pixels \(mode 'F'\)"):
            read(numbers)
    monkeypatch.setattr(images, "MAX_PIXELS", 3)
    with pytest.raises(DataError, match=r"is 2 x 2 px, above the limit of 3 px; scale it down"):
        read_size(numbers)


def test_damaged_exif_data_is_named_instead_of_guessed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (40, 20)), exif=b"Exif\0\0no such thing")
    message = r"a\.png has damaged EXIF data \(.*\), so which side is up .*; save it again without"
    for read in (read_size, load_rgb):
        with pytest.raises(DataError, match=message):
            read(path)
    with pytest.raises(DataError, match=r"^the image has damaged EXIF data"):
        to_rgb(load_image(path))


def test_a_converted_image_is_always_a_new_one() -> None:
    image = Image.new("RGB", (2, 2))
    to_rgb(image).putpixel((0, 0), (255, 255, 255))
    assert image.getpixel((0, 0)) == (0, 0, 0)


# ---- bytes, codes and names -----------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def code_of(content: bytes, *, read: Callable[..., object] = load_rgb) -> str | None:
    try:
        read(content, name="a file")
    except MediaError as error:
        return error.code if "a file" in str(error) else f"nameless {error.code}"
    return None


def test_bytes_are_read_as_the_file_they_came_from(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", picture(100), exif=turned(6))
    content = path.read_bytes()
    assert load_rgb(content).tobytes() == load_rgb(path).tobytes()
    assert read_size(content) == read_size(path) == (32, 32)
    assert plain_extension(content, load_image(content)) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"\0\0\1\0\1\0\x10\x10", "an icon"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0", "AVIF"),
        (b"\xd7\xcd\xc6\x9a\0\0", "a Windows metafile"),
        (b'{"error": "not found"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer; run `git lfs pull`"),
        (b"\xde\xad\xbe\xef" * 9, "of no known format"),
    ],
)
def test_a_stranger_under_a_pictures_name_is_told_by_its_content(
    content: bytes, words: str
) -> None:
    for read in (load_rgb, read_size):
        with pytest.raises(MediaError, match="one of JPEG, PNG") as caught:
            read(content, name="a.jpg")
        assert caught.value.code == "wrong_format"
        assert f"a.jpg cannot be decoded as an image: it is {words}" in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_cut_off_file_is_refused_in_every_format(kind: str) -> None:
    content = encoded(picture(100, side=128), kind)
    assert code_of(content) is None
    for length in (len(content) // 2, len(content) * 9 // 10):
        assert code_of(content[:length]) == "unreadable_media"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_header_of_bytes_tells_that_the_end_is_missing(kind: str) -> None:
    content = encoded(picture(100, side=128), kind)
    assert code_of(content, read=read_header) is None
    assert code_of(content[:-9], read=read_header) == "unreadable_media"


def test_nothing_is_an_empty_file() -> None:
    assert code_of(b"") == "empty_file"


def test_a_path_that_is_no_file_has_a_code(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "gone.png", "missing_media"), (tmp_path, "not_a_file")):
        with pytest.raises(MediaError) as caught:
            load_rgb(path)
        assert caught.value.code == code


# ---- sizes that headers claim ---------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    pieces = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def tiny_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))


def jpeg_of_size(width: int, height: int) -> bytes:
    content = encoded(picture(100), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (tiny_png(30_000, 30_000), "too_many_pixels"),
        (tiny_png(2**31 - 1, 2**31 - 1), "too_many_pixels"),
        (tiny_png(0, 10), "unreadable_media"),
        (tiny_png(8_000, 8_000), "unreadable_media"),  # allowed, but there are no such pixels
        (jpeg_of_size(65_500, 65_500), "too_many_pixels"),
        (jpeg_of_size(0, 32), "unreadable_media"),
        (jpeg_of_size(32, 0), "unreadable_media"),
        (jpeg_of_size(7_000, 9_000), "unreadable_media"),
    ],
)
def test_a_size_that_only_the_header_knows_is_refused(content: bytes, code: str) -> None:
    assert code_of(content) == code


@pytest.mark.parametrize(
    ("size", "code"),
    [
        ((1, 1), "too_small"),
        ((400, 1), "too_small"),
        ((401, 2), "extreme_shape"),
        ((400, 2), None),
    ],
)
def test_shapes_are_held_against_their_limits(size: tuple[int, int], code: str | None) -> None:
    if code is None:
        images.check_shape(size, name="a", min_side=2)
        return
    with pytest.raises(MediaError, match=rf"^a is {size[0]} x {size[1]} px, ") as caught:
        images.check_shape(size, name="a", min_side=2)
    assert caught.value.code == code


def test_a_frame_larger_than_its_screen_has_too_many_pixels() -> None:
    content = encoded(picture(100).convert("P"), "GIF")
    at = frame_offset(content)
    content = content[:at] + struct.pack("<HH", 65_535, 65_535) + content[at + 4 :]
    for read in (load_rgb, read_header):
        assert code_of(content, read=read) == "too_many_pixels"


def frame_offset(gif: bytes) -> int:
    """Find where a GIF says how far from the corner its frame lies."""
    colours = 3 << ((gif[10] & 7) + 1)
    return gif.index(b",", 13 + colours) + 1


# ---- what hides in a file -------------------------------------------------------------------

PICTURES = {kind: encoded(picture(100), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")}
ZIP = b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize(
    "payload",
    [ZIP, b"\n<?php system('id'); ?>", bytes(9) + b"\x7fELF\2\1\1", b"MZ\x90\0", b"x" * 5000],
)
def test_what_follows_a_pictures_end_is_refused(kind: str, payload: bytes) -> None:
    for read in (load_rgb, read_header):
        assert code_of(PICTURES[kind] + payload, read=read) == "trailing_data"


@pytest.mark.parametrize("kind", PICTURES)
def test_zeros_behind_a_picture_are_padding(kind: str) -> None:
    assert code_of(PICTURES[kind] + bytes(5000)) is None


def test_a_cameras_note_behind_a_jpeg_is_let_pass() -> None:
    assert code_of(PICTURES["JPEG"] + b"\0\0Image_UTC_Data1700000000000SEFHe\0\0\0SEFT") is None


def test_of_an_mpo_the_first_picture_counts() -> None:
    content = encoded(picture(100), "MPO", save_all=True, append_images=[picture(200)])
    header, image = decode(content)
    assert (header.format, image.size) == ("MPO", (32, 32))
    assert image.getpixel((31, 31)) == pytest.approx((100, 100, 100), abs=3)
    assert plain_extension(content, load_image(content)) is None
    assert code_of(content + ZIP) == "trailing_data"


def test_another_jpeg_behind_a_jpeg_is_another_file() -> None:
    assert code_of(PICTURES["JPEG"] * 2) == "trailing_data"


def test_a_wrong_checksum_is_refused_wherever_it_is() -> None:
    content = encoded(picture(100), "PNG", dpi=(72, 72))
    for kind in (b"IHDR", b"pHYs", b"IDAT"):
        at = content.index(kind) + 6
        damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(
            MediaError, match=f"has a {kind.decode()} chunk whose checksum"
        ) as error:
            load_rgb(damaged, name="a")
        assert error.value.code == "trailing_data"


@pytest.mark.parametrize(
    ("kind", "head"),
    [(b"zTXt", b"Comment\0\0"), (b"iCCP", b"p\0\0"), (b"iTXt", b"Comment\0\1\0en\0\0")],
)
def test_a_text_that_unpacks_to_megabytes_is_refused(kind: bytes, head: bytes) -> None:
    bomb = (kind, head + zlib.compress(bytes(3 << 20), 9))
    content = with_chunk(PICTURES["PNG"], bomb)
    assert len(content) < 10_000
    for read in (load_rgb, read_header):
        assert code_of(content, read=read) == "damaged_metadata"


def test_many_texts_together_are_refused_as_one_is() -> None:
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20), 9))
    assert code_of(with_chunk(PICTURES["PNG"], *[text] * 4)) is None
    assert code_of(with_chunk(PICTURES["PNG"], *[text] * 5)) == "damaged_metadata"


def with_chunk(content: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Insert chunks behind a PNG's header."""
    return content[:33] + png(*chunks)[8:] + content[33:]


def test_a_jpeg_of_countless_pieces_is_refused() -> None:
    content = PICTURES["JPEG"]
    pieces = b"\xff\xfe\0\2" * (containers._MAX_PIECES + 1)
    assert code_of(content[:2] + pieces + content[2:]) == "damaged_metadata"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_films_and_books_are_no_pictures(kind: str) -> None:
    content = encoded(picture(0), kind, save_all=True, append_images=[picture(200)])
    assert code_of(content) == code_of(content, read=read_header) == "animated"


# ---- colours --------------------------------------------------------------------------------


def test_one_bit_is_black_or_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert load_rgb(encoded(image, "PNG")).tobytes() == bytes([0, 0, 0, 255, 255, 255])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_half_transparent_black_on_white_is_grey(mode: str) -> None:
    colour = (0, 128) if mode == "LA" else (0, 0, 0, 128)
    content = encoded(Image.new(mode, (1, 1), colour), "PNG")
    assert load_rgb(content).getpixel((0, 0)) == (127, 127, 127)


def test_a_transparent_16_bit_grey_becomes_white() -> None:
    grey = Image.fromarray(np.array([[1000, 65535]], np.uint16))
    content = with_chunk(encoded(grey, "PNG"), (b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(load_rgb(content))[0, :, 0].tolist() == [255, 255]


def test_cmyk_of_adobes_inverted_kind_is_not_a_negative() -> None:
    content = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in content
    assert load_rgb(content).getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=6)


def test_lab_is_converted() -> None:
    content = encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
    assert load_rgb(content).getpixel((0, 0)) == pytest.approx((255, 255, 255), abs=2)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide_profile() -> bytes:
    """Return the profile of sRGB with red and green exchanged, so that its effect shows."""
    profile = bytearray(srgb_profile())
    where = {}
    for n in range(struct.unpack_from(">I", profile, 128)[0]):
        tag, at, _ = struct.unpack_from(">4sII", profile, 132 + 12 * n)
        where[tag] = at
    red, green = where[b"rXYZ"], where[b"gXYZ"]
    profile[red : red + 20], profile[green : green + 20] = (
        profile[green : green + 20],
        profile[red : red + 20],
    )
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_srgb_profile_changes_no_byte(kind: str, mode: str) -> None:
    image = picture(77, side=64).convert(mode)
    content = encoded(image, kind, icc_profile=srgb_profile())
    assert load_rgb(content).tobytes() == load_rgb(encoded(image, kind)).tobytes()
    assert plain_extension(content, load_image(content)) == {"PNG": "png", "JPEG": "jpg"}[kind]


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_another_profile_is_applied_and_the_file_not_copied(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (200, 0, 0)).convert(mode)
    content = encoded(image, "PNG", icc_profile=wide_profile())
    assert load_rgb(content).getpixel((0, 0)) == pytest.approx((0, 200, 0), abs=5)
    assert plain_extension(content, load_image(content)) is None


@pytest.mark.parametrize("profile", [b"broken", srgb_profile()[:200], b"\0" * 500])
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    content = encoded(picture(77), "PNG", icc_profile=profile)
    assert load_rgb(content).tobytes() == picture(77).tobytes()


def test_the_profile_of_other_pixels_is_ignored() -> None:
    content = encoded(picture(77).convert("L"), "PNG", icc_profile=wide_profile())
    assert load_rgb(content).tobytes() == picture(77).tobytes()


@pytest.mark.parametrize(
    "damaged", [b"MM\0*\0", b"no such thing", b"II*\0\0\0\0\x80", turned(6).tobytes()[6:20]]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_is_noticed_in_every_format(kind: str, damaged: bytes) -> None:
    content = encoded(picture(100), kind, exif=b"Exif\0\0" + damaged)
    for read in (load_rgb, read_header):
        assert code_of(content, read=read) == "damaged_metadata"


def test_an_orientation_before_the_damage_counts_and_warns_nobody() -> None:
    exif = turned(6)
    exif[0x0131] = "Software" * 20  # has its text at the end, which is cut off
    content = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif.tobytes()[:-60])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_rgb(content).size == (20, 40)


# ---- looks ----------------------------------------------------------------------------------


def scene(seed: int, side: int = 256) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def distance(first: str, second: str) -> int:
    return (int(first[:16], 16) ^ int(second[:16], 16)).bit_count()


def test_a_copy_looks_the_same_after_scaling_and_saving_and_another_scene_does_not() -> None:
    original = look(scene(1))
    assert len(original) == 16 + 2 * 64
    copy = load_rgb(encoded(scene(1, side=100), "JPEG", quality=60))
    assert distance(original, look(copy)) <= 3
    assert distance(original, look(scene(2))) > 10


def test_where_there_is_little_to_compare_there_is_no_look() -> None:
    assert look(scene(1, side=63)) is None
    assert look(Image.new("RGB", (100, 100), "red")) is None
    assert look(Image.linear_gradient("L").rotate(90).convert("RGB")) is None


def test_only_one_colour_is_blank() -> None:
    assert images.is_blank(Image.new("RGB", (9, 9), "red"))
    assert not images.is_blank(picture(100))
