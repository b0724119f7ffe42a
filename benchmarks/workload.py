"""Workloads are generated, never downloaded; a digest says whether two runs had the same."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

#: Of a longer array, this many bytes go into the digest.
DIGESTED_BYTES = 16 * 2**20


def digest(*parts: object) -> str:
    """Hash tensors by type, shape and leading bytes, and everything else by its `repr`.

    Example:
        >>> digest(1, torch.zeros(2)) == digest(1, torch.zeros(2))
        True
        >>> digest(torch.zeros(2)) == digest(torch.zeros(1, 2))
        False
    """
    found = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            found.update(piece)
    return found.hexdigest()


def generator(seed: int) -> torch.Generator:
    """Return a source of random numbers that nothing else uses."""
    return torch.Generator().manual_seed(seed)


def _pieces(part: object) -> Iterable[bytes]:
    if not isinstance(part, Tensor):
        yield repr(part).encode()
        return
    yield f"{part.dtype} {tuple(part.shape)}".encode()
    flat = part.detach().reshape(-1)[: DIGESTED_BYTES // part.element_size()]
    yield flat.contiguous().view(torch.uint8).numpy().tobytes()
