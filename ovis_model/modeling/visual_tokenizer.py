"""Images to visual words: a probability over the visual vocabulary for every 2x2 patches.

    num_tokens   2x2 cells of patches, one visual token each
    num_words    visual words that an image can produce: the vocabulary without its indicators
    hidden       width of the language model

With the released 65,532 words, the scores, their normalised form and the probabilities of the
4,704 tokens of a 1792 px x 2688 px page take 3 GB.  They are therefore made for a chunk of tokens
at a time, mixed into embeddings, and made again in the backward pass.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `VisualTokenizer`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ovis_model.modeling.chunks import equal_chunks
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_siglip2_navit import Siglip2NavitModel
from ovis_model.modeling.visual_words import mix_visual_words, plain_weights
from ovis_model.tokens import INDICATOR_IDS

#: Probabilities that exist at a time, in numbers: 384 tokens over the released vocabulary on a
#: CPU, 1,024 on a GPU, whose matrix products want more rows.
CHUNK_SIZE = {"cpu": 3 << 23, "cuda": 1 << 26}
#: Scores that may be kept for the backward pass, in numbers: those of 2,048 tokens on a CPU.  On
#: a GPU none are, until it is measured there.
KEPT_SCORES = {"cpu": 1 << 27, "cuda": 0}
#: PyTorch's default, unlike the tower's 1e-6.
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class SeenMedia:
    """What was computed of a batch's media before, one of the two.

    Attributes:
        features: The vision tower's output, [num_tokens, 4 * vit_hidden].
        embeds: Visual embeddings, [num_tokens, hidden].
    """

    features: Tensor | None = None
    embeds: Tensor | None = None


class VisualTokenizer(nn.Module):
    """Vision tower and head: patches in, a distribution over visual words out."""

    def __init__(self, config: Ovis2_5Config) -> None:
        super().__init__()
        vit = config.vit
        self.vit = Siglip2NavitModel(vit)
        # The last rows of the vocabulary are indicators; an image never produces them.
        self.num_words = config.visual_vocab_size - len(INDICATOR_IDS)
        features = vit.hidden_size * vit.hidden_stride**2
        self.head = nn.Sequential(
            nn.Linear(features, self.num_words, bias=False),
            nn.LayerNorm(self.num_words, eps=LAYER_NORM_EPS),
        )

    def forward(self, pixel_values: Tensor, grid_thws: Tensor) -> Tensor:
        """Compute visual word probabilities.

        Args:
            pixel_values: Patches in merge order, [num_patches, 768].
            grid_thws: One (t, h, w) row per medium, int64 [num_media, 3].

        Returns:
            Probabilities without the four indicators, [num_tokens, num_words], in the dtype of
            the head.
        """
        return self.tokenize(self.vit(pixel_values, grid_thws))

    def tokenize(self, features: Tensor) -> Tensor:
        """Turn features [num_tokens, 4 * vit_hidden] into probabilities [..., num_words]."""
        scores = self.head(features)
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


class VisualEmbedding(nn.Embedding):
    """The visual embedding table, looked up by id or mixed by probabilities."""

    def forward(self, visual_words: Tensor) -> Tensor:
        """Embed visual words.

        Args:
            visual_words: int64 ids of any shape, or probabilities [num_tokens, num_words] over
                the first `num_words` rows of the table.

        Returns:
            Embeddings [..., hidden].
        """
        if not visual_words.is_floating_point():
            return super().forward(visual_words)
        # Leaving out the rows of the indicators equals padding the probabilities with zeros.
        return visual_words @ self.weight[: visual_words.shape[-1]]


def embed_features(
    tokenizer: VisualTokenizer,
    embedding: VisualEmbedding,
    features: Tensor,
    *,
    rows_per_chunk: int | None = None,
) -> Tensor:
    """Mix the visual embeddings of features without holding all their probabilities.

    The result is that of `embedding(tokenizer.tokenize(features))`.

    Args:
        tokenizer: Its head scores the words.
        embedding: The table to mix.
        features: The tower's output, [num_tokens, 4 * vit_hidden].
        rows_per_chunk: Tokens whose probabilities exist at a time; None chooses by device.  At
            most that many tokens are done the plain way.  In training on a CPU, `None` keeps the
            scores of up to `KEPT_SCORES`, which saves computing them again.

    Returns:
        [num_tokens, hidden].
    """

    def mix(part: Tensor) -> Tensor:
        mixed: Tensor = embedding(tokenizer.tokenize(part))
        return mixed

    learns = torch.is_grad_enabled() and rows_per_chunk is None
    if learns and len(features) * tokenizer.num_words <= KEPT_SCORES[features.device.type]:
        weights = plain_weights(tokenizer.head, embedding)
        if weights is not None:
            return mix_visual_words(features, weights, eps=LAYER_NORM_EPS)
    budget = CHUNK_SIZE.get(features.device.type, CHUNK_SIZE["cuda"])
    rows = rows_per_chunk or max(1, budget // tokenizer.num_words)
    if len(features) <= rows:
        return mix(features)
    chunks = [features[chunk] for chunk in equal_chunks(len(features), rows)]
    if not torch.is_grad_enabled():
        return torch.cat([mix(chunk) for chunk in chunks])
    # Nothing in between is random: there is no generator state to restore.
    parts = [
        checkpoint(mix, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
    ]
    return torch.cat(parts)
