"""Cross entropy straight from hidden states, without the logits of a whole batch.

    num_rows   positions whose token is learned
    width      hidden size
    vocab      rows of the output embedding

Ovis2.5's vocabulary has 151,936 rows: in float32 the logits of 8,192 positions take 5 GB, and the
plain loss keeps several such tensors.  Here logits exist for a chunk of the learned positions at
a time; their gradient is computed while they do, so that nothing is computed twice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from ovis_model.modeling.chunks import equal_chunks
from ovis_model.modeling.compilation import not_compiled
from ovis_model.tokens import IGNORE_ID

#: float32 logits of one chunk, in bytes.  Larger ones gain nothing on the device in question.
CHUNK_BYTES = {"cpu": 112 << 20, "cuda": 512 << 20}
MIN_CHUNK_ROWS = 32


def chunk_rows(vocab: int, device: torch.device) -> int:
    """Return how many rows of logits are computed at a time."""
    budget = CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])
    return max(MIN_CHUNK_ROWS, budget // (4 * vocab))


@dataclass
class OvisOutput(CausalLMOutputWithPast):
    """What a forward pass returns, and beside the loss what it is made of."""

    token_losses: Tensor | None = None
    """Cross entropy of each learned position, row by row, without a graph; float32 [num_rows]."""


class LanguageModelHead(nn.Linear):
    """The output embedding, which also computes the loss.

    The loss is computed inside this module's forward because ZeRO-3 gathers a module's weight
    for just as long as its forward runs.
    """

    def forward(
        self,
        input: Tensor,  # noqa: A002
        targets: Tensor | None = None,
        row_losses: Tensor | None = None,
    ) -> Tensor:
        """Compute logits, or the summed loss.

        Args:
            input: Hidden states [..., width]; [num_rows, width] with targets.
            targets: Ids to predict, int64 [num_rows]; none may be -100.
            row_losses: As `linear_cross_entropy` takes it.

        Returns:
            Logits [..., vocab], or the sum of the rows' cross entropies, float32 [].
        """
        if targets is None:
            return super().forward(input)
        return linear_cross_entropy(input, self.weight, targets, row_losses=row_losses)


@not_compiled
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    rows_per_chunk: int | None = None,
    row_losses: Tensor | None = None,
) -> Tensor:
    """Sum of the cross entropies of `softmax(hidden @ weight.T)`.

    Args:
        hidden: Hidden states [num_rows, width].
        weight: Output embedding [vocab, width].
        targets: Ids to predict, int64 [num_rows].
        rows_per_chunk: Rows whose logits exist at a time; None chooses by vocabulary and device.
        row_losses: Receives each row's own cross entropy, float32 [num_rows].

    Returns:
        float32 []; divide by the number of rows for the mean.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        precision = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(precision), weight.to(precision)
    rows = rows_per_chunk or chunk_rows(len(weight), hidden.device)
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, rows, row_losses
    )
    return loss


def _add_chunk(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    hidden_grad: Tensor | None,
    weight_grad: Tensor | None,
) -> Tensor:
    """Return the rows' losses, [rows, 1]; write their gradient and add to that of the weight.

    A function of its own, so that its buffers are gone before the next chunk's are made.
    """
    scores = (hidden @ weight.T).float()  # [rows, vocab]
    of_target = scores.gather(1, targets)
    highest = scores.amax(dim=-1, keepdim=True)
    # One buffer of this size is all there is: it becomes the softmax, then the slope.
    slope = scores.sub_(highest).exp_()
    total = slope.sum(dim=-1, keepdim=True)
    losses = highest + total.log() - of_target
    if hidden_grad is None and weight_grad is None:
        return losses
    # d loss / d scores = softmax(scores), less one at the target.
    slope.div_(total)
    slope.scatter_add_(1, targets, slope.new_full((1, 1), -1.0).expand_as(targets))
    slope = slope.to(weight.dtype)
    if hidden_grad is not None:
        torch.mm(slope, weight, out=hidden_grad)
    if weight_grad is not None:
        weight_grad.addmm_(slope.T, hidden)
    return losses


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass, chunk by chunk, and scaled in the backward one."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd takes them by position
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: int,
        row_losses: Tensor | None,
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        loss = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad = torch.empty_like(hidden) if need_hidden else None
        weight_grad = torch.zeros_like(weight) if need_weight else None
        for chunk in equal_chunks(len(hidden), rows):
            into = None if hidden_grad is None else hidden_grad[chunk]
            losses = _add_chunk(hidden[chunk], weight, targets[chunk, None], into, weight_grad)
            loss += losses.sum()
            if row_losses is not None:
                row_losses[chunk] = losses[:, 0]
        ctx.grads = hidden_grad, weight_grad
        return loss

    @staticmethod
    def backward(
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if ctx.grads is None:
            raise RuntimeError(
                "the loss was differentiated twice; its gradients are kept for one backward pass"
            )
        (scale,) = grad_outputs
        hidden_grad, weight_grad = ctx.grads
        ctx.grads = None
        for grad in (hidden_grad, weight_grad):
            if grad is not None:
                grad.mul_(scale)
        return hidden_grad, weight_grad, None, None, None


def next_token_targets(labels: Tensor, first_positions: Tensor | None = None) -> Tensor:
    """Move every label to the position that predicts it.

    Args:
        labels: int64 [batch, seq_len], -100 where nothing is learned.
        first_positions: In a packed row the positions at which its samples begin, the first
            being 0: the sample before does not predict them.

    Returns:
        int64 [batch, seq_len]; the last position predicts nothing.
    """
    targets = torch.full_like(labels, IGNORE_ID)
    targets[:, :-1] = labels[:, 1:]
    if first_positions is not None:
        targets[:, first_positions[1:] - 1] = IGNORE_ID
    return targets
