"""The suite `model` in small sizes: every case runs, agrees, and would notice a wrong result."""

import pytest
import torch
from torch import Tensor

from benchmarks.model import generation, loss
from benchmarks.model.agreement import bitwise, close_to_exact, same_ids
from benchmarks.model.cases import cases
from benchmarks.model.tiny_ovis import TOKEN_IDS, pad_left
from tests.support.benchmark_cases import check_agreement, check_seed, check_wrong_is_found

GOALS = {"P1", "P3", "C1", "C2", "G1", "G2", "G3"}
CASES = {f"{case.goal} {case.workload}": case for case in cases()}


def spoil(result):
    """Change one number of a result, by a lot."""
    if isinstance(result, Tensor):
        flat = result.clone().reshape(-1)
        flat[0] = flat[0] + 1 if flat.dtype in (torch.uint8, torch.int64) else 1e6
        return flat.reshape(result.shape)
    if isinstance(result, tuple):
        return (*result[:-1], spoil(result[-1]))
    *others, last = result
    return [*others, [*last[:-1], last[-1] + 1]]


def test_every_goal_has_a_case_with_a_target():
    assert {case.goal for case in CASES.values()} == GOALS
    assert all(case.target.time or case.target.peak for case in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_all_variants_of_a_case_agree(name):
    check_agreement(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_variant_of_a_case_is_found_out(name):
    check_wrong_is_found(CASES[name], spoil)


@pytest.mark.parametrize("name", CASES)
def test_the_same_seed_gives_the_same_workload(name):
    check_seed(CASES[name])


# ---- comparisons ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "how"),
    [
        pytest.param(torch.tensor([1.0, 2.0]), "bitwise", id="equal"),
        pytest.param(torch.tensor([1.0, 2.5]), "1 differ", id="one value"),
        pytest.param(torch.tensor([[1.0, 2.0]]), "torch.float32 (1, 2)", id="another shape"),
        pytest.param(torch.tensor([1, 2]), "torch.int64 (2,)", id="another type"),
    ],
)
def test_bitwise_means_type_shape_and_values(found, how):
    agreement = bitwise(torch.tensor([1.0, 2.0]), found)
    assert agreement.how == how
    assert agreement.equal is (how == "bitwise")


@pytest.mark.parametrize(
    ("found", "how"),
    [
        pytest.param([[1, 2], [3]], "same ids", id="equal"),
        pytest.param([[1, 2], [4]], "1 of 2 sequences differ", id="one id"),
        pytest.param([[1, 2]], "1 of 2 sequences", id="one missing"),
    ],
)
def test_sequences_are_compared_one_by_one(found, how):
    agreement = same_ids([[1, 2], [3]], found)
    assert agreement.how == how
    assert agreement.equal is (how == "same ids")


def test_nan_is_never_close():
    exact = torch.ones(2, dtype=torch.float64)
    agreement = close_to_exact([exact], [torch.tensor([1.0, torch.nan])], tolerance=1e-3)
    assert not agreement.equal


def test_the_exact_loss_is_that_of_the_plain_way_in_float64():
    given = loss.LossInput.generate(0, positions=30, width=4, vocab=9, dtype=torch.float64)
    expected = loss.differentiate(loss.plain_loss, given)
    for a, b in zip(expected, loss.exact_results(given), strict=True):  # its logits are float32
        torch.testing.assert_close(a.double(), b.reshape(a.shape), rtol=1e-5, atol=1e-6)


# ---- fair workloads -------------------------------------------------------------------------

ROW = list(range(10))


@pytest.mark.parametrize(
    ("row", "fair"),
    [
        pytest.param([*ROW, TOKEN_IDS.think_close], True, id="cut by its budget"),
        pytest.param([*ROW, 10], False, id="thinking never closed"),
        pytest.param([*ROW[1:], *[TOKEN_IDS.think_close] * 2], False, id="closed twice"),
        pytest.param([*ROW[1:], TOKEN_IDS.think_close], False, id="ended early"),
        pytest.param([*[7] * 10, TOKEN_IDS.think_close], False, id="one word for ever"),
    ],
)
def test_a_row_is_fair_if_its_budget_cut_it_and_it_ran_to_its_end(row, fair):
    assert generation.runs_to_its_end([row], total=11, forced=1) is fair


def test_rows_are_padded_on_the_left():
    ids, mask = pad_left([torch.tensor([[1, 2]]), torch.tensor([[3]])])
    assert ids.tolist() == [[1, 2], [TOKEN_IDS.pad, 3]]
    assert mask.tolist() == [[True, True], [False, True]]
