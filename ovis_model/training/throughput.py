"""How fast training goes: tokens and useful arithmetic per second, and the share of the peak."""

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from ovis_model.flops import BatchShape, FlopCounter, Grid, peak_flops
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.processing.visual_tokens import count_visual_tokens
from ovis_model.training.train_modules import what_learns

Batch = TypeVar("Batch")


class Throughput:
    """Adds up batches and divides by the time they took.

    Useful work alone is counted: no padding, and nothing that checkpointing computes again.
    Time for data, checkpoints and waiting for others is part of the time.

    Args:
        model: That is trained.
        rates: Learning rate of each parameter that learns, by name.
        device: Where it is trained.
        world_size: Processes; the others are taken to do as much as this one.
        peak: FLOP/s of the device at best; None looks it up, and finds none for a CPU.
    """

    def __init__(
        self,
        model: Ovis2_5ForConditionalGeneration,
        rates: Mapping[str, float],
        *,
        device: torch.device,
        world_size: int,
        peak: float | None = None,
    ) -> None:
        self._counter = FlopCounter(model.config)
        self._learning = what_learns(rates, num_blocks=self._counter.num_blocks)
        self._world_size = world_size
        self._peak = peak or peak_of(device)
        self._device = device
        self._since: float | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._tokens = self._visual_tokens = self._samples = 0
        self._flops = self._rows = self._positions = 0
        self._waited = 0.0

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, and add up how long each lets the loop wait."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if self._since is not None:  # the first wait is part of the start
                self._waited += time.monotonic() - asked
            yield batch

    def add(self, num_tokens: int, shape: BatchShape, *, rows: Sequence[int]) -> None:
        """Count a batch that is about to be trained on; the clock starts with the first.

        Args:
            num_tokens: Without padding.
            shape: What its work is counted from.
            rows: Rows of the batch and positions of each, padding included.
        """
        if self._since is None:
            self._since = time.monotonic()
        self._tokens += num_tokens
        self._visual_tokens += sum(count_visual_tokens(grid) for grid in shape.grids)
        self._samples += len(shape.sequences)
        self._rows += rows[0]
        self._positions += rows[0] * rows[1]
        self._flops += self._counter.of(shape, learning=self._learning).total

    def leave_out(self, grids: Sequence[Grid], *, tower_alone: bool) -> None:
        """Take off the work of media that were not looked at again.

        Args:
            grids: Of the media; nothing that they pass learns.
            tower_alone: Whether head and table were computed all the same.
        """
        work = self._counter.forward((), grids, 0)
        self._flops -= work.vit_linear + work.vit_attention if tower_alone else work.vision

    def since_last_time(self) -> dict[str, float]:
        """Return the rates since this was last asked, and begin anew.

        Returns:
            `tokens_per_second`, those of them that are visual, `samples_per_second` and
            `gflops_per_second` of all processes together and, on a GPU whose peak is known,
            `mfu`: the share of it (dense bfloat16) that was useful work.  Of this process alone,
            for asking the others costs more than the answer is worth: `padding_fraction` of the
            positions, `tokens_per_row`, `data_wait_fraction` of the time, and `peak_memory_gb`
            since it began.
        """
        now = time.monotonic()
        seconds = max(now - (self._since or now), 1e-9)
        everywhere = self._world_size / seconds
        rates = {
            "tokens_per_second": round(self._tokens * everywhere, 1),
            "visual_tokens_per_second": round(self._visual_tokens * everywhere, 1),
            "samples_per_second": round(self._samples * everywhere, 3),
            "gflops_per_second": round(self._flops * everywhere / 1e9, 3),
            "padding_fraction": round(1 - self._tokens / max(self._positions, 1), 4),
            "tokens_per_row": round(self._tokens / max(self._rows, 1), 1),
            "data_wait_fraction": round(min(self._waited / seconds, 1.0), 4),
            "peak_memory_gb": round(peak_memory(self._device) / 1e9, 3),
        }
        if self._peak is not None:
            rates["mfu"] = round(self._flops / seconds / self._peak, 4)
        self._begin_anew()
        self._since = now
        return rates


def peak_memory(device: torch.device) -> int:
    """Return the most bytes this process ever held: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)  # pragma: no cover - gpu
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def peak_of(device: torch.device) -> float | None:
    """Return the dense bfloat16 FLOP/s of a device; None for a CPU and for an unknown GPU."""
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device))  # pragma: no cover - gpu
