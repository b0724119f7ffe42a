"""How much arithmetic a batch is, from the configuration and the batch's shape alone.

    sequences   token positions of each sample, text and visual ones together, padding left out
    grids       (t, h, w) of each image or video, in patches
    atoms       visual tokens: t * h * w / 4 of each grid

A multiplication and an addition are two operations (FLOPs).  Matrix products are counted, as
usual; norms, activations, rotations, softmax and table look-ups are not.  Useful work is
counted: no padding, no dummy image, no logits where nothing is learned, and of causal attention
the half below the diagonal.  One counter serves the packer's costs, the trainer's log line, the
planner and the benchmarks.

Operations per unit, forward:

    ViT linear      2 * C * p^2 * d  per patch (its embedding), and per block and patch
                    2 * (4 * d^2 + 2 * d * ffn)
    ViT attention   4 * d * L^2  per block and segment of L patches: a frame, or a window of one
    head            2 * 4 * d * words  per atom
    VTE             2 * words * hidden  per atom
    LLM linear      per layer and token 2 * (hidden * head_dim * (2 * heads + 2 * kv_heads)
                    + 3 * hidden * ffn)
    LLM attention   2 * heads * head_dim * S^2  per layer and sequence of S tokens
    lm_head         2 * hidden * vocabulary  per learned position
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from ovis_model.tokens import INDICATOR_IDS

if TYPE_CHECKING:
    from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config

Grid = tuple[int, int, int]
#: Parts of the model that are told apart here, in the order in which a picture passes them.
Part = Literal["vit", "head", "vte", "llm"]
PARTS: tuple[Part, ...] = ("vit", "head", "vte", "llm")

#: Dense bfloat16 FLOP/s as the vendor's data sheets give them, without sparsity; the first name
#: that is part of the device's is taken, so variants come before their family.
PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H800", 989e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A40", 149.7e12),
    ("A10", 125e12),
    ("RTX A6000", 154.8e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)


def peak_flops(device_name: str) -> float | None:
    """Look up what a GPU does at best, in dense bfloat16 FLOP/s.

    Args:
        device_name: As `torch.cuda.get_device_name` says it.

    Returns:
        None for a device that is not in the table, and for a slice of one (MIG).

    Example:
        >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA H100 PCIe")
        (989000000000000.0, 756000000000000.0)
        >>> peak_flops("NVIDIA H20") is None
        True
    """
    if re.search(r"\bMIG\b", device_name):
        return None
    matches = (peak for name, peak in PEAK_FLOPS if re.search(rf"\b{name}\b", device_name))
    return next(matches, None)


@dataclass(frozen=True)
class BatchShape:
    """What decides how much work a batch is.

    Attributes:
        sequences: Positions of each sample, without padding.
        grids: (t, h, w) of each image or video, in patches.
        num_supervised: Positions whose token is learned.
    """

    sequences: tuple[int, ...]
    grids: tuple[Grid, ...]
    num_supervised: int


@dataclass(frozen=True)
class FlopParts:
    """Operations by what they are spent on."""

    vit_linear: int = 0
    vit_attention: int = 0
    head: int = 0
    vte: int = 0
    llm_linear: int = 0
    llm_attention: int = 0
    lm_head: int = 0

    @property
    def vision(self) -> int:
        """Up to the visual embeddings."""
        return self.vit_linear + self.vit_attention + self.head + self.vte

    @property
    def total(self) -> int:
        """All of them."""
        return self.vision + self.llm_linear + self.llm_attention + self.lm_head

    def __add__(self, other: "FlopParts") -> "FlopParts":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return FlopParts(*(mine + theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class Learning:
    """Which parts learn.

    Attributes:
        weights: Parts whose own weights get gradients.
        adapters: Parts whose weights are frozen but hold adapters: gradients pass through them.
            What the adapters themselves compute is not counted.
        vit_blocks: So many of the tower's last blocks learn, and nothing before them; None for
            the whole tower.
    """

    weights: frozenset[Part] = field(default_factory=lambda: frozenset(PARTS))
    adapters: frozenset[Part] = frozenset()
    vit_blocks: int | None = None

    def reached(self, part: Part) -> bool:
        """Say whether the backward pass goes through a part: it, or what feeds it, learns."""
        upstream = PARTS[: PARTS.index(part) + 1]
        return any(name in self.weights or name in self.adapters for name in upstream)

    def reached_before(self, part: Part) -> bool:
        """Say whether the backward pass goes on to what feeds a part."""
        place = PARTS.index(part)
        return place > 0 and self.reached(PARTS[place - 1])


class FlopCounter:
    """Counts for one model.

    Args:
        config: Of the model; nothing of it is changed.
    """

    def __init__(self, config: "Ovis2_5Config") -> None:
        llm: Any = config.llm
        vit = config.vit
        self.num_blocks = vit.num_hidden_layers
        self._vit = vit
        #: One patch through the embedding, and through the matrices of one block.
        self.patch_embedding = 2 * vit.num_channels * vit.patch_size**2 * vit.hidden_size
        self.block = 2 * vit.hidden_size * (4 * vit.hidden_size + 2 * vit.intermediate_size)
        words = config.visual_vocab_size - len(INDICATOR_IDS)
        self.head = 2 * vit.hidden_size * vit.hidden_stride**2 * words
        self.vte = 2 * words * llm.hidden_size
        heads = llm.head_dim * (2 * llm.num_attention_heads + 2 * llm.num_key_value_heads)
        layer = 2 * llm.hidden_size * (heads + 3 * llm.intermediate_size)
        #: One token through the matrices of all layers.
        self.token = layer * llm.num_hidden_layers
        #: Times the square of a sequence's length.
        self.causal = 2 * llm.num_attention_heads * llm.head_dim * llm.num_hidden_layers
        self.lm_head = 2 * llm.hidden_size * llm.vocab_size

    def forward(
        self,
        num_tokens_per_sequence: Sequence[int],
        grids: Sequence[Grid],
        num_supervised: int,
    ) -> FlopParts:
        """Count one forward pass.

        Args:
            num_tokens_per_sequence: Positions of each sample, without padding; samples packed
                into one row are sequences of their own.
            grids: (t, h, w) of each image or video, in patches.
            num_supervised: Positions for which logits are computed.
        """
        patches = count_patches(grids)
        atoms = patches // self._vit.hidden_stride**2
        return FlopParts(
            vit_linear=patches * (self.patch_embedding + self.num_blocks * self.block),
            vit_attention=self._vit_attention(grids, range(self.num_blocks)),
            head=atoms * self.head,
            vte=atoms * self.vte,
            llm_linear=sum(num_tokens_per_sequence) * self.token,
            llm_attention=sum(n * n for n in num_tokens_per_sequence) * self.causal,
            lm_head=num_supervised * self.lm_head,
        )

    def training(
        self,
        num_tokens_per_sequence: Sequence[int],
        grids: Sequence[Grid],
        num_supervised: int,
        *,
        learning: Learning | None = None,
        checkpointed: Collection[str] = (),
    ) -> FlopParts:
        """Count forward and backward pass; the optimizer's step is not counted.

        A matrix product costs its forward pass, once more for the gradient of its weights if
        they learn, and once more for the gradient of its input if something that feeds it
        learns.  Attention costs its forward pass and, where gradients pass, twice that.  So
        everything that learns costs three times its forward pass, but for the patch embedding,
        whose input are pixels: twice.  A frozen part costs its forward pass alone when nothing
        before it learns, and a frozen language model behind a vision tower that learns costs
        twice (its matrices) and three times (its attention).

        Args:
            num_tokens_per_sequence: As `forward` takes them.
            grids: As `forward` takes them.
            num_supervised: As `forward` takes it.
            learning: What learns; None for everything.
            checkpointed: Parts whose blocks are computed again in the backward pass, "llm" and
                "vit": once more their forward pass, where gradients pass.  Leave it out for the
                useful work, of which MFU is a share.
        """
        learning = learning or Learning()
        once = self.forward(num_tokens_per_sequence, grids, num_supervised)
        llm = _Times.of("llm", learning, again="llm" in checkpointed)
        head, vte = _Times.of("head", learning), _Times.of("vte", learning)
        linear, attention = self._train_tower(grids, learning, again="vit" in checkpointed)
        return FlopParts(
            vit_linear=once.vit_linear + linear,
            vit_attention=once.vit_attention + attention,
            head=once.head * head.product,
            vte=once.vte * vte.product,
            llm_linear=once.llm_linear * llm.product,
            llm_attention=once.llm_attention * llm.attention,
            # Its weights are the language model's; the loss makes its gradients at once, so it
            # is never computed again.
            lm_head=once.lm_head * (llm.product - llm.again),
        )

    def of(
        self,
        shape: BatchShape,
        *,
        learning: Learning | None = None,
        checkpointed: Collection[str] = (),
    ) -> FlopParts:
        """Count the training of a batch; `training` explains the arguments."""
        return self.training(
            shape.sequences,
            shape.grids,
            shape.num_supervised,
            learning=learning,
            checkpointed=checkpointed,
        )

    def _train_tower(
        self, grids: Sequence[Grid], learning: Learning, *, again: bool
    ) -> tuple[int, int]:
        """Count what the tower's backward pass adds, to matrices and to attention."""
        if not learning.reached("vit"):
            return 0, 0
        own = "vit" in learning.weights
        blocks = self.num_blocks if learning.vit_blocks is None else learning.vit_blocks
        patches = count_patches(grids)
        linear = patches * blocks * self.block * (1 + own + again)
        if own and learning.vit_blocks is None:
            linear += patches * self.patch_embedding
        last = range(self.num_blocks - blocks, self.num_blocks)
        return linear, self._vit_attention(grids, last) * (2 + again)

    def _vit_attention(self, grids: Sequence[Grid], blocks: Iterable[int]) -> int:
        """Count the attention of some blocks; where there are windows, few attend to all."""
        vit = self._vit
        full = vit.full_attention_blocks
        chosen = list(blocks)
        num_full = len(chosen) if full is None else sum(number in full for number in chosen)
        pairs = num_full * sum(t * (h * w) ** 2 for t, h, w in grids)
        if num_full < len(chosen):
            windows = sum(t * _window_pairs(h, w, vit) for t, h, w in grids)
            pairs += (len(chosen) - num_full) * windows
        return int(4 * vit.hidden_size * pairs)


@dataclass(frozen=True)
class _Times:
    """How many times its forward pass a part costs in training."""

    product: int
    attention: int
    again: bool

    @classmethod
    def of(cls, part: Part, learning: Learning, *, again: bool = False) -> "_Times":
        reached = learning.reached(part)
        again = again and reached
        # The first thing in a language model that learns is its embedding: gradients of every
        # layer's input are needed.  A head or a table has its features for input.
        inside = part == "llm" and reached
        to_input = inside or learning.reached_before(part)
        return cls(
            1 + (part in learning.weights) + to_input + again, 1 + 2 * reached + again, again
        )


def count_patches(grids: Iterable[Grid]) -> int:
    """Count the patches of media.

    Example:
        >>> count_patches([(1, 28, 28), (2, 4, 4)])
        816
    """
    return sum(t * h * w for t, h, w in grids)


def _window_pairs(height: int, width: int, vit: Any) -> int:
    """Sum the squares of the patches of one frame's windows."""
    stride = vit.hidden_stride
    side = vit.window_size // stride // vit.patch_size * stride
    rows, columns = list(_cut(height, side)), list(_cut(width, side))
    return sum((h * w) ** 2 for h, w in product(rows, columns))


def _cut(length: int, side: int) -> Iterator[int]:
    for start in range(0, length, side):
        yield min(side, length - start)
