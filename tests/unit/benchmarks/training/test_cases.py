"""The suite `training`: every case runs, agrees, and would notice a wrong result."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.training import mix, packing
from benchmarks.training.cases import cases
from ovis_model.data.packing import num_tokens, pack, sample_costs
from tests.support.benchmark_cases import check_agreement, check_seed, check_wrong_is_found

CASES = {case.workload: case for case in cases()}


def spoil(rows):
    """Have one sample twice and another not at all."""
    samples = rows.samples.copy()
    samples[0] = samples[-1]
    return replace(rows, samples=samples)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ours_agrees_a_spoilt_result_does_not_and_the_seed_decides(case):
    check_agreement(case)
    check_wrong_is_found(case, spoil)
    check_seed(case)


@pytest.fixture(scope="module")
def drawn():
    extents = mix.extents(500)
    return num_tokens(extents), sample_costs(extents, mix.config())


def test_rows_that_are_too_long_or_half_empty_are_no_result(drawn):
    tokens, costs = drawn
    too_long = pack(tokens, costs, capacity=20_000, num_ranks=8)
    assert packing.judge(too_long, tokens, costs, 16_384).how.startswith("a row has ")
    half_empty = pack(tokens, costs, capacity=8000, num_ranks=8)
    assert not packing.judge(half_empty, tokens, costs, 16_000).equal


def test_the_fullest_row_with_room_is_taken():
    lengths = np.array([6, 5, 4, 3, 2])
    rows = packing.best_fit(lengths, 10)
    assert rows.tolist() == [0, 1, 0, 1, 1]


def test_the_mix_has_all_kinds_and_no_sample_that_is_too_long():
    extents = mix.extents(2000)
    assert max(extent.num_tokens for extent in extents) <= mix.MAX_TOKENS
    assert min(extent.num_supervised for extent in extents) > 0
    shown = {len(extent.grids) for extent in extents}
    assert shown == {0, 1, 2, 3, 4, 5}
    assert np.mean([not extent.is_multimodal for extent in extents]) == pytest.approx(
        0.1, abs=0.03
    )
