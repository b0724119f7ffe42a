import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from ovis_model.data import images
from ovis_model.data.images import load_image, load_rgb, plain_extension, read_size, to_rgb
from ovis_model.errors import DataError
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
    with pytest.raises(DataError, match=r"page\.jpg cannot be decoded .*: cannot identify"):
        load_image(path)


def test_a_small_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100 - 1)
    path = save(tmp_path / "large.png", Image.new("L", (100, 100)))
    with pytest.raises(DataError, match=r"is 100 x 100 px, above the limit of 9,999 px; scale"):
        load_image(path)


def test_pillows_own_limit_becomes_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "bomb.png", Image.new("L", (100, 100)))
    with pytest.raises(DataError, match=r"decodes to too many pixels"):
        load_image(path)


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
        ("page.jpg", b"<html>404</html>", r"page\.jpg cannot be decoded .*: cannot identify"),
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
