"""Safetensors files: found and checked before they are read, and written with their digests.

A file begins with the length of its header (8 bytes) and the header, JSON that gives every
tensor its dtype, shape and place; the bytes of the tensors follow.  Readers notice neither
flipped bits nor an index that disagrees with the files.  So what is written here carries, in
the header's free `__metadata__`, the sha256 of each tensor (its dtype and shape, a newline, its
bytes), which other readers ignore.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from pydantic import BaseModel, TypeAdapter
from torch import Tensor

from ovis_model.errors import CheckpointError, list_examples
from ovis_model.reports import PICKLES, write_text

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: Key of the digests in a file's `__metadata__`.
DIGESTS = "sha256"

_LENGTH_BYTES = 8
_READ_BLOCK_BYTES = 1 << 20
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    #: First byte in the file, and the one after the last.
    start: int
    stop: int
    #: Recorded when it was written; None in files of other writers.
    digest: str | None

    @property
    def place(self) -> str:
        """Name and file, for messages."""
        return f"{self.name} ({self.file.name})"


class _Entry(BaseModel):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_HEADER = TypeAdapter(dict[str, _Entry])
_WEIGHT_MAP = TypeAdapter(dict[str, str])
_DIGESTS = TypeAdapter(dict[str, str])


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Find every tensor of a checkpoint folder by its files' headers alone.

    Raises:
        CheckpointError: If there are no safetensors weights, a file is missing, damaged or cut
            off, a tensor is in two files or not where the index says, or its numbers are not
            floating-point.
    """
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE_FILE).is_file():
            raise CheckpointError(_say_what_is_there_instead(folder))
        stored = read_header(folder / SINGLE_FILE)
    elif (folder / SINGLE_FILE).is_file():
        raise CheckpointError(
            f"{folder} has both {SINGLE_FILE} and {INDEX}, so its weights are not unique; remove "
            "the one that was left behind"
        )
    else:
        stored = _find_in_shards(folder)
    if others := [t.place for t in stored.values() if t.dtype not in _DTYPES.values()]:
        raise CheckpointError(
            f"{folder} is quantised: {list_examples(others)} hold no floating-point numbers. Use "
            "the unquantised checkpoint"
        )
    return stored


def _say_what_is_there_instead(folder: Path) -> str:
    missing = f"{folder} has neither {SINGLE_FILE} nor {INDEX}; only safetensors weights are read"
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        return f"{missing}. Fetch the weights, or give the path of a complete checkpoint"
    return (
        f"{missing}. {list_examples(pickles)} may be pickled weights, and reading a pickle runs "
        "the code in it: take the safetensors files of the same checkpoint, or convert it with "
        "`save_pretrained` where you trust its origin"
    )


def _find_in_shards(folder: Path) -> dict[str, StoredTensor]:
    weight_map = _read_weight_map(folder / INDEX)
    shards = sorted(set(weight_map.values()))
    # A name with a folder in it could lead out of this one.
    missing = [s for s in shards if Path(s).name != s or not (folder / s).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {INDEX} names shards that are not there: {list_examples(missing)}. Fetch "
            "them from where the checkpoint comes from"
        )
    found: dict[str, list[StoredTensor]] = defaultdict(list)
    for shard in shards:
        for name, tensor in read_header(folder / shard).items():
            found[name].append(tensor)
    complaints = list(_compare_with_index(weight_map, found))
    if complaints:
        raise CheckpointError(
            f"{folder}: {INDEX} and the shards disagree; {'; '.join(complaints)}. Restore the "
            "shards and the index from one source"
        )
    return {name: tensors[0] for name, tensors in found.items()}


def _compare_with_index(
    weight_map: Mapping[str, str], found: Mapping[str, list[StoredTensor]]
) -> Iterator[str]:
    twice = [
        f"{name} ({', '.join(tensor.file.name for tensor in tensors)})"
        for name, tensors in sorted(found.items())
        if len(tensors) > 1
    ]
    moved = [
        f"{name} ({found[name][0].file.name} instead of {shard})"
        for name, shard in sorted(weight_map.items())
        if name in found and shard not in {tensor.file.name for tensor in found[name]}
    ]
    lost = [f"{n} ({shard})" for n, shard in sorted(weight_map.items()) if n not in found]
    unlisted = [found[name][0].place for name in sorted(found.keys() - weight_map.keys())]
    kinds = {
        "in two shards": twice,
        "in another shard": moved,
        "in no shard": lost,
        "not in the index": unlisted,
    }
    return (f"{kind}: {list_examples(places)}" for kind, places in kinds.items() if places)


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        weight_map = _WEIGHT_MAP.validate_python(content["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{index} is damaged: it holds no weight_map of tensors and their files; restore it "
            "from its source"
        ) from error
    return weight_map


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Read which tensors a safetensors file holds, and check that it holds all their bytes.

    Raises:
        CheckpointError: If the file is damaged or cut off.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = stream.read(length) if length <= size - _LENGTH_BYTES else b""
    try:
        entries: dict[str, Any] = json.loads(header)
        metadata = entries.pop("__metadata__", {})
        digests = _DIGESTS.validate_json(metadata.get(DIGESTS, "{}"))
        tensors = _HEADER.validate_python(entries)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file}: the weights file is damaged or cut off, its header cannot be read; restore "
            "it from its source"
        ) from error
    begin = _LENGTH_BYTES + length
    end = begin + max((entry.data_offsets[1] for entry in tensors.values()), default=0)
    if end != size:
        raise CheckpointError(
            f"{file}: the weights file is damaged or cut off, it has {size} bytes instead of "
            f"{end}; restore it from its source"
        )
    return {
        name: StoredTensor(
            name=name,
            file=file,
            dtype=entry.dtype,
            shape=entry.shape,
            start=begin + entry.data_offsets[0],
            stop=begin + entry.data_offsets[1],
            digest=digests.get(name),
        )
        for name, entry in tensors.items()
    }


def verify_digests(stored: Mapping[str, StoredTensor]) -> int:
    """Compare the tensors' bytes with the digests that were recorded when they were written.

    It reads every byte of the weights, in as many threads as there are processors, up to eight.

    Returns:
        How many tensors have a digest; 0 for files of other writers.

    Raises:
        CheckpointError: Naming the tensors that have changed.
    """
    recorded = [tensor for tensor in stored.values() if tensor.digest is not None]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(_digest_in_file, recorded)
        changed = [t for t, digest in zip(recorded, found, strict=True) if digest != t.digest]
    if changed:
        raise CheckpointError(
            f"{changed[0].file.parent}: these tensors are not what was saved, bits of them have "
            f"changed since: {list_examples([t.place for t in changed])}. Restore the folder from "
            "its source, or save the model again"
        )
    return len(recorded)


def _digest_in_file(tensor: StoredTensor) -> str:
    digest = _begin_digest(tensor.dtype, tensor.shape)
    left = tensor.stop - tensor.start
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        while left and (block := stream.read(min(left, _READ_BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _begin_digest(dtype: str, shape: tuple[int, ...]) -> "hashlib._Hash":
    # The header's words on the tensor are part of it: bits can flip there, too.
    return hashlib.sha256(f"{dtype} {list(shape)}\n".encode())


def write_weights(folder: Path, weights: Mapping[str, Tensor], max_shard_size: int | str) -> None:
    """Write weights and, for more than one shard, their index, as released checkpoints do.

    Args:
        folder: Existing folder.
        weights: Tensors by name, on any device.
        max_shard_size: Bytes per file, or text like "5GB"; a larger tensor gets its own file.
    """
    split = split_torch_state_dict_into_shards(
        dict(weights),
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for name, keys in split.filename_to_tensors.items():
        _write_file(folder / name, {key: weights[key] for key in sorted(keys)})
    if split.is_sharded:
        total = sum(tensor.nbytes for tensor in weights.values())
        weight_map = dict(sorted(split.tensor_to_filename.items()))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def _write_file(file: Path, weights: dict[str, Tensor]) -> None:
    # Not by the library: it writes `__metadata__` in an order that differs from run to run, and
    # equal models shall be equal files.  Wide numbers first keeps all of them aligned.
    names = sorted(weights, key=lambda name: (-weights[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {}}
    digests, position = {}, 0
    for name in names:
        tensor = weights[name]
        dtype, shape = _DTYPES[tensor.dtype], tuple(tensor.shape)
        digest = _begin_digest(dtype, shape)
        digest.update(_bytes_of(tensor))
        digests[name] = digest.hexdigest()
        end = position + tensor.nbytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (position, end)}
        position = end
    header["__metadata__"] = {"format": "pt", DIGESTS: _to_json(digests)}
    text = _to_json(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for name in names:
            stream.write(_bytes_of(weights[name]))


def _bytes_of(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy()


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=False)
