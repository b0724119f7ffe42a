"""A device that holds so many rows of a training batch at a time, from one batch on.

python -m tests.support.small_memory ROWS BATCH PROCESS JOB    as `python -m ovis_model.training`
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ovis_model.training.__main__ import main


@contextmanager
def holding(rows: int, *, batch: int = 1, process: int = 0) -> Iterator[None]:
    """Raise what torch raises, where the text of a batch with more rows is embedded.

    Args:
        rows: That fit.
        batch: Number of the training batch, from 1, that is the first to be refused.
        process: In which this happens.
    """
    seen = 0

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        if type(module) is not nn.Embedding or not module.training:  # its subclasses are visual
            return
        seen += 1
        is_here = int(os.environ.get("RANK", "0")) == process
        if is_here and seen >= batch and len(inputs[0]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


if __name__ == "__main__":
    size, first, where = (int(argument) for argument in sys.argv[1:4])
    with holding(size, batch=first, process=where):
        sys.exit(main(sys.argv[4:]))
