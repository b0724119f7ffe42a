"""Checkpoints in the official layout: read strictly, written whole.

Only safetensors are read, nothing from the folder is executed.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer

from ovis_model.errors import CheckpointError, list_examples
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.tokens import TokenIds, Tokenizer

MAX_SHARD_SIZE = "5GB"
INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


class SavesItself(Protocol):
    """A processor, as far as a checkpoint is concerned."""

    def save_pretrained(self, path: Path) -> None:
        """Write tokenizer, chat template and preprocessing settings."""
        ...


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer of a checkpoint folder, offline and without running its code."""
    if not (path / "tokenizer_config.json").is_file():
        raise CheckpointError(
            f"{path} has no tokenizer_config.json; copy the tokenizer files of the base checkpoint"
        )
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(path), trust_remote_code=False, local_files_only=True
    )
    checked: Tokenizer = tokenizer
    return checked


def load_model(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> Ovis2_5ForConditionalGeneration:
    """Load a checkpoint folder strictly.

    Args:
        path: Folder with config.json, safetensors weights and the tokenizer.
        dtype: Precision of the weights; None keeps the stored one.
        attn_implementation: Attention of the language model; None lets transformers choose.

    Returns:
        The model in evaluation mode, knowing its tokenizer's ids.

    Raises:
        CheckpointError: If a file is missing, or a tensor is missing, unexpected, misshapen or
            not finite; it names the tensors.
    """
    _check_files(path)
    options: dict[str, Any] = {"dtype": dtype or "auto"}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    try:
        loaded: Any = Ovis2_5ForConditionalGeneration.from_pretrained(
            str(path),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, all of them at once
            **options,
        )
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: a weights file is damaged or cut off ({error}); restore it from its source"
        ) from error
    model, info = loaded
    findings = [f"{kind.replace('_', ' ')}: {_names(info[kind])}" for kind in info if info[kind]]
    if findings:
        raise CheckpointError(
            f"{path} does not fit its config.json; {'; '.join(findings)}. Use a complete Ovis2.5 "
            "checkpoint, or restore the folder from its source"
        )
    _check_finite(model, path)
    model.token_ids = TokenIds.of(load_tokenizer(path))
    result: Ovis2_5ForConditionalGeneration = model.eval()
    return result


def save_checkpoint(
    model: Ovis2_5ForConditionalGeneration,
    processor: SavesItself,
    path: Path,
    *,
    base: Path | None = None,
    state_dict: dict[str, Tensor] | None = None,
) -> None:
    """Write weights, config, tokenizer and preprocessing in the official layout.

    Args:
        model: The model.
        processor: Its processor.
        path: Folder to write; made if absent.
        base: The checkpoint this one came from; its extra files are kept.
        state_dict: Gathered weights, where the model's own are partitioned (ZeRO-3).
    """
    model.save_pretrained(str(path), state_dict=state_dict, max_shard_size=MAX_SHARD_SIZE)
    processor.save_pretrained(path)
    if base is not None:
        for extra in sorted(base.iterdir()):
            target = path / extra.name
            if extra.is_file() and not target.exists() and not _is_weights(extra):
                shutil.copyfile(extra, target)


def _is_weights(path: Path) -> bool:
    # Neither another model's weights nor what a training left beside them belongs to the copy.
    own = {INDEX, "manifest.json", "lineage.json", "train_config.json"}
    return path.suffix in {".safetensors", ".bin", ".pt", ".pth"} or path.name in own


def _check_files(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise CheckpointError(
            f"{path} is not a checkpoint folder: it has no config.json. Give the path of a local "
            "Ovis2.5 folder (this project downloads nothing)"
        )
    if not (path / INDEX).is_file():
        if not (path / SINGLE_FILE).is_file():
            raise CheckpointError(
                f"{path} has neither {SINGLE_FILE} nor {INDEX}; only safetensors weights are read"
            )
        return
    shards = set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    if missing := sorted(name for name in shards if not (path / name).is_file()):
        raise CheckpointError(f"{path}: {INDEX} names shards that are not there: {missing}")


def _check_finite(model: Ovis2_5ForConditionalGeneration, path: Path) -> None:
    bad = [
        name
        for name, tensor in model.named_parameters()
        if tensor.numel() and not torch.isfinite(tensor).all()
    ]
    if bad:
        raise CheckpointError(f"{path}: NaN or infinite values in {list_examples(bad)}")


def _names(found: Any) -> str:
    return list_examples(
        sorted(str(item[0] if isinstance(item, tuple) else item) for item in found)
    )
