import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from ovis_model.modeling.loss import (
    CHUNK_BYTES,
    MIN_CHUNK_ROWS,
    LanguageModelHead,
    chunk_rows,
    linear_cross_entropy,
    next_token_targets,
)


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 16, generator=generator, dtype=torch.float64).float()
    weight = torch.randn(300, 16, generator=generator, dtype=torch.float64).float()
    targets = torch.randint(0, 300, (50,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain(hidden, weight, targets):
    return F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")


@pytest.mark.parametrize("rows", [1, 7, 50, 64], ids=["one", "uneven", "exact", "more"])
def test_loss_and_gradients_are_those_of_the_plain_path(problem, rows):
    hidden, weight, targets = problem
    expected = plain(hidden, weight, targets)
    chunked = linear_cross_entropy(hidden, weight, targets, rows_per_chunk=rows)
    torch.testing.assert_close(chunked, expected)
    wanted = torch.autograd.grad(expected / 7, (hidden, weight))
    got = torch.autograd.grad(chunked / 7, (hidden, weight))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_only_the_gradients_that_are_needed_are_made(problem, trained):
    hidden, weight, targets = problem
    frozen = weight if trained == "hidden" else hidden
    frozen.requires_grad_(requires_grad=False)
    linear_cross_entropy(hidden, weight, targets, rows_per_chunk=20).backward()
    assert frozen.grad is None
    assert (hidden if trained == "hidden" else weight).grad.any()


def test_logits_of_the_whole_batch_never_exist(problem):
    hidden, weight, targets = problem
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if result.shape[-1:] == (300,) and result.shape != weight.T.shape:
                largest = max(largest, result.numel())
            return result

    with Largest():
        linear_cross_entropy(hidden, weight, targets, rows_per_chunk=8).backward()
    assert largest == 8 * 300


def test_autocast_computes_in_16_bits_and_gives_gradients_in_32(problem):
    hidden, weight, targets = problem
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, rows_per_chunk=16)
        expected = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert weight.grad.dtype == hidden.grad.dtype == torch.float32
    wanted = torch.autograd.grad(plain(hidden, weight, targets), weight)[0]
    assert (weight.grad - wanted).norm() < 0.02 * wanted.norm()


def test_a_second_backward_pass_is_refused(problem):
    hidden, weight, targets = problem
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        loss.backward()


def test_the_head_without_targets_is_a_linear_layer(problem):
    hidden, weight, targets = problem
    head = LanguageModelHead(16, 300, bias=False)
    with torch.no_grad():
        head.weight.copy_(weight)
    torch.testing.assert_close(head(hidden[None]), (hidden @ weight.T)[None])
    torch.testing.assert_close(head(hidden, targets), plain(hidden, weight, targets))


def test_a_chunk_of_the_released_vocabulary_fits_the_budget():
    rows = chunk_rows(151_936, torch.device("cpu"))
    assert rows >= MIN_CHUNK_ROWS
    assert rows * 151_936 * 4 <= CHUNK_BYTES["cpu"]
    assert chunk_rows(1 << 30, torch.device("cpu")) == MIN_CHUNK_ROWS


def test_a_packed_sample_does_not_predict_the_next_ones_first_token():
    labels = torch.tensor([[1, 2, 3, 4, 5]])
    assert next_token_targets(labels).tolist() == [[2, 3, 4, 5, -100]]
    begins = torch.tensor([0, 2])
    assert next_token_targets(labels, begins).tolist() == [[2, -100, 4, 5, -100]]


def test_each_row_s_own_loss_is_told_beside_their_sum():
    hidden, weight = torch.randn(50, 8), torch.randn(30, 8)
    targets = torch.randint(30, (50,))
    rows = torch.empty(50)
    total = linear_cross_entropy(hidden, weight, targets, rows_per_chunk=16, row_losses=rows)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(rows, expected)
    torch.testing.assert_close(rows.sum(), total)
