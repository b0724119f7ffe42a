import numpy as np
import pytest
from PIL import Image

from ovis_model.processing.image_processing_ovis2_5 import (
    Ovis2_5ImageProcessor,
    normalize,
    smart_resize,
    to_patches,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((480, 640), (480, 640), id="already fits"),
        pytest.param((31, 31), (32, 32), id="one pixel short of a cell"),
        pytest.param((33, 33), (32, 32), id="one pixel over a cell"),
        pytest.param((48, 48), (64, 64), id="half to even: 1.5 cells make 2"),
        pytest.param((80, 80), (64, 64), id="half to even: 2.5 cells make 2"),
    ],
)
def test_sides_become_multiples_of_a_cell(size, expected):
    assert smart_resize(*size, min_pixels=1024, max_pixels=640 * 640) == expected


def test_a_large_image_shrinks_below_the_limit_and_a_small_one_grows_to_it():
    rows, columns = smart_resize(1000, 2000, min_pixels=1024, max_pixels=448 * 448)
    assert rows * columns <= 448 * 448
    rows, columns = smart_resize(10, 20, min_pixels=448 * 448, max_pixels=1792 * 1792)
    assert rows * columns >= 448 * 448


@pytest.mark.parametrize("size", [(1, 10000), (10000, 1), (5, 20000), (33, 6600)])
def test_no_image_is_too_thin_to_keep_a_cell(size):
    rows, columns = smart_resize(*size, min_pixels=1024, max_pixels=448 * 448)
    assert min(rows, columns) == 32
    assert rows * columns <= 448 * 448


def test_patches_list_channel_row_column_in_merge_order():
    # Every 16 px patch of a 32 x 64 px frame has its own grey value: raster number times ten.
    raster = np.arange(8).reshape(2, 4) * 10
    frame = raster.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
    patches = to_patches(np.stack([frame] * 3, axis=-1)[None])
    assert patches.shape == (8, 768)
    assert (patches[:, 0] // 10).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_values_are_scaled_to_minus_one_and_one():
    assert normalize(np.array([0, 255], dtype=np.uint8)).tolist() == [-1.0, 1.0]


def test_all_frames_take_the_size_of_the_first():
    frames = [Image.new("RGB", (64, 32)), Image.new("RGB", (32, 32))]
    patches, grid = Ovis2_5ImageProcessor().preprocess(frames, min_pixels=1024, max_pixels=4096)
    assert grid == (2, 2, 4)
    assert tuple(patches.shape) == (16, 768)


def test_no_frame_is_an_error():
    with pytest.raises(ValueError, match="no frame"):
        Ovis2_5ImageProcessor().preprocess([], min_pixels=1024, max_pixels=4096)
