"""A prompt's beginning, read once and continued many times.

Several questions on one image share everything up to the question.  Its keys and values are
computed once; each continuation starts from them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True)
class PromptPrefix:
    """Keys and values of a prompt's beginning.

    Attributes:
        keys: One tensor per layer, [1, num_kv_heads, length, head_dim].
        values: Likewise.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def of(cls, cache: DynamicCache) -> "PromptPrefix":
        """Take the contents of a cache that one row has been read into."""
        keys, values = [], []
        for layer in cache.layers:
            assert isinstance(layer, DynamicLayer)  # every layer of Qwen3 sees all positions
            assert layer.keys is not None and layer.values is not None  # noqa: PT018 - one fact
            keys.append(layer.keys)
            values.append(layer.values)
        return cls(tuple(keys), tuple(values))

    @property
    def length(self) -> int:
        """Positions of the prefix."""
        return self.keys[0].shape[2]

    def cache(self, batch: int) -> DynamicCache:
        """Return a cache of `batch` rows that begin with this prefix.

        The rows share memory until they grow: a cache never writes into what it was given.
        """
        rows = [
            (key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))
            for key, value in zip(self.keys, self.values, strict=True)
        ]
        return DynamicCache(rows)

    def extend_mask(self, attention_mask: Tensor) -> Tensor:
        """Put the prefix before the mask of the rest, [batch, length + rest_len]."""
        ones = torch.ones(
            (len(attention_mask), self.length),
            dtype=attention_mask.dtype,
            device=attention_mask.device,
        )
        return torch.cat([ones, attention_mask], dim=1)
