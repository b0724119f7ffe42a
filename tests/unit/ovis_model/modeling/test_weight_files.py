import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovis_model.errors import CheckpointError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.weight_files import (
    INDEX,
    find_tensors,
    read_header,
    verify_digests,
    write_weights,
)

WEIGHTS = {
    "a.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b.weight": torch.arange(4, dtype=torch.bfloat16),
    "c.weight": torch.ones(3, dtype=torch.float16).expand(2, 3),
    "d.scale": torch.tensor(0.5),
    "e.empty": torch.zeros(0, 4),
}


@pytest.fixture
def shards(tmp_path):
    """Four tensors in as many shards."""
    write_weights(tmp_path, {name: torch.full((2,), float(ord(name))) for name in "wxyz"}, 8)
    return tmp_path


def change_index(folder, change):
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def rewrite(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def test_the_library_reads_what_was_written(tmp_path):
    write_weights(tmp_path, WEIGHTS, "1GB")
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert read[name].dtype is tensor.dtype
        assert torch.equal(read[name], tensor)


def test_headers_tell_names_shapes_and_places(tmp_path):
    write_weights(tmp_path, WEIGHTS, "1GB")
    stored = find_tensors(tmp_path)
    assert {name: t.shape for name, t in stored.items()} == {
        name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()
    }
    content = (tmp_path / "model.safetensors").read_bytes()
    a = stored["a.weight"]
    assert content[a.start : a.stop] == WEIGHTS["a.weight"].numpy().tobytes()
    assert all(tensor.start % 4 == 0 for tensor in stored.values() if tensor.dtype == "F32")
    assert a.place == "a.weight (model.safetensors)"


def test_what_was_written_equals_its_digests(tmp_path):
    write_weights(tmp_path, WEIGHTS, "1GB")
    assert verify_digests(find_tensors(tmp_path)) == len(WEIGHTS)


def test_files_of_other_writers_have_no_digests_to_compare(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    assert verify_digests(find_tensors(tmp_path)) == 0


def test_every_bit_of_a_tensor_counts(tmp_path):
    write_weights(tmp_path, {"w": torch.ones(4)}, "1GB")
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for position in range(find_tensors(tmp_path)["w"].start, len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 0x80
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"w \(model\.safetensors\)"):
            verify_digests(find_tensors(tmp_path))


def test_a_dtype_or_shape_that_changed_in_the_header_counts(tmp_path):
    write_weights(tmp_path, {"w": torch.ones(2, 3, dtype=torch.bfloat16)}, "1GB")
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for old, new in ((b'"BF16"', b'"F16" '), (b"[2,3]", b"[3,2]")):
        file.write_bytes(whole.replace(old, new))
        with pytest.raises(CheckpointError, match="changed since: w"):
            verify_digests(find_tensors(tmp_path))


@pytest.mark.parametrize("kept", [0, 5, 8, 40, -1])
def test_a_shard_that_was_cut_off_is_named(shards, kept):
    shard = shards / "model-00002-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=r"model-00002-of-00004\.safetensors: .* damaged or cut off, it"
    ):
        find_tensors(shards)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'{"__', b'["__', id="no JSON"),
        pytest.param(b'"dtype"', b'"dtypf"', id="no dtype"),
        pytest.param(b'{"format"', b'{"\xffrmat"', id="no text"),
    ],
)
def test_a_damaged_header_is_an_error_that_names_the_file(shards, old, new):
    shard = shards / "model-00001-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes().replace(old, new))
    with pytest.raises(CheckpointError, match=r"00001-of-00004\.safetensors: .* its header"):
        read_header(shard)


def test_a_shard_that_the_index_lists_and_nobody_has_is_named(shards):
    (shards / "model-00003-of-00004.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not there: model-00003-of-00004\.safe.* Fetch"):
        find_tensors(shards)


def test_an_index_cannot_lead_out_of_its_folder(shards):
    outside = shards.parent / "outside.safetensors"
    shutil.copy(shards / "model-00001-of-00004.safetensors", outside)
    change_index(shards, lambda index: index.update(w="../outside.safetensors"))
    with pytest.raises(CheckpointError, match=r"not there: \.\./outside\.safetensors"):
        find_tensors(shards)


def swap(index):
    index["x"], index["y"] = index["y"], index["x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            swap,
            r"in another shard: x \(model-00002-of-00004\.safetensors instead of model-00003",
            id="wrong shard",
        ),
        pytest.param(
            lambda index: index.update(v="model-00001-of-00004.safetensors"),
            r"in no shard: v \(model-00001-of-00004\.safetensors\)",
            id="no such tensor",
        ),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(shards, change, message):
    change_index(shards, change)
    with pytest.raises(CheckpointError, match=message + r".*from one source"):
        find_tensors(shards)


def test_a_tensor_that_no_index_lists_is_refused(shards):
    rewrite(shards / "model-00001-of-00004.safetensors", lambda w: w.update(extra=torch.ones(1)))
    with pytest.raises(CheckpointError, match=r"not in the index: extra \(model-00001"):
        find_tensors(shards)


def test_a_tensor_in_two_shards_is_refused(shards):
    rewrite(shards / "model-00001-of-00004.safetensors", lambda w: w.update(z=torch.ones(2)))
    with pytest.raises(
        CheckpointError, match=r"in two shards: z \(model-00001-of-.*, model-00004-of-"
    ):
        find_tensors(shards)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"w": 1}}'])
def test_a_damaged_index_is_an_error_that_names_it(shards, content):
    (shards / INDEX).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"index\.json is damaged: it holds no weight_map"):
        find_tensors(shards)


def test_two_sets_of_weights_are_one_too_many(shards):
    write_weights(shards, WEIGHTS, "1GB")
    with pytest.raises(CheckpointError, match="not unique; remove the one that was left behind"):
        find_tensors(shards)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.ckpt"])
def test_pickled_weights_are_refused_with_a_reason_and_a_remedy(checkpoint, tmp_path, name):
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=rf"{name} may be .* runs the code .* `save_pre"):
        load_model(tmp_path)


def test_quantised_weights_are_refused(tmp_path):
    weights = {"q.weight": torch.ones(4, dtype=torch.int8), "w": torch.ones(1)}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is quantised: q\.weight \(model\.safetensors\)"):
        find_tensors(tmp_path)
