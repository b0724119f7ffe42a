from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovis_model.data import images
from ovis_model.data.images import load_image, plain_extension, to_rgb
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
