"""What the forward pass keeps for the backward pass, and what both need for a moment.

    H, Q, K, I   hidden size, heads * head_dim, kv_heads * head_dim, width of the MLP
    d, F         width of the vision tower and of its MLP
    s            bytes of a number where products are computed: 2 or 4

Bytes kept per token and layer of the language model, as transformers computes it:

    two norms        8 H + 8, the input in float32 and one number per token
      that learn     + 4 s H in bfloat16 or float32; + 18 H under autocast, which casts the input
                     of each matrix separately
    attention        4 (Q + K) + s (2 Q + 2 K) + 4 (2 heads + kv_heads)
      that learns    + s (Q + K)
    MLP              3 s I, and one more where it learns

Per patch and block of the vision tower: s (8 d + 2 F) + 4 s + 4 heads; under autocast
24 d + 4 F + 16 + 4 heads.  With gradient checkpointing a block keeps its input alone, and the
block at hand everything.  Attention that is not written out keeps no scores; `eager` keeps
(4 + s) * heads * S per token.  Counted from what autograd saves, and compared with it in tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ovis_model.flops import BatchShape, Learning, count_patches
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.loss import chunk_rows
from ovis_model.modeling.visual_tokenizer import CHUNK_SIZE, KEPT_SCORES
from ovis_model.modeling.visual_words import BLOCK_SIZE
from ovis_model.planning.report import MemoryItem
from ovis_model.planning.states import Engine
from ovis_model.tokens import INDICATOR_IDS

#: Bytes per probability over the visual words: kept in between, and while their gradient is made.
WORD_KEPT, WORD_PEAK = 8, 16
#: The same, while their gradient is made from scores that were kept, a block at a time: scores,
#: normalised scores, probabilities and three gradients.
BLOCK_WORK = 24


@dataclass(frozen=True)
class PaddedBatch:
    """The micro-batch that memory must be there for.

    Attributes:
        positions: Rows times their length, padding included.
        longest: Positions of one row.
        shape: Of its samples.
    """

    positions: int
    longest: int
    shape: BatchShape

    @property
    def patches(self) -> int:
        """Of all its media."""
        return count_patches(self.shape.grids)


def worst_batch(shapes: Sequence[BatchShape], rows: int) -> PaddedBatch:
    """Put together the largest micro-batch that chance can make of samples.

    Args:
        shapes: Of every sample, alone.
        rows: Samples in a micro-batch.
    """
    rows = min(rows, len(shapes))
    lengths = sorted((sum(shape.sequences) for shape in shapes), reverse=True)[:rows]
    by_patches = sorted(shapes, key=lambda shape: -count_patches(shape.grids))[:rows]
    learned = sorted((shape.num_supervised for shape in shapes), reverse=True)[:rows]
    return PaddedBatch(
        positions=lengths[0] * rows,
        longest=lengths[0],
        shape=BatchShape(
            sequences=tuple(lengths),
            grids=tuple(grid for shape in by_patches for grid in shape.grids),
            num_supervised=sum(learned),
        ),
    )


@dataclass(frozen=True)
class Activations:
    """In bytes.

    Attributes:
        tower, visual, llm: Kept from the forward pass until the backward pass comes by: by the
            vision tower, by the visual vocabulary and by the language model.
        tower_work, llm_work: Needed beside them while a block's gradient is computed.
        logits: Needed for a moment, and the output embedding's gradient.
        words: Needed for a moment, beside what is kept, for the visual vocabulary.
        word_gradients: Of the head's and the visual table's weights, before they are added to
            those of earlier micro-batches.
        held: The output embedding's gradient where it is the input embedding's too: the loss
            makes it, and it waits for the rest of it until the very end.
        inputs: The batch itself.
        stays: Whether freed memory stays with the process: a CPU's allocator gives back blocks
            above 32 MB alone, and those of the language model are smaller.
    """

    tower: int
    visual: int
    llm: int
    tower_work: int
    llm_work: int
    logits: int
    words: int
    word_gradients: int
    held: int
    inputs: int
    stays: bool = False

    @property
    def peak(self) -> int:
        """The most there is at a time.

        Either the language model has computed its loss and begins to go back, or it is done and
        forgotten and the visual vocabulary, or the tower, is gone back through.
        """
        llm = self.llm + max(self.logits, self.held + self.llm_work)
        left = self.held + (self.llm + self.llm_work) * self.stays
        words = left + self.words + self.word_gradients
        tower = left + self.tower_work
        return self.inputs + self.tower + self.visual + max(llm, words, tower)

    def items(self) -> list[MemoryItem]:
        """For the table."""
        return [
            MemoryItem(name="batch", device_bytes=self.inputs),
            MemoryItem(
                name="activations, vision tower", device_bytes=self.tower + self.tower_work
            ),
            MemoryItem(
                name="visual vocabulary",
                device_bytes=self.visual + self.words + self.word_gradients,
                note="one chunk of visual tokens",
            ),
            MemoryItem(name="activations, language model", device_bytes=self.llm + self.llm_work),
            MemoryItem(
                name="logits", device_bytes=self.logits, note="one chunk of learned positions"
            ),
        ]


@dataclass(frozen=True)
class Circumstances:
    """Under which a micro-batch is trained on.

    Attributes:
        engine: Whose precision is used.
        learning: What learns: where no gradient passes, nothing is kept.
        checkpointed: Parts whose blocks are computed again, "llm" and "vit".
        device: "cuda" or "cpu", which decides how large chunks are.
        eager: Whether attention is written out.
    """

    engine: Engine
    learning: Learning
    checkpointed: tuple[str, ...]
    device: str
    eager: bool = False

    @property
    def number(self) -> int:
        """Bytes of a number where products are computed."""
        return 2 if self.engine.autocast else self.engine.weight_bytes

    @property
    def stream(self) -> int:
        """Bytes of a number between the blocks."""
        return self.engine.weight_bytes


def count_activations(
    config: Ovis2_5Config, batch: PaddedBatch, under: Circumstances
) -> Activations:
    """Count what training on a micro-batch needs beside the states."""
    tower, tower_work = _tower(config, batch, under)
    llm, llm_work = _language_model(config, batch, under)
    visual, words = _visual_words(config, batch, under)
    return Activations(
        tower=tower,
        visual=visual,
        llm=llm,
        tower_work=tower_work,
        llm_work=llm_work,
        logits=_logits(config, batch, under),
        words=words,
        word_gradients=_word_gradients(config, under),
        held=_held_gradient(config, under),
        # Bytes of pixels; ids, labels and mask.
        inputs=batch.patches * 768 + batch.positions * 17,
        stays=under.device == "cpu",
    )


def llm_layer_bytes(llm: Any, *, s: int, autocast: bool, learns: bool) -> int:
    """Return what one layer of the language model keeps per token."""
    hidden, inner = llm.hidden_size, llm.intermediate_size
    query = llm.num_attention_heads * llm.head_dim
    key = llm.num_key_value_heads * llm.head_dim
    kept = 8 * hidden + 8
    kept += 4 * (query + key) + s * 2 * (query + key)
    kept += 4 * (2 * llm.num_attention_heads + llm.num_key_value_heads)
    kept += s * 3 * inner
    if learns:
        kept += 18 * hidden if autocast else 4 * s * hidden
        kept += s * (query + key) + s * inner
    return int(kept)


def vit_block_bytes(vit: Any, *, s: int, autocast: bool) -> int:
    """Return what one block of the vision tower keeps per patch."""
    width, inner, heads = vit.hidden_size, vit.intermediate_size, vit.num_attention_heads
    if autocast:
        return int(24 * width + 4 * inner + 16 + 4 * heads)
    return int(s * (8 * width + 2 * inner) + 4 * s + 4 * heads)


def _tower(config: Ovis2_5Config, batch: PaddedBatch, under: Circumstances) -> tuple[int, int]:
    vit: Any = config.vit
    s, stream, learning = under.number, under.stream, under.learning
    again = "vit" in under.checkpointed
    block = vit_block_bytes(vit, s=s, autocast=under.engine.autocast)
    if not learning.reached("vit"):
        # Its result, and one block at a time.
        return batch.patches * stream * vit.hidden_size, batch.patches * block
    blocks = vit.num_hidden_layers if learning.vit_blocks is None else learning.vit_blocks
    kept = blocks * (stream * vit.hidden_size if again else block)
    # Rotations, the result if the head learns, and the pixels if their embedding does.
    kept += 8 * vit.head_dim
    kept += stream * vit.hidden_size if "head" in learning.weights else 0
    kept += s * vit.num_channels * vit.patch_size**2 if learning.vit_blocks is None else 0
    work = s * 2 * vit.intermediate_size + 3 * stream * vit.hidden_size
    return batch.patches * kept, batch.patches * (work + (block if again else 0))


def _language_model(
    config: Ovis2_5Config, batch: PaddedBatch, under: Circumstances
) -> tuple[int, int]:
    llm: Any = config.llm
    s, stream = under.number, under.stream
    again = "llm" in under.checkpointed
    # ZeRO-3 replaces torch's linear function by one that always keeps its input.
    # An adapter keeps the input of the layer it stands beside.
    own = under.learning.weights | under.learning.adapters
    learns = "llm" in own or under.engine.stage == 3
    layer = llm_layer_bytes(llm, s=s, autocast=under.engine.autocast, learns=learns)
    if under.eager:
        layer += (4 + s) * llm.num_attention_heads * batch.longest
    if not under.learning.reached("llm"):
        return batch.positions * stream * llm.hidden_size, batch.positions * layer
    kept = llm.num_hidden_layers * (stream * llm.hidden_size if again else layer)
    # Rotations, the last norm's input, and what its weights need.
    kept += 2 * s * llm.head_dim + 4 * llm.hidden_size
    kept += 2 * stream * llm.hidden_size if learns else 0
    work = s * 3 * llm.intermediate_size + 12 * llm.hidden_size
    return batch.positions * kept, batch.positions * (work + (layer if again else 0))


def _logits(config: Ovis2_5Config, batch: PaddedBatch, under: Circumstances) -> int:
    """Count the loss: a chunk of scores, rows of hidden states, the embedding's gradient."""
    llm: Any = config.llm
    s, learned = under.number, batch.shape.num_supervised
    rows = min(learned, chunk_rows(llm.vocab_size, torch.device(under.device)))
    scores = rows * llm.vocab_size * (4 if s == 4 else 4 + s)
    hidden = 2 * learned * llm.hidden_size * s
    return int(scores + hidden) + _head_gradient(config, under)


def _head_gradient(config: Ovis2_5Config, under: Circumstances) -> int:
    """Count the output embedding's gradient as the loss makes it."""
    llm: Any = config.llm
    learns = "llm" in under.learning.weights
    return int(llm.vocab_size * llm.hidden_size * under.number) if learns else 0


def _held_gradient(config: Ovis2_5Config, under: Circumstances) -> int:
    """Count what of it waits for the input embedding's: as the weights are, not as products."""
    if not config.llm.tie_word_embeddings:
        return 0
    return _head_gradient(config, under) * under.stream // under.number


def _word_gradients(config: Ovis2_5Config, under: Circumstances) -> int:
    """Count what the visual vocabulary's weights get of a micro-batch.

    A table's gradient is made for the words that pictures show, and once more for all of them.
    Without accumulation it is what `gradients` counts.
    """
    if not under.engine.keeps_gradients:
        return 0
    llm: Any = config.llm
    features = config.vit.hidden_size * config.vit.hidden_stride**2
    per_word = features * ("head" in under.learning.weights)
    per_word += 2 * llm.hidden_size * ("vte" in under.learning.weights)
    # Autocast turns them into float32 before they are added.
    return int(per_word * config.visual_vocab_size * (under.stream + under.engine.autocast * 2))


def _visual_words(
    config: Ovis2_5Config, batch: PaddedBatch, under: Circumstances
) -> tuple[int, int]:
    """Return what is kept, and what is there for a moment beside it."""
    words = config.visual_vocab_size - len(INDICATOR_IDS)
    atoms = batch.patches // config.vit.hidden_stride**2
    limit = max(1, CHUNK_SIZE[under.device] // words)
    if not under.learning.reached("vte"):
        return 0, min(atoms, limit) * words * WORD_KEPT
    # ZeRO-3 gathers the weights of a module while it runs, so modules are run.
    if atoms * words <= KEPT_SCORES[under.device] and under.engine.stage != 3:
        block = min(atoms * words, BLOCK_SIZE)
        return atoms * words * under.number, block * BLOCK_WORK
    if atoms > limit:
        return 0, limit * words * WORD_PEAK
    return atoms * words * WORD_KEPT, atoms * words * (WORD_PEAK - WORD_KEPT)
