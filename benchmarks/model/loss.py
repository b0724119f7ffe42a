"""C1: hidden states to the loss and its gradients, against the loss of a transformers model.

A transformers language model computes the logits of every position, turns them into float32 and
takes the cross entropy.  Ours computes logits where a label is, some at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's customary name
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from benchmarks.model.agreement import close_to_exact
from benchmarks.suite import Trial
from benchmarks.workload import digest, generator
from ovis_model.modeling.loss import linear_cross_entropy, next_token_targets
from ovis_model.tokens import IGNORE_ID

LABELLED_FRACTION = 0.35
#: Largest error, relative to float64; the gradients of bfloat16 are themselves bfloat16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
#: Rows of the weight's gradient that are compared.
WORDS_COMPARED = 1024
EXACT_ROWS = 64
Loss = Callable[["LossInput"], Tensor]


@dataclass(frozen=True)
class LossInput:
    """One row of hidden states, the output embedding and the labels."""

    hidden: Tensor
    """[1, positions, width], a leaf."""
    weight: Tensor
    """[vocab, width], a leaf."""
    labels: Tensor
    """int64 [1, positions], -100 where nothing is learned."""

    @classmethod
    def generate(
        cls, seed: int, *, positions: int, width: int, vocab: int, dtype: torch.dtype
    ) -> "LossInput":
        """Draw values whose logits spread as a trained model's: by about one or two."""
        random = generator(seed)
        hidden = torch.randn(1, positions, width, generator=random)
        weight = torch.randn(vocab, width, generator=random).mul_(1.5 * width**-0.5)
        labels = torch.randint(vocab, (1, positions), generator=random)
        labels[torch.rand(1, positions, generator=random) >= LABELLED_FRACTION] = IGNORE_ID
        return cls(hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), labels)

    def learned(self) -> tuple[Tensor, Tensor]:
        """Return the hidden states that predict a label, and those labels."""
        targets = next_token_targets(self.labels)
        at = targets != IGNORE_ID
        return self.hidden[at], targets[at]


def build(seed: int, *, positions: int, width: int, vocab: int, dtype: torch.dtype) -> Trial:
    """Make the trial for a row of so many positions."""
    given = LossInput.generate(seed, positions=positions, width=width, vocab=vocab, dtype=dtype)
    head = nn.Linear(1, 1, bias=False)
    head.weight = nn.Parameter(given.weight.detach())
    given = LossInput(given.hidden, head.weight, given.labels)

    @cache
    def exact() -> tuple[Tensor, ...]:
        return exact_results(given)

    losses: dict[str, Loss] = {"logits everywhere, ForCausalLMLoss": partial(stock_loss, head)}
    if dtype is torch.float32:  # elsewhere it is only slower
        losses["logits at labels"] = plain_loss
    losses["ours"] = our_loss
    return Trial(
        variants={name: partial(differentiate, loss, given) for name, loss in losses.items()},
        compare=lambda _, found: close_to_exact(
            exact(), (found[0], found[1], found[2][:WORDS_COMPARED]), tolerance=TOLERANCE[dtype]
        ),
        sha256=digest(given.hidden, given.weight, given.labels),
        result_bytes=given.hidden.nbytes + given.weight.nbytes,
    )


def differentiate(loss: Loss, given: LossInput) -> tuple[Tensor, ...]:
    """Return the loss and its gradients for the hidden states and for the weight."""
    value = loss(given)
    return value.detach(), *torch.autograd.grad(value, (given.hidden, given.weight))


def stock_loss(head: nn.Linear, given: LossInput) -> Tensor:
    """Compute what `Qwen3ForCausalLM.forward` computes from its last hidden states."""
    loss: Tensor = ForCausalLMLoss(head(given.hidden), given.labels, head.weight.shape[0])
    return loss


def plain_loss(given: LossInput) -> Tensor:
    """Compute logits of the learned positions only, all at once."""
    hidden, targets = given.learned()
    return F.cross_entropy(F.linear(hidden, given.weight).float(), targets)


def our_loss(given: LossInput) -> Tensor:
    """Compute the loss as the model does."""
    hidden, targets = given.learned()
    return linear_cross_entropy(hidden, given.weight, targets) / len(targets)


@torch.no_grad()
def exact_results(given: LossInput) -> tuple[Tensor, ...]:
    """Compute the loss and its gradients in float64; of the weight's, the first rows."""
    targets = next_token_targets(given.labels)[0]
    rows = (targets != IGNORE_ID).nonzero()[:, 0]
    weight = given.weight.double()
    loss = torch.zeros((), dtype=torch.float64)
    hidden_grad = torch.zeros_like(given.hidden, dtype=torch.float64)
    weight_grad = torch.zeros_like(weight[:WORDS_COMPARED])
    for some in torch.split(rows, EXACT_ROWS):
        hidden = given.hidden[0, some].double()
        scores = hidden @ weight.T
        at_target = targets[some, None]
        log_total = scores.logsumexp(dim=1, keepdim=True)
        loss += (log_total - scores.gather(1, at_target)).sum() / len(rows)
        slope = (scores - log_total).exp() / len(rows)
        slope.scatter_add_(
            1, at_target, torch.full_like(at_target, -1.0 / len(rows), dtype=torch.float64)
        )
        hidden_grad[0, some] = slope @ weight
        weight_grad += slope[:, :WORDS_COMPARED].T @ hidden
    return loss, hidden_grad, weight_grad
