"""How fast training goes: tokens and useful arithmetic per second, and the share of the peak."""

import time
from collections.abc import Mapping, Sequence

import torch

from ovis_model.flops import BatchShape, FlopCounter, peak_flops
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.training.train_modules import what_learns


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
        self._tokens = self._flops = self._rows = self._positions = 0
        self._since: float | None = None

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
        self._rows += rows[0]
        self._positions += rows[0] * rows[1]
        self._flops += self._counter.of(shape, learning=self._learning).total

    def since_last_time(self) -> dict[str, float]:
        """Return the rates since this was last asked, and begin anew.

        Returns:
            `tokens_per_second` and `gflops_per_second` of all processes together and, on a GPU
            whose peak is known, `mfu`: the share of it (dense bfloat16) that was useful work.  Of
            this process alone, for asking the others costs more than the answer is worth:
            `padding_fraction` of the positions, and `tokens_per_row`.
        """
        now = time.monotonic()
        seconds = max(now - (self._since or now), 1e-9)
        tokens, flops = self._tokens / seconds, self._flops / seconds
        padding = 1 - self._tokens / max(self._positions, 1)
        per_row = self._tokens / max(self._rows, 1)
        self._tokens = self._flops = self._rows = self._positions = 0
        self._since = now
        rates = {
            "tokens_per_second": round(tokens * self._world_size, 1),
            "gflops_per_second": round(flops * self._world_size / 1e9, 3),
            "padding_fraction": round(padding, 4),
            "tokens_per_row": round(per_row, 1),
        }
        if self._peak is not None:
            rates["mfu"] = round(flops / self._peak, 4)
        return rates


def peak_of(device: torch.device) -> float | None:
    """Return the dense bfloat16 FLOP/s of a device; None for a CPU and for an unknown GPU."""
    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device))  # pragma: no cover - gpu
