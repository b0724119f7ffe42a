"""Where a model comes from, and where and how precisely it runs."""

import logging
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from ovis_model.errors import CheckpointError

log = logging.getLogger(__name__)

#: Files of a checkpoint; nothing else is fetched from the Hub, and no code.
CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.txt"]


def find_checkpoint(
    model_path: str | Path, *, revision: str | None, local_files_only: bool
) -> Path:
    """Return the folder of a checkpoint, fetching it from the Hub if the name is not a folder's.

    Raises:
        CheckpointError: If there is neither such a folder nor such a model.
    """
    path = Path(model_path)
    if path.is_dir():
        return path
    try:
        return Path(
            snapshot_download(
                str(model_path),
                revision=revision,
                allow_patterns=CHECKPOINT_FILES,
                local_files_only=local_files_only,
            )
        )
    except (OSError, ValueError) as error:
        where = "the Hub's local cache" if local_files_only else "the Hugging Face Hub"
        raise CheckpointError(
            f"{str(model_path)!r} is not a folder here, and {where} does not give it: {error}"
        ) from error


def choose_device(device: str) -> torch.device:
    """Return the device asked for, or the CPU, with a warning, where there is no GPU.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: If torch knows no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is 'auto', 'cpu', 'cuda' or 'cuda:N', not {device!r}") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        log.warning("no GPU was found for device=%r: running on the CPU, slowly", device)
        return torch.device("cpu")
    return wanted


def choose_dtype(torch_dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the precision: on a CPU, bfloat16 is slower and less exact than float32.

    Example:
        >>> choose_dtype(torch.bfloat16, torch.device("cpu"))
        torch.float32
    """
    if device.type == "cpu" and torch_dtype is torch.bfloat16:
        return torch.float32
    return torch_dtype
