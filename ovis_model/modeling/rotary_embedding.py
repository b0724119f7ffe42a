"""The language model's rotary positions, safe from casts."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding


class Float32RotaryEmbedding(Qwen3RotaryEmbedding):
    """Qwen3's, with frequencies that stay float32 when the model is cast.

    `model.to(torch.bfloat16)` casts buffers as well; the angle of position 4096 would then be
    wrong by more than 4 rad.  The module has no parameters, so nothing else is held back.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        assert isinstance(config, Qwen3Config)  # Ovis2_5Config accepts no other
        super().__init__(config)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in before.items():
            moved = self._buffers[name]
            if exact is not None and moved is not None and moved.dtype != exact.dtype:
                self._buffers[name] = exact.to(moved.device)
        return self
