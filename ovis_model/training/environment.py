"""What a process needs before DeepSpeed and torch.distributed may be started.

One process without a launcher becomes a group of one, and on a machine without a GPU no C++
kernel is ever compiled: those builds take minutes and hang on a lock left by a killed build.
"""

import gc
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import distributed
from transformers.utils import logging as transformers_logging

#: Tells accelerate to use DeepSpeed, whatever its arguments say.
USE_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
#: Kept for as long as anything may use it.
_LAST_GROUP: list[distributed.ProcessGroup | None] = []
#: What torchrun, accelerate and deepspeed set; DeepSpeed looks for MPI when they are missing.
SINGLE_PROCESS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
#: What gloo says of a process that is no longer there.
BROKEN = re.compile("Connection (closed|reset|refused)|Broken pipe", re.IGNORECASE)


def has_gpu() -> bool:
    """Say whether training runs on a GPU here."""
    return torch.cuda.is_available()


def world_size() -> int:
    """Return the number of processes training together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Say whether this process writes the files that exist once."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Let no process go on before every process is here."""
    if distributed.is_initialized():
        distributed.barrier()


def lost_connection(error: RuntimeError) -> bool:
    """Say whether an error means that another process has ended; gloo and NCCL have no class."""
    return isinstance(error, distributed.DistError) or bool(BROKEN.search(str(error)))


def from_main_process(value: Any) -> Any:
    """Return what the first process has, in every process."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def process_group() -> Iterator[None]:
    """Set up this process for distributed training and leave nothing of it behind."""
    alone = "RANK" not in os.environ
    asked_for_deepspeed = USE_DEEPSPEED in os.environ
    if alone:
        os.environ.update(SINGLE_PROCESS, MASTER_PORT=str(_free_port()))
    # DeepSpeed tells every setting at INFO; its own warnings stay.
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # One bar is enough: transformers draws its own for every file it reads or writes.
    transformers_logging.disable_progress_bar()
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Unset, accelerate chooses for us and warns; our launcher and torchrun have set it.
        processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        threads = max(1, (os.cpu_count() or 1) // processes_here)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        _refuse_kernel_builds()
    try:
        yield
        wait_for_all()
    finally:
        _take_down()
        if not asked_for_deepspeed:
            # Left by the arguments of a training with DeepSpeed: the next would have it, too.
            os.environ.pop(USE_DEEPSPEED, None)
        if alone:
            for name in (*SINGLE_PROCESS, "MASTER_PORT"):
                os.environ.pop(name, None)


def forget_last_training() -> None:
    """Free what a training leaves in this process, for another one in the same group."""
    gc.collect()
    AcceleratorState._reset_state(reset_partial_state=True)
    if has_gpu():
        torch.cuda.empty_cache()


def join_deepspeed() -> None:
    """Let DeepSpeed join the group: asked earlier, ZeRO-3 would load for one process."""
    # Imported here because importing DeepSpeed probes for an accelerator.
    from deepspeed import init_distributed  # noqa: PLC0415

    init_distributed(dist_backend="nccl" if has_gpu() else "gloo")


def _take_down() -> None:
    """End the group: left to the interpreter's exit, it sometimes aborts a finished process."""
    if distributed.is_initialized():
        # The wrapped model, which a traceback may keep, holds the group in C++: as the last one
        # to let go of it, with Python's lock in hand, it waits for a thread that wants the lock.
        _LAST_GROUP[:] = [distributed.group.WORLD]
        from deepspeed import comm  # noqa: PLC0415

        if comm.is_initialized():
            comm.destroy_process_group()
        else:
            distributed.destroy_process_group()
    # accelerate remembers the group in a singleton, which would outlive it.
    AcceleratorState._reset_state(reset_partial_state=True)


def _refuse_kernel_builds() -> None:
    """Keep DeepSpeed from compiling its shared-memory kernel, which training never calls."""
    # Imported here because importing DeepSpeed probes for an accelerator.
    from deepspeed import ops  # noqa: PLC0415

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
