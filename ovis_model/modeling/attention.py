"""Attention within the segments of one packed sequence.

A segment is what may look at itself: a frame or window in the vision tower, a sample of a packed
row in the language model.

    num_tokens   tokens of all segments, one segment after another

    flash_attention_2   the flash-attn package, where it is installed: CUDA, 16 bits
    varlen              torch.nn.attention.varlen, which comes with torch: CUDA, 16 bits
    sdpa                scaled_dot_product_attention, segments of equal length in one call
    eager               matrix products and a softmax written out, for comparison
    auto                the first of these that works on the device and in the precision at hand

A block-diagonal mask over the whole sequence does the same and was 13 times slower on a CPU.
"""

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's customary name
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ovis_model.errors import ConfigError

IMPLEMENTATIONS = ("auto", "flash_attention_2", "varlen", "sdpa", "eager")
#: Name under which transformers finds the language model's attention.
PACKED_ATTENTION = "ovis_packed"
HALF_PRECISIONS = (torch.bfloat16, torch.float16)


def check_implementation(name: str) -> str:
    """Return a name that this machine can serve.

    Raises:
        ConfigError: If it is none of `IMPLEMENTATIONS`, or its package is not installed.
    """
    if name not in IMPLEMENTATIONS:
        raise ConfigError(
            f"attn_implementation is {name!r}; use one of {', '.join(IMPLEMENTATIONS)}"
        )
    if name == "flash_attention_2" and not _has_flash_attn():
        raise ConfigError(
            "attn_implementation is 'flash_attention_2' but the flash-attn package is not "
            "installed; install it, or say 'auto', which takes it where it is there"
        )
    return name


def pick_implementation(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """Say which implementation runs.

    Args:
        requested: One of `IMPLEMENTATIONS`.
        device: Where the tensors are.
        dtype: Their precision.
    """
    if requested != "auto":
        return requested
    if device.type == "cuda" and dtype in HALF_PRECISIONS:
        return "flash_attention_2" if _has_flash_attn() else "varlen"
    return "sdpa"


def describe_attention(requested: str, device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Say what runs: for the vision tower and for the language model.

    Args:
        requested: One of `IMPLEMENTATIONS`.
        device: Where the weights are.
        dtype: Their precision.
    """
    picked = pick_implementation(requested, device, dtype)
    name = f"{picked} per sequence" if picked in ("sdpa", "eager") else picked
    padded = picked if picked in ("flash_attention_2", "eager") else "sdpa"
    return {
        "vit": name.replace("sequence", "frame"),
        "llm": f"{name} for packed rows, {padded} for padded batches",
    }


def _has_flash_attn() -> bool:
    return find_spec("flash_attn") is not None


@dataclass(frozen=True)
class AttentionGroup:
    """Segments of one length, attended in one call."""

    length: int
    #: Positions of the tokens, int64 [num_segments * length]; None when they are all, in order.
    positions: Tensor | None


@dataclass(frozen=True)
class Segments:
    """Where the segments of a packed sequence are; made once per batch, used by every layer."""

    lengths: tuple[int, ...]
    groups: tuple[AttentionGroup, ...]
    #: Starts of the segments and the end of the last, int32 [num_segments + 1].
    bounds: Tensor
    longest: int
    implementation: str

    @classmethod
    def of(
        cls, lengths: list[int], device: torch.device, implementation: str = "auto"
    ) -> "Segments":
        """Describe segments that follow one another.

        Args:
            lengths: Tokens of each.
            device: Where attention will run.
            implementation: One of `IMPLEMENTATIONS`.
        """
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        return cls(
            tuple(lengths),
            tuple(group_by_length(lengths, device)),
            bounds.to(device),
            max(lengths),
            implementation,
        )

    def positions(self) -> Tensor:
        """Return every token's place in its segment, int64 [1, num_tokens]."""
        places = torch.cat([torch.arange(length) for length in self.lengths])
        return places[None].to(self.bounds.device)


def group_by_length(lengths: list[int], device: torch.device) -> list[AttentionGroup]:
    """Group the segments of a packed sequence by their length."""
    if len(set(lengths)) == 1:
        return [AttentionGroup(lengths[0], None)]
    starts: dict[int, list[int]] = defaultdict(list)
    for start, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        starts[length].append(start)
    groups = []
    for length, offsets in starts.items():
        positions = torch.tensor(offsets)[:, None] + torch.arange(length)
        groups.append(AttentionGroup(length, positions.reshape(-1).to(device)))
    return groups


def attend(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, *, causal: bool = False
) -> Tensor:
    """Attend within each segment.

    Args:
        query: [num_tokens, num_heads, head_dim].
        key: [num_tokens, num_kv_heads, head_dim]; num_kv_heads divides num_heads.
        value: Likewise.
        segments: Where the segments are.
        causal: Whether a token sees only those before it in its segment, and itself.

    Returns:
        [num_tokens, num_heads, head_dim]; scores are divided by the root of head_dim.
    """
    name = pick_implementation(segments.implementation, query.device, query.dtype)
    if name == "flash_attention_2":  # pragma: no cover - gpu
        from flash_attn import flash_attn_varlen_func  # noqa: PLC0415 - where it is installed

        bounds, longest = segments.bounds, segments.longest
        result: Tensor = flash_attn_varlen_func(
            query, key, value, bounds, bounds, longest, longest, causal=causal
        )
        return result
    if name == "varlen":  # pragma: no cover - gpu
        return _attend_varlen(query, key, value, segments, causal=causal)
    attend_equal = _attend_eager if name == "eager" else _attend_sdpa
    if segments.groups[0].positions is None:
        return attend_equal(query, key, value, segments.groups[0].length, causal=causal)
    attended = torch.empty_like(query)
    for group in segments.groups:
        at = group.positions
        assert at is not None  # a single group has been dealt with
        part = attend_equal(query[at], key[at], value[at], group.length, causal=causal)
        attended = attended.index_copy(0, at, part)
    return attended


def _attend_varlen(  # pragma: no cover - gpu
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, *, causal: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - needs CUDA's operators

    bounds, longest = segments.bounds, segments.longest
    result = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        longest,
        longest,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(result, Tensor)  # a tuple only when more is asked for
    return result


def _attend_sdpa(
    query: Tensor, key: Tensor, value: Tensor, length: int, *, causal: bool
) -> Tensor:
    """Attend within segments of one length; in and out [num_segments * length, heads, dim]."""
    query, key, value = (_by_segment(x, length) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(
        query, key, value, is_causal=causal, enable_gqa=key.shape[1] != query.shape[1]
    )
    return attended.transpose(1, 2).flatten(0, 1)


def _attend_eager(
    query: Tensor, key: Tensor, value: Tensor, length: int, *, causal: bool
) -> Tensor:
    """Attend as `_attend_sdpa` does, with the scores written out."""
    repeats = query.shape[1] // key.shape[1]
    query, key, value = (_by_segment(x, length) for x in (query, key, value))
    key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if causal:
        future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    attended: Tensor = weights @ value
    return attended.transpose(1, 2).flatten(0, 1)


def _by_segment(states: Tensor, length: int) -> Tensor:
    """[num_segments * length, heads, dim] to [num_segments, heads, length, dim]."""
    return states.view(-1, length, *states.shape[1:]).transpose(1, 2)


def packed_attention_forward(  # noqa: PLR0917 - transformers' call
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend in a language model's layer, in the form transformers calls.

    Args:
        module: The layer's attention.
        query: [batch, num_heads, seq_len, head_dim]; key and value likewise.
        key: See query.
        value: See query.
        attention_mask: Of a padded batch; packed rows have none.
        segments: Samples of a packed row; None for a batch of one sample per row.
        **kwargs: What `sdpa` takes.

    Returns:
        [batch, seq_len, num_heads, head_dim], and no attention weights.
    """
    if segments is None:
        padded: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return padded
    # [num_tokens, heads, head_dim] of the only row
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    return attend(query, key, value, segments, causal=True)[None], None


def check_packed_row(
    embeds: Tensor, attention_mask: Tensor | None, lengths: list[int], implementation: str
) -> Segments:
    """Describe the samples packed into one row.

    Args:
        embeds: The row, [1, seq_len, hidden].
        attention_mask: None; the lengths say it all.
        lengths: Positions of each sample.
        implementation: One of `IMPLEMENTATIONS`.

    Raises:
        ValueError: If there are more rows or a mask, or the lengths do not add up to the row's.
    """
    if attention_mask is not None:
        raise ValueError("a packed row has no padding: give no attention_mask")
    batch, seq_len = embeds.shape[:2]
    if batch != 1 or not lengths or min(lengths) < 1 or sum(lengths) != seq_len:
        raise ValueError(
            f"sequence_lengths {lengths} must add up to the {seq_len} positions of a single row; "
            f"there are {batch} row(s)"
        )
    return Segments.of(lengths, embeds.device, implementation)


def packed_arguments(segments: Segments, config: PreTrainedConfig) -> dict[str, Any]:
    """Return what a language model needs to keep the segments of its row apart.

    Args:
        segments: Of the row.
        config: The language model's: other attentions than ours have arguments of their own.
    """
    own = config._attn_implementation == PACKED_ATTENTION
    return {
        # Given a dictionary, transformers makes no mask itself.
        "attention_mask": {"full_attention": None} if own else None,
        "position_ids": segments.positions(),
        "use_cache": False,
        "segments": segments,
        "cu_seq_lens_q": segments.bounds,
        "cu_seq_lens_k": segments.bounds,
        "max_length_q": segments.longest,
        "max_length_k": segments.longest,
    }


AttentionInterface.register(PACKED_ATTENTION, packed_attention_forward)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
