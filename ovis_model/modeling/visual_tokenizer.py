"""Images to visual words: a probability over the visual vocabulary for every 2x2 patches.

Source: AIDC-AI/Ovis2.5-9B, `modeling_ovis2_5.py` (August 2025), `VisualTokenizer`.
"""

import torch
from torch import Tensor, nn

from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_siglip2_navit import Siglip2NavitModel
from ovis_model.tokens import INDICATOR_IDS


class VisualTokenizer(nn.Module):
    """Vision tower and head: patches in, a distribution over visual words out."""

    def __init__(self, config: Ovis2_5Config) -> None:
        super().__init__()
        vit = config.vit
        self.vit = Siglip2NavitModel(vit)
        # The last rows of the vocabulary are indicators; an image never produces them.
        num_words = config.visual_vocab_size - len(INDICATOR_IDS)
        features = vit.hidden_size * vit.hidden_stride**2
        self.head = nn.Sequential(
            nn.Linear(features, num_words, bias=False),
            nn.LayerNorm(num_words),  # eps 1e-5, PyTorch's default, unlike the tower's 1e-6
        )

    def forward(self, pixel_values: Tensor, grid_thws: Tensor) -> Tensor:
        """Compute visual word probabilities.

        Args:
            pixel_values: Patches in merge order, [num_patches, 768].
            grid_thws: One (t, h, w) row per medium, int64 [num_media, 3].

        Returns:
            Probabilities without the four indicators, [num_patches / 4, visual_vocab - 4], in
            the dtype of the head.
        """
        features = self.vit(pixel_values, grid_thws)  # [num_patches / 4, 4 * hidden]
        logits = self.head(features)
        return torch.softmax(logits, dim=-1, dtype=torch.float32).to(logits.dtype)


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
