"""Sizes, patches and frame indices equal the reference's exactly."""

import hashlib

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor, smart_resize

from .conftest import GOLDEN, cases, manifest, needs_golden, read

pytestmark = needs_golden


# ---- sizes ----------------------------------------------------------------------------------


def resize_rows(wanted):
    """Return the rows of the resize table by what the reference does with them."""
    table = read("smart_resize.json")
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    kinds = {"raises": [], "zero side": [], "size": []}
    for row in rows:
        tag = row["tag"] or ""
        is_zero = "RESULT_HAS_ZERO_SIDE" in tag
        kinds["raises" if "raises" in tag else "zero side" if is_zero else "size"].append(row)
    return kinds[wanted]


def resize(row):
    return smart_resize(
        row["height"],
        row["width"],
        factor=row["factor"],
        min_pixels=row["min_pixels"],
        max_pixels=row["max_pixels"],
    )


def test_every_size_of_the_resize_table_is_equal():
    rows = resize_rows("size")
    assert len(rows) > 200
    for row in rows:
        assert resize(row) == (row["out_height"], row["out_width"]), row


def test_no_side_of_a_thin_image_becomes_empty():
    """DIVERGES(resize-zero-side)."""
    rows = resize_rows("zero side")
    assert rows
    for row in rows:
        assert 0 in (row["out_height"], row["out_width"])
        height, width = resize(row)
        assert min(height, width) == row["factor"]
        assert height * width <= row["max_pixels"]
        assert (height < width) == (row["height"] < row["width"])


def test_a_size_without_pixels_is_refused():
    rows = resize_rows("raises")
    assert rows
    for row in rows:
        with pytest.raises(ValueError, match="has no pixels"):
            resize(row)


# ---- pixels ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_pixels():
    return load_file(GOLDEN / "preprocess" / "tensors.safetensors")


def frames_of(case):
    return [Image.open(GOLDEN / "preprocess" / name) for name in case["files"]]


def prepare(case, frames):
    patches, grid = Ovis2_5ImageProcessor().preprocess(
        frames, min_pixels=case["min_pixels"], max_pixels=case["max_pixels"]
    )
    assert [list(grid)] == case["grid_thw"]
    assert patches.dtype == torch.uint8
    return normalize_patches(patches)


def assert_equal_bits(values, case, stored):
    name = case["name"]
    assert list(values.shape) == case["pixel_values_shape"]
    assert hashlib.sha256(values.numpy().tobytes()).hexdigest() == case["pixel_values_sha256"]
    assert stored[f"{name}.grid_thw"].tolist() == case["grid_thw"]
    if case["store"] == "full":
        assert torch.equal(values, stored[f"{name}.pixel_values"])
        return
    rows = stored[f"{name}.row_index"]
    assert torch.equal(values[rows], stored[f"{name}.pixel_values_rows"])
    assert values.double().mean().item() == pytest.approx(case["mean"], rel=1e-5, abs=1e-6)
    assert values.double().std().item() == pytest.approx(case["std"], rel=1e-5)


@pytest.mark.parametrize("case", cases("preprocess"))
def test_pixels_are_equal_bit_for_bit(case, stored_pixels):
    assert_equal_bits(prepare(case, frames_of(case)), case, stored_pixels)


@pytest.mark.parametrize(
    "probe",
    [
        pytest.param(probe, id="{}x{}".format(*probe["size_wh"]))
        for probe in manifest("preprocess").get("reference_bug_probe", [])
    ],
)
def test_very_flat_images_are_read_row_by_row(probe):
    """DIVERGES(flat-images): the reference takes 1 or 3 rows for channels."""
    width, height = probe["size_wh"]
    ramp = bytes(number % 256 for number in range(3 * width * height))
    image = Image.frombytes("RGB", (width, height), ramp)
    patches, (_, rows, columns) = Ovis2_5ImageProcessor().preprocess(
        [image], min_pixels=2048, max_pixels=65536
    )
    resized = image.resize((columns * 16, rows * 16), Image.Resampling.BILINEAR)
    # (h2, w2, i, j, channel, y, x) -> (h2, i, y, w2, j, x, channel)
    blocks = patches.view(rows // 2, columns // 2, 2, 2, 3, 16, 16)
    picture = blocks.permute(0, 2, 5, 1, 3, 6, 4).reshape(rows * 16, columns * 16, 3)
    assert picture.numpy().tobytes() == resized.tobytes()
    if "grid" in probe:
        assert probe["grid"] == [[1, rows, columns]]


# ---- frames ---------------------------------------------------------------------------------


def test_frame_indices_are_equal():
    rows = read("dataset/frame_sampling.json")["rows"]
    assert len(rows) > 100
    for num_frames, low, high, expected in rows:
        assert sample_frame_indices(num_frames, min_frames=low, max_frames=high) == expected
