"""The vision tower of Ovis2.5: SigLIP2 at native resolution.

Shapes are written [in, brackets], with these names in this file:

    num_media     images, or videos, in the batch; each has a grid (t, h, w) of patches
    num_patches   sum of t * h * w over the media
    merge order   (t, h / 2, w / 2, 2, 2): the four patches of a 2x2 block are consecutive

Attention never leaves a frame, or a window of one: see `attention.py`.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `Siglip2NavitModel`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's customary name
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from ovis_model.modeling.attention import Segments, attend
from ovis_model.modeling.compilation import not_compiled
from ovis_model.modeling.configuration_ovis2_5 import Siglip2NavitConfig

# The cached functions leave inference mode: a table first needed there would be an inference
# tensor, which a later backward pass in the same process refuses.

ROPE_BASE = 10000.0
Grid = tuple[int, int, int]


@not_compiled
@lru_cache(maxsize=512)
@torch.inference_mode(mode=False)
def merge_order(height: int, width: int, stride: int) -> Tensor:
    """Return raster positions of one frame's patches in merge order, int64 [h * w]."""
    positions = torch.arange(height * width, device="cpu")
    raster = positions.view(height // stride, stride, width // stride, stride)
    return raster.permute(0, 2, 1, 3).reshape(-1)


@not_compiled
@lru_cache(maxsize=512)
@torch.inference_mode(mode=False)
def rope_angles(height: int, width: int, head_dim: int, stride: int) -> Tensor:
    """Return rotation angles of one frame in merge order, float32 [h * w, head_dim / 2].

    The first half turns with the row, the second with the column; time turns nothing.
    """
    # DIVERGES(exact-rotary-angles): the reference keeps frequencies in a buffer, which a cast of
    # the whole model rounds.
    quarter = head_dim // 4
    exponents = torch.arange(quarter, dtype=torch.float32, device="cpu") * 2 / (head_dim // 2)
    frequencies = 1.0 / ROPE_BASE**exponents
    order = merge_order(height, width, stride)
    rows = (order // width).float()[:, None] * frequencies
    columns = (order % width).float()[:, None] * frequencies
    return torch.cat([rows, columns], dim=-1)


@not_compiled
@lru_cache(maxsize=512)
@torch.inference_mode(mode=False)
def window_partition(height: int, width: int, side: int) -> tuple[Tensor, tuple[int, ...]]:
    """Cut one frame of merged cells into windows.

    Args:
        height: Merged rows, that is patch rows / stride.
        width: Merged columns.
        side: Merged cells per window side; windows at the right and bottom may be smaller.

    Returns:
        Cell positions in window order, int64 [height * width], and the cells of each window.
    """
    cells = torch.arange(height * width, device="cpu").view(height, width)
    windows = [
        cells[top : top + side, left : left + side].reshape(-1)
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    return torch.cat(windows), tuple(len(window) for window in windows)


def normalize_patches(patches: Tensor) -> Tensor:
    """Scale bytes to [-1, 1]; values that are floats already are left alone.

    Dividing by 255 in float32 gives, for every byte, the very number that the reference gets by
    multiplying with 0.00392156862745098 in float64 and rounding to float32.

    Args:
        patches: uint8, or floats in [-1, 1], of any shape.
    """
    if patches.dtype is not torch.uint8:
        return patches
    return patches.float().div_(255).sub_(0.5).mul_(2)


class PatchEmbedding(nn.Conv2d):
    """The patch projection; its kernel covers a whole patch."""

    @property
    def initial_std(self) -> float:
        """Spread of untrained weights: one over the root of their number per output."""
        return float(self.weight[0].numel() ** -0.5)


class PositionEmbedding(nn.Embedding):
    """The learned positions."""

    @property
    def initial_std(self) -> float:
        """Spread of untrained weights: one over the root of the width."""
        return float(self.embedding_dim**-0.5)


class PositionTables:
    """Interpolated positions by shape, as long as the weights they come from stay the same.

    The interpolation for one large image takes about as long as decoding it (80 ms of a CPU).
    """

    MAX_TABLES = 64

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], Tensor] = {}
        self._made_from: tuple[int, int] | None = None

    def get(self, weight: Tensor, shape: tuple[int, int], make: Callable[[], Tensor]) -> Tensor:
        """Return the table of a shape, making it if it is not there."""
        version = (weight.data_ptr(), weight._version)
        if version != self._made_from or len(self._tables) >= self.MAX_TABLES:
            self._tables.clear()
            self._made_from = version
        if shape not in self._tables:
            self._tables[shape] = make()
        return self._tables[shape]

    def clear(self) -> None:
        """Forget all tables."""
        self._tables.clear()


class Siglip2NavitEmbeddings(nn.Module):
    """Patch projection plus learned positions, interpolated to each grid."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.stride = config.hidden_stride
        self.patch_embedding = PatchEmbedding(
            config.num_channels,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=config.patch_size,
        )
        self.side = config.image_size // config.patch_size
        self.position_embedding = PositionEmbedding(self.side**2, config.hidden_size)
        self._tables = PositionTables()

    def position_table(self, height: int, width: int) -> Tensor:
        """Interpolate the learned positions to one frame, in merge order, [h * w, hidden].

        Without gradients the table is kept for the next batch with a frame of this shape.
        """
        if torch.is_grad_enabled() or self.training:
            return self._interpolate(height, width)
        weight = self.position_embedding.weight
        return self._tables.get(weight, (height, width), lambda: self._interpolate(height, width))

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation.

        An optimizer may write weights behind the back of their version counter, as DeepSpeed's
        do; between two evaluations it does so in training mode only.
        """
        self._tables.clear()
        return super().train(mode)

    def _interpolate(self, height: int, width: int) -> Tensor:
        table = self.position_embedding.weight.view(1, self.side, self.side, -1)
        resized = F.interpolate(
            table.permute(0, 3, 1, 2),
            size=(height, width),
            mode="bicubic",
            align_corners=False,
        )
        raster = resized[0].flatten(1).T  # [h * w, hidden]
        return raster[merge_order(height, width, self.stride).to(raster.device)]

    def forward(self, pixel_values: Tensor, frames: "FrameIndex") -> Tensor:
        """Embed patches as [num_patches, hidden].

        Args:
            pixel_values: uint8 as the processor ships them, or floats in [-1, 1],
                [num_patches, channels * patch**2].
            frames: Where each frame's patches are.
        """
        weight = self.patch_embedding.weight
        # A convolution whose kernel covers its whole input is a matrix product, and much faster.
        patches = F.linear(
            normalize_patches(pixel_values).to(weight.dtype),
            weight.flatten(1),
            self.patch_embedding.bias,
        )
        tables = [self.position_table(height, width) for height, width in frames.shapes]
        return patches + torch.cat(tables)[frames.positions]


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a batch, each distinct shape computed once."""

    #: Distinct (h, w).
    shapes: tuple[tuple[int, int], ...]
    #: For every patch its row in the concatenated tables of `shapes`, int64 [num_patches].
    positions: Tensor
    #: Patches of each frame.
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, grids: list[Grid], device: torch.device) -> "FrameIndex":
        """Index the frames of media with these grids."""
        offsets: dict[tuple[int, int], int] = {}
        rows = 0
        pieces, lengths = [], []
        for t, h, w in grids:
            if (h, w) not in offsets:
                offsets[h, w] = rows
                rows += h * w
            positions = torch.arange(h * w) + offsets[h, w]
            pieces.append(positions.repeat(t))
            lengths.extend([h * w] * t)
        return cls(tuple(offsets), torch.cat(pieces).to(device), tuple(lengths))


class Siglip2NavitAttention(nn.Module):
    """Self-attention inside each segment, with rotary positions."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_dim
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        segments: Segments,
    ) -> Tensor:
        """Attend; hidden and result are [num_patches, hidden]."""
        heads = (hidden.shape[0], self.num_heads, self.head_dim)
        query = self.q_proj(hidden).view(heads)
        key = self.k_proj(hidden).view(heads)
        value = self.v_proj(hidden).view(heads)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        attended = attend(query, key, value, segments)
        result: Tensor = self.out_proj(attended.reshape(hidden.shape))
        return result


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + head_dim / 2) in float32; states [n, heads, head_dim], cos [n, 1, d]."""
    turned = states.float()
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return turned.to(states.dtype)


class Siglip2NavitMLP(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.activation = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform [num_patches, hidden]."""
        result: Tensor = self.fc2(self.activation(self.fc1(hidden)))
        return result


class Siglip2NavitEncoderLayer(GradientCheckpointingLayer):
    """A pre-norm transformer block."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Siglip2NavitAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Siglip2NavitMLP(config)

    def forward(
        self,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        segments: Segments,
    ) -> Tensor:
        """Transform [num_patches, hidden]."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), rotation, segments)
        result: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return result


class Siglip2NavitEncoder(nn.Module):
    """The stack of blocks, with or without windows."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.config = config
        #: One of `attention.IMPLEMENTATIONS`.
        self.attn_implementation = "auto"
        self.layers = nn.ModuleList(
            Siglip2NavitEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(
        self,
        hidden: Tensor,
        grids: list[Grid],
        frames: FrameIndex,
        collect: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the last block's output [num_patches, hidden] in merge order.

        Args:
            hidden: Embedded patches in merge order, [num_patches, hidden].
            grids: (t, h, w) of every medium.
            frames: Where each frame's patches are.
            collect: If given, every block's output is appended to it, in merge order.
        """
        config = self.config
        rotation = self._rotation(frames, hidden.device) if config.use_rope else None
        windows = whole = Segments.of(
            list(frames.lengths), hidden.device, self.attn_implementation
        )
        full_blocks = config.full_attention_blocks
        back = None
        if full_blocks is not None:
            index, lengths = window_index(grids, config)
            order = expand_cells(index, config.hidden_stride**2).to(hidden.device)
            windows = Segments.of(lengths, hidden.device, self.attn_implementation)
            back = torch.argsort(order)
            hidden = hidden[order]
            if rotation is not None:
                rotation = (rotation[0][order], rotation[1][order])
        for number, layer in enumerate(self.layers):
            is_full = full_blocks is None or number in full_blocks
            hidden = layer(hidden, rotation, whole if is_full else windows)
            if collect is not None:
                collect.append(hidden if back is None else hidden[back])
        return hidden if back is None else hidden[back]

    def _rotation(self, frames: FrameIndex, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines for every patch, float32 [num_patches, 1, head_dim] each."""
        config = self.config
        tables = [
            rope_angles(h, w, config.head_dim, config.hidden_stride) for h, w in frames.shapes
        ]
        angles = torch.cat(tables).to(device)[frames.positions]
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return angles.cos(), angles.sin()


def window_index(grids: list[Grid], config: Siglip2NavitConfig) -> tuple[Tensor, list[int]]:
    """Order merged cells by window.

    Returns:
        Cells in window order, int64 [num_patches / 4], and the patches of each window.
    """
    stride = config.hidden_stride
    side = config.window_size // stride // config.patch_size
    pieces: list[Tensor] = []
    lengths: list[int] = []
    start = 0
    for t, h, w in grids:
        cells, sizes = window_partition(h // stride, w // stride, side)
        for _ in range(t):
            pieces.append(cells + start)
            start += len(cells)
            lengths.extend(size * stride**2 for size in sizes)
    return torch.cat(pieces), lengths


def expand_cells(cells: Tensor, patches_per_cell: int) -> Tensor:
    """Turn an order of merged cells into the order of their patches."""
    return (cells[:, None] * patches_per_cell + torch.arange(patches_per_cell)).reshape(-1)


class Siglip2NavitTransformer(nn.Module):
    """Embeddings and encoder; named `vision_model` in checkpoints."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.embeddings = Siglip2NavitEmbeddings(config)
        self.encoder = Siglip2NavitEncoder(config)
        # Stored in every checkpoint, used by none: features are taken before it.
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        pixel_values: Tensor,
        grid_thws: Tensor,
        collect: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the last block's output [num_patches, hidden]; `collect` receives every one's."""
        # One device transfer for the whole tower; everything below works on Python ints.
        grids: list[Grid] = [(t, h, w) for t, h, w in grid_thws.tolist()]
        frames = FrameIndex.of(grids, pixel_values.device)
        if len(frames.positions) != len(pixel_values):
            raise ValueError(
                f"grid_thws {grids} describe {len(frames.positions)} patches but pixel_values "
                f"has {len(pixel_values)} rows"
            )
        embedded = self.embeddings(pixel_values, frames)
        last: Tensor = self.encoder(embedded, grids, frames, collect)
        return last


class Siglip2NavitModel(nn.Module):
    """The tower as the visual tokenizer uses it."""

    def __init__(self, config: Siglip2NavitConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = Siglip2NavitTransformer(config)

    def forward(self, pixel_values: Tensor, grid_thws: Tensor) -> Tensor:
        """Compute features of merged cells.

        Args:
            pixel_values: Patches in merge order, [num_patches, channels * patch**2].
            grid_thws: One (t, h, w) row per medium, int64 [num_media, 3].

        Returns:
            The last block's output, four patches side by side, [num_patches / 4, 4 * hidden].
        """
        last: Tensor = self.vision_model(pixel_values, grid_thws)
        return last.reshape(-1, last.shape[-1] * self.config.hidden_stride**2)
