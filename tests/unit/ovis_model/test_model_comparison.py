import pytest
import torch
from safetensors.torch import save_file

from ovis_model.model_comparison import compare_files, largest_difference, measure_differences

WEIGHTS = {"a": torch.zeros(2, 2), "b": torch.ones(3, dtype=torch.bfloat16)}


@pytest.fixture
def folders(tmp_path):
    """Two model folders with the same weights, and a way to write others into the second."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save_file(WEIGHTS, tmp_path / name / "model.safetensors")
    return tmp_path / "one", tmp_path / "other"


def test_files_are_compared_by_digest_and_missing_ones_are_named():
    files = compare_files({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"})
    assert [name for name, one in files.items() if one.identical] == ["a"]
    assert (files["b"].expected, files["b"].found) == ("2", "9")
    assert (files["c"].found, files["d"].expected) == (None, None)


def test_weights_that_differ_say_by_how_much_and_other_files_do_not(folders):
    one, other = folders
    weights = {**WEIGHTS, "b": WEIGHTS["b"] + 0.5}
    save_file(weights, other / "model.safetensors")
    files = compare_files(
        {"model.safetensors": "1", "same.safetensors": "2", "config.json": "3"},
        {"model.safetensors": "9", "same.safetensors": "2", "config.json": "9"},
    )
    measured = measure_differences(files, one, other)
    assert {name: file.max_abs_difference for name, file in measured.items()} == {
        "model.safetensors": 0.5,
        "same.safetensors": None,
        "config.json": None,
    }


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"a": torch.zeros(2, 2)}, id="a tensor less"),
        pytest.param({**WEIGHTS, "a": torch.zeros(4)}, id="another shape"),
        pytest.param({**WEIGHTS, "a": torch.full((2, 2), float("nan"))}, id="not a number"),
    ],
)
def test_what_cannot_be_subtracted_has_no_difference(folders, other):
    save_file(other, folders[1] / "model.safetensors")
    assert largest_difference(*(folder / "model.safetensors" for folder in folders)) is None


def test_equal_weights_differ_by_nothing(folders):
    assert largest_difference(*(folder / "model.safetensors" for folder in folders)) == 0.0


def test_a_damaged_file_has_no_difference(folders):
    one, other = (folder / "model.safetensors" for folder in folders)
    other.write_bytes(other.read_bytes()[:-1])
    assert largest_difference(one, other) is None
