"""The tokenizer of a checkpoint folder, loaded in one way by everything that needs it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig

from ovis_model.errors import CheckpointError
from ovis_model.tokens import Tokenizer

TOKENIZER_CONFIG = "tokenizer_config.json"
#: The text itself comes in one file or in two; either will do.
_VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def has_vocabulary(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer's vocabulary."""
    return any(all((folder / name).is_file() for name in names) for names in _VOCABULARIES)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a checkpoint folder, offline and without running its code.

    Args:
        folder: Folder with tokenizer_config.json and a vocabulary.

    Raises:
        CheckpointError: If a file is missing, or the files are no tokenizer.
    """
    if not (folder / TOKENIZER_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {TOKENIZER_CONFIG}; copy the tokenizer files of the base checkpoint"
        )
    if not has_vocabulary(folder):
        raise CheckpointError(
            f"{folder} has no vocabulary: neither tokenizer.json nor vocab.json with merges.txt; "
            "copy the tokenizer files of the base checkpoint"
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            # Without a config of our own it would read the model's and warn of what it finds.
            str(folder),
            config=PreTrainedConfig(),
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: the tokenizer files cannot be read ({error}); copy them from the base "
            "checkpoint"
        ) from error
    checked: Tokenizer = tokenizer
    return checked
