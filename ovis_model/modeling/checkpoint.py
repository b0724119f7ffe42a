"""Checkpoints in the official layout: read strictly, written whole.

Only safetensors are read, nothing from the folder is executed.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ovis_model.errors import CheckpointError, list_examples
from ovis_model.modeling.folder_files import carry_extra_files, settle_tokenizer_files
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.strict_loading import EMBEDDINGS, TIED_HEAD, UNTIED, not_finite
from ovis_model.modeling.tokenizer_files import has_vocabulary, load_tokenizer
from ovis_model.modeling.weight_files import find_tensors, verify_digests, write_weights
from ovis_model.tokens import TokenIds, Tokenizer

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MAX_SHARD_SIZE = "5GB"


class SavesItself(Protocol):
    """A processor, as far as a checkpoint is concerned."""

    def save_pretrained(self, path: Path) -> None:
        """Write tokenizer, chat template and preprocessing settings."""
        ...


def load_model(
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    verify: bool = True,
    quantization: Any = None,
) -> Ovis2_5ForConditionalGeneration:
    """Load a checkpoint folder strictly, from this machine alone.

    Args:
        path: Folder with config.json, safetensors weights and, for `generate` to know the ids of
            special tokens, the tokenizer.
        dtype: Precision of the weights; None keeps the stored one.
        attn_implementation: One of `attention.IMPLEMENTATIONS`; None means "auto".
        verify: Compare every byte of weights that we saved with the digests in their files.
            Released files have no digests.
        quantization: How transformers is to quantise weights while it loads them, if at all.

    Returns:
        The model in evaluation mode, knowing the ids of the folder's tokenizer if there is one.

    Raises:
        CheckpointError: If a file is missing or damaged, or a tensor is missing, unexpected,
            misshapen, changed or not finite; it names tensors and files.
    """
    if not (path / CONFIG).is_file():
        raise CheckpointError(
            f"{path} is not a checkpoint folder: it has no {CONFIG}. Give the path of a local "
            "Ovis2.5 folder (this project downloads nothing)"
        )
    if verify:
        verify_digests(find_tensors(path))
    model: Ovis2_5ForConditionalGeneration = Ovis2_5ForConditionalGeneration.from_pretrained(
        str(path),
        dtype=dtype or "auto",
        quantization_config=quantization,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if has_vocabulary(path):
        tokenizer = load_tokenizer(path)
        _check_vocabulary(model, tokenizer, path)
        model.token_ids = TokenIds.of(tokenizer)
    if attn_implementation is not None:
        model.set_attention(attn_implementation)
    return model


def _check_vocabulary(
    model: Ovis2_5ForConditionalGeneration, tokenizer: Tokenizer, path: Path
) -> None:
    counted: Any = tokenizer
    num_tokens, num_rows = len(counted), model.config.llm.vocab_size
    if num_tokens > num_rows:
        raise CheckpointError(
            f"{path}: the tokenizer has {num_tokens} tokens but the embedding table only "
            f"{num_rows} rows; after adding tokens call model.resize_token_embeddings"
            f"({num_tokens}) and save model and tokenizer together"
        )


def save_checkpoint(
    model: Ovis2_5ForConditionalGeneration,
    processor: SavesItself,
    path: Path,
    *,
    base: Path | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> None:
    """Write a checkpoint that appears whole or not at all, and replaces an older one.

    Arguments are those of `write_checkpoint`.

    Raises:
        CheckpointError: If a weight is not finite, or `path` holds something else.
    """
    with replacing(path) as partial:
        write_checkpoint(
            model,
            processor,
            partial,
            base=base,
            state_dict=state_dict,
            max_shard_size=max_shard_size,
        )


def write_checkpoint(
    model: Ovis2_5ForConditionalGeneration,
    processor: SavesItself,
    folder: Path,
    *,
    base: Path | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> None:
    """Write weights, config, tokenizer and preprocessing in the official layout.

    Args:
        model: The model.
        processor: Its processor.
        folder: Empty folder to write into; `replacing` gives one.
        base: The checkpoint this one came from; its extra files are kept, remote code included.
        state_dict: Gathered weights, where the model's own are partitioned (ZeRO-3).
        max_shard_size: Bytes per weights file, or text like "5GB".

    Raises:
        CheckpointError: If a weight is not finite.
    """
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    head = weights.pop(TIED_HEAD, None) if model.config.tie_word_embeddings else None
    if head is not None and not torch.equal(head, weights[EMBEDDINGS]):
        raise CheckpointError(f"no checkpoint was written: {TIED_HEAD} {UNTIED}")
    if bad := not_finite(weights.items()):
        raise CheckpointError(
            f"no checkpoint was written: NaN or infinite values in {list_examples(bad)}. Train "
            "again from a sound checkpoint, with a lower learning rate"
        )
    write_weights(folder, weights, max_shard_size)
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)  # of how it was trained, not of the weights
    for part in (config, config.llm, config.vit):
        part.dtype = weights[EMBEDDINGS].dtype
    config.save_pretrained(str(folder))
    processor.save_pretrained(folder)
    settle_tokenizer_files(folder, base)
    if base is not None:
        carry_extra_files(base, folder)
    generation: Any = model.llm.generation_config
    if not (folder / GENERATION_CONFIG).is_file() and generation is not None:
        generation.save_pretrained(str(folder))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a folder to write into that takes the place of another when all went well.

    Args:
        path: A checkpoint to replace, or an absent or empty folder.

    Raises:
        CheckpointError: If `path` holds something else.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / CONFIG).is_file():
        raise CheckpointError(
            f"{path} holds files that are no checkpoint, and would be deleted; give a new folder"
        )
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
