"""Ovis2.5 as the official trainer computes it, in our words, on the weights of our classes.

What it does that ours does not: the tower gathers its tokens into window order although no block
has windows, attends picture by picture, and keeps every block's output, put back in order; all of
the visual vocabulary is scored, normalised, turned into float32 probabilities and copied once more
beside four columns of zeros, for every visual token at once; attention in the language model is
written out; logits are made for every position, padding included, and turned into float32.
What it does not do is anything slower than that: visual embeddings are put in place by one
assignment, not by the loop over tokens that a well-known copy has.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's customary name
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.modeling_siglip2_navit import (
    Siglip2NavitEncoderLayer,
    Siglip2NavitModel,
    expand_cells,
    rope_angles,
    rotate,
    window_index,
)
from ovis_model.tokens import INDICATOR_IDS, VISUAL_ATOM_ID

Rotation = tuple[Tensor, Tensor]


class ReferenceOvis(Ovis2_5ForConditionalGeneration):
    """The same weights under the same names, another forward pass."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        grid_thws: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute the loss of a right-padded batch, and all its logits.

        That anything may be handed on is what tells the Trainer to divide by the labels of the
        whole step, not of each micro-batch.
        """
        embeds = self.merge(input_ids, pixel_values, grid_thws)
        outputs: CausalLMOutputWithPast = self.llm(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            labels=labels,
            use_cache=False,
            **kwargs,
        )
        return outputs

    def merge(
        self, input_ids: Tensor, pixel_values: Tensor | None, grid_thws: Tensor | None
    ) -> Tensor:
        """Embed text, indicators and pictures, [batch, seq_len, hidden]."""
        embeds: Tensor = self.get_input_embeddings()(input_ids.masked_fill(input_ids < 0, 0))
        last = self.config.visual_vocab_size
        rows = torch.arange(last - len(INDICATOR_IDS), last)
        for token_id, embedding in zip(INDICATOR_IDS, self.vte(rows), strict=True):
            embeds[input_ids == token_id] = embedding.to(embeds.dtype)
        if pixel_values is None or grid_thws is None:
            # Every batch touches every parameter: a dummy picture that counts for nothing.
            dummy = embeds.new_zeros(4, 3 * 16**2)
            visual = self.see(dummy, torch.tensor([[1, 2, 2]]))
            return embeds + visual.sum() * 0.0
        embeds[input_ids == VISUAL_ATOM_ID] = self.see(pixel_values, grid_thws).to(embeds.dtype)
        return embeds

    def see(self, pixel_values: Tensor, grid_thws: Tensor) -> Tensor:
        """Embed pictures, [num_tokens, hidden]."""
        scores = self.visual_tokenizer.head(
            tower_features(self.visual_tokenizer.vit, pixel_values, grid_thws)
        )
        words = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        words = torch.cat([words, words.new_zeros(len(words), len(INDICATOR_IDS))], dim=-1)
        return words @ self.vte.weight


def tower_features(vit: Siglip2NavitModel, pixel_values: Tensor, grid_thws: Tensor) -> Tensor:
    """Compute features of cells, [num_patches / 4, 4 * hidden].

    Args:
        vit: The tower, whose weights are used.
        pixel_values: float32 [num_patches, 768].
        grid_thws: int64 [num_media, 3].
    """
    config, tower = vit.config, vit.vision_model
    weight = tower.embeddings.patch_embedding.weight
    patches = pixel_values.to(weight.dtype).view(-1, *weight.shape[1:])
    hidden = F.conv2d(
        patches, weight, tower.embeddings.patch_embedding.bias, stride=config.patch_size
    ).flatten(1)
    hidden = hidden + _positions(vit, grid_thws)
    cells, _ = window_index([(t, h, w) for t, h, w in grid_thws.tolist()], config)
    order = expand_cells(cells, config.hidden_stride**2)
    back = torch.argsort(order)
    hidden, rotation = hidden[order], _rotation(vit, grid_thws, order)
    bounds = F.pad(
        torch.repeat_interleave(grid_thws[:, 1] * grid_thws[:, 2], grid_thws[:, 0]).cumsum(0),
        (1, 0),
    )
    states = []
    for layer in tower.encoder.layers:
        states.append(hidden[back])
        assert isinstance(layer, Siglip2NavitEncoderLayer)
        hidden = _block(layer, hidden, rotation, bounds)
    states.append(hidden[back])
    return states[-1].reshape(-1, hidden.shape[-1] * config.hidden_stride**2)


def _positions(vit: Siglip2NavitModel, grid_thws: Tensor) -> Tensor:
    """Interpolate the learned positions, picture by picture, in merge order."""
    embeddings, stride = vit.vision_model.embeddings, vit.config.hidden_stride
    side = embeddings.side
    table = embeddings.position_embedding.weight.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    found = []
    for t, h, w in grid_thws:
        frames, height, width = int(t.item()), int(h.item()), int(w.item())
        resized = F.interpolate(
            table, size=(height, width), mode="bicubic", align_corners=False
        ).permute(0, 2, 3, 1)
        repeated = resized.reshape(1, -1, resized.shape[-1]).repeat(frames, 1, 1)
        cells = repeated.view(frames, height // stride, stride, width // stride, stride, -1)
        found.append(cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, resized.shape[-1]))
    return torch.cat(found)


def _rotation(vit: Siglip2NavitModel, grid_thws: Tensor, order: Tensor) -> Rotation:
    config = vit.config
    angles = torch.cat(
        [
            rope_angles(
                int(h.item()), int(w.item()), config.head_dim, config.hidden_stride
            ).repeat(int(t.item()), 1)
            for t, h, w in grid_thws
        ]
    )[order]
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _block(
    layer: Siglip2NavitEncoderLayer, hidden: Tensor, rotation: Rotation, bounds: Tensor
) -> Tensor:
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    heads = (len(hidden), attention.num_heads, attention.head_dim)
    query = rotate(attention.q_proj(normed).view(heads), *rotation)
    key = rotate(attention.k_proj(normed).view(heads), *rotation)
    value = attention.v_proj(normed).view(heads)
    parts = []
    for begin, end in pairwise(bounds.tolist()):
        own = slice(begin, end)
        q, k, v = (states[own].transpose(0, 1)[None] for states in (query, key, value))
        parts.append(F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1))
    hidden = hidden + attention.out_proj(torch.cat(parts).reshape(hidden.shape))
    result: Tensor = hidden + layer.mlp(layer.layer_norm2(hidden))
    return result


def load_reference(folder: Any) -> ReferenceOvis:
    """Load a checkpoint folder in float32, with the attention that the released files choose."""
    model: ReferenceOvis = ReferenceOvis.from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    # Not "auto": the flag in the released configuration keeps transformers 4.51 on this one.
    model.llm.set_attn_implementation("eager")
    return model
