import numpy as np
import pytest
import torch
from PIL import Image

from ovis_model.errors import DataError
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.image_processing_ovis2_5 import (
    Ovis2_5ImageProcessor,
    check_frame_sizes,
    smart_resize,
    to_patches,
)

LIMITS = {"min_pixels": 1024, "max_pixels": 4096}


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def plain_patches(frame):
    """Cut one frame patch by patch, in merge order."""
    values = np.asarray(frame)
    return np.stack(
        [
            values[y : y + 16, x : x + 16].transpose(2, 0, 1).reshape(768)
            for top in range(0, frame.height, 32)
            for left in range(0, frame.width, 32)
            for y in (top, top + 16)
            for x in (left, left + 16)
        ]
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


@pytest.mark.parametrize(
    ("size", "expected"),
    [((40, 40 * 201), (32, 8000)), ((40 * 201, 40), (8000, 32)), ((40, 40 * 200), (32, 8000))],
    ids=["too wide", "too high", "just not too wide"],
)
def test_a_strip_longer_than_200_to_1_is_shortened_to_that(size, expected):
    assert smart_resize(*size, min_pixels=1024, max_pixels=1792 * 1792) == expected


def test_patches_list_channel_row_column_in_merge_order():
    # Every 16 px patch of a 32 x 64 px frame has its own grey value: raster number times ten.
    raster = np.arange(8).reshape(2, 4) * 10
    frame = raster.repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
    patches = to_patches([Image.fromarray(np.stack([frame] * 3, axis=-1))])
    assert patches.shape == (8, 768)
    assert (patches[:, 0] // 10).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


@pytest.mark.parametrize(("width", "height"), [(32, 32), (96, 64), (64, 160)])
def test_every_byte_of_every_frame_is_where_cutting_patch_by_patch_puts_it(width, height):
    frames = [noise(width, height, seed) for seed in range(3)]
    expected = np.concatenate([plain_patches(frame) for frame in frames])
    assert np.array_equal(to_patches(frames), expected)


def test_pixels_travel_as_bytes_and_the_model_scales_them_to_minus_one_and_one():
    frame = Image.new("RGB", (32, 32), (0, 255, 0))
    patches, grid = Ovis2_5ImageProcessor().preprocess([frame], **LIMITS)
    assert grid == (1, 2, 2)
    assert patches.dtype == torch.uint8
    assert normalize_patches(patches)[0, ::256].tolist() == [-1.0, 1.0, -1.0]


def test_an_image_of_the_right_size_keeps_its_pixels_and_another_is_resized_bilinearly():
    processor = Ovis2_5ImageProcessor()
    right, wrong = noise(64, 32), noise(70, 40)
    assert np.array_equal(processor.preprocess([right], **LIMITS)[0], plain_patches(right))
    resized = wrong.resize((64, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(processor.preprocess([wrong], **LIMITS)[0], plain_patches(resized))


@pytest.mark.parametrize("height", [1, 3])
def test_rows_are_never_taken_for_channels(height):
    image = noise(40, height)
    patches, grid = Ovis2_5ImageProcessor().preprocess([image], **LIMITS)
    size = (grid[2] * 16, grid[1] * 16)
    assert np.array_equal(patches, plain_patches(image.resize(size, Image.Resampling.BILINEAR)))


def test_the_grid_is_known_from_the_size_alone():
    processor = Ovis2_5ImageProcessor()
    for width, height in ((1, 1), (31, 200), (640, 480), (5000, 20)):
        frames = [Image.new("RGB", (width, height))] * 2
        _, grid = processor.preprocess(frames, **LIMITS)
        assert processor.grid(width, height, num_frames=2, **LIMITS) == grid


def test_frames_of_different_size_are_refused_by_number_and_size():
    """DIVERGES(mixed-frame-sizes)."""
    with pytest.raises(
        DataError,
        match=r"frame 3 of the video is 32 x 32 px and frame 1 is 64 x 32 px; crop or scale",
    ):
        check_frame_sizes([(64, 32), (64, 32), (32, 32)])
    check_frame_sizes([(64, 32)] * 3)


def test_no_frame_is_an_error():
    with pytest.raises(ValueError, match="no frame to preprocess; give one image or"):
        Ovis2_5ImageProcessor().preprocess([], **LIMITS)


@pytest.mark.parametrize(("low", "high"), [(0, 4096), (-1, 4096), (4097, 4096), (1024, -1)])
def test_limits_that_leave_no_size_are_refused(low, high):
    message = rf"min_pixels \({low} px\) and max_pixels \({high} px\) must be above 0 and in this"
    with pytest.raises(ValueError, match=message):
        Ovis2_5ImageProcessor().grid(64, 64, min_pixels=low, max_pixels=high)


def test_equal_limits_are_no_contradiction():
    grid = Ovis2_5ImageProcessor().grid(500, 500, min_pixels=4096, max_pixels=4096)
    assert grid == (1, 4, 4)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ValueError, match=rf"an image of {size[0]} x {size[1]} px has no pixels"):
        Ovis2_5ImageProcessor().grid(*size, **LIMITS)
