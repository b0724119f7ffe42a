"""Features to visual embeddings in one differentiable step that keeps the scores alone.

    num_tokens   visual tokens
    num_words    visual words that an image can produce
    width        of a token's features
    hidden       width of the language model

A linear layer, a normalisation, a softmax and a product keep three tensors [num_tokens, num_words]
for the backward pass, in float32 under autocast.  Here the scores are kept, in the precision of
the product; all else is made again from them, a few tokens at a time, which costs no product.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ovis_model.modeling.chunks import equal_chunks
from ovis_model.modeling.compilation import not_compiled

#: Numbers of one tensor that is made again at a time: 128 tokens over the released vocabulary.
#: Fewer make narrow products; and at 33 MB a block's memory goes back to the system at once.
BLOCK_SIZE = 1 << 23


class WordWeights(NamedTuple):
    """What scores, normalises and embeds visual words."""

    head: Tensor
    """[num_words, width]."""
    scale: Tensor
    """Of the normalisation, [num_words]."""
    shift: Tensor
    """Likewise."""
    table: Tensor
    """Embeddings of the words, [num_words, hidden]."""


@not_compiled
def mix_visual_words(features: Tensor, weights: WordWeights, *, eps: float) -> Tensor:
    """Return `softmax(layer_norm(features @ head.T)) @ table`, [num_tokens, hidden].

    Args:
        features: [num_tokens, width].
        weights: Of head, normalisation and table.
        eps: Of the normalisation.
    """
    head, scale, shift, table = weights
    device = features.device.type
    if torch.is_autocast_enabled(device):
        precision = torch.get_autocast_dtype(device)
        features, head, table = (one.to(precision) for one in (features, head, table))
    with torch.autocast(device, enabled=False):
        mixed: Tensor = _MixVisualWords.apply(  # type: ignore[no-untyped-call]
            features, head, scale, shift, table, eps
        )
    return mixed


def _normalize(
    scores: Tensor, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the scores and probabilities in float32, and the mean and inverse deviation."""
    scores = scores.float()
    normed, mean, deviation = torch.native_layer_norm(
        scores, scores.shape[-1:], scale.float(), shift.float(), eps
    )
    return scores, torch.softmax(normed, dim=-1), mean, deviation


class _MixVisualWords(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - autograd's call
        ctx: Any,
        features: Tensor,
        head: Tensor,
        scale: Tensor,
        shift: Tensor,
        table: Tensor,
        eps: float,
    ) -> Tensor:
        scores = features @ head.T
        mixed = features.new_empty(len(features), table.shape[1])
        for block in _blocks(scores):
            _, words, _, _ = _normalize(scores[block], scale, shift, eps)
            torch.mm(words.to(table.dtype), table, out=mixed[block])
        ctx.save_for_backward(features, head, scale, shift, table)
        # Not a saved tensor: the backward pass writes its slope over it.
        ctx.scores, ctx.eps = scores, eps
        return mixed

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.scores is None:
            raise RuntimeError(
                "visual embeddings were differentiated twice; what they need is kept for one "
                "backward pass"
            )
        (grad,) = grad_outputs
        features, head, scale, shift, table = ctx.saved_tensors
        need_features, need_head, need_scale, need_shift, need_table, _ = ctx.needs_input_grad
        scores, ctx.scores = ctx.scores, None
        scale_grad = torch.zeros_like(scale, dtype=torch.float32) if need_scale else None
        shift_grad = torch.zeros_like(shift, dtype=torch.float32) if need_shift else None
        # In float32: a sum over many blocks would lose what bfloat16 rounds away.
        table_grad = torch.zeros_like(table, dtype=torch.float32) if need_table else None
        for block in _blocks(scores):
            found, words, mean, deviation = _normalize(scores[block], scale, shift, ctx.eps)
            if table_grad is not None:
                table_grad += words.to(table.dtype).T @ grad[block]
            if not any((need_features, need_head, need_scale, need_shift)):
                continue  # the table alone learns
            slope = torch.ops.aten._softmax_backward_data(
                (grad[block] @ table.T).float(), words, -1, torch.float32
            )
            slope, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
                slope,
                found,
                found.shape[-1:],
                mean,
                deviation,
                scale.float(),
                shift.float(),
                [need_features or need_head, need_scale, need_shift],
            )
            if scale_grad is not None:
                scale_grad += of_scale
            if shift_grad is not None:
                shift_grad += of_shift
            if slope is not None:
                scores[block] = slope
        return (
            scores @ head if need_features else None,
            scores.T @ features if need_head else None,
            None if scale_grad is None else scale_grad.to(scale.dtype),
            None if shift_grad is None else shift_grad.to(shift.dtype),
            None if table_grad is None else table_grad.to(table.dtype),
            None,
        )


def _blocks(scores: Tensor) -> list[slice]:
    return equal_chunks(len(scores), max(1, BLOCK_SIZE // scores.shape[1]))


def plain_weights(head: nn.Sequential, embedding: nn.Embedding) -> WordWeights | None:
    """Return the weights, if they may be used without calling the modules that hold them.

    They may not where something else stands in a module's place, such as an adapter, nor under
    ZeRO-3, which gathers a module's weights for as long as it runs.
    """
    linear, norm = head
    if type(linear) is not nn.Linear or type(norm) is not nn.LayerNorm:
        return None
    found = WordWeights(linear.weight, norm.weight, norm.bias, embedding.weight)
    if any(hasattr(weight, "ds_id") for weight in found):
        return None
    return found._replace(table=embedding.weight[: len(linear.weight)])
