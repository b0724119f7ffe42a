import numpy as np
import pytest

from benchmarks.training import mix
from ovis_model.data.dataset import Extent
from ovis_model.data.packing import CostModel, num_tokens, pack, sample_costs
from ovis_model.errors import DataError
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config

CAPACITY = 1000
RNG = np.random.default_rng(0)
LENGTHS = {
    "of every length": RNG.integers(1, CAPACITY + 1, 500),
    "one per row": np.full(64, CAPACITY // 2 + 1),
    "exactly a row": np.full(64, CAPACITY),
    "two per row": np.full(64, CAPACITY // 2),
    "many short": RNG.integers(1, 20, 3000),
    "a long one and short ones": np.array([CAPACITY, *[10] * 40]),
    "only a few": np.array([3, 5, 7, 9, 11, 13, 15, 17]),
}


@pytest.fixture(scope="module")
def drawn():
    """20,000 samples with what they cost a released model."""
    extents = mix.extents(20_000)
    return num_tokens(extents), sample_costs(extents, mix.config())


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_every_sample_is_in_one_row_and_no_row_is_too_long(lengths, num_ranks):
    rows = pack(lengths, lengths**2, capacity=CAPACITY, num_ranks=num_ranks)
    members = [rows.row(number) for number in range(len(rows))]
    assert sorted(sample for row in members for sample in row) == list(range(len(lengths)))
    assert rows.tokens.tolist() == [lengths[row].sum() for row in members]
    assert rows.costs.tolist() == [(lengths[row] ** 2).sum() for row in members]
    assert rows.tokens.max() <= CAPACITY
    assert rows.tokens.min() > 0
    assert len(rows) % num_ranks == 0
    for epoch in range(3):
        assert sorted(rows.order(epoch)) == list(range(len(rows)))


@pytest.mark.parametrize("capacity", [8192, 16384])
def test_rows_are_full_and_the_work_of_eight_processes_is_even(drawn, capacity):
    rows = pack(*drawn, capacity=capacity, num_ranks=8)
    assert rows.fill >= 0.98
    assert max(rows.imbalance(epoch) for epoch in range(5)) <= 1.02


def test_rows_balanced_by_tokens_would_leave_processes_waiting(drawn):
    tokens, costs = drawn
    rows = pack(tokens, tokens, capacity=16384, num_ranks=8)
    of_rows = np.array([costs[rows.row(number)].sum() for number in rows.order(0)], dtype=float)
    together = of_rows.reshape(-1, 8)
    assert together.max(axis=1).sum() / together.mean(axis=1).sum() > 1.1


@pytest.mark.parametrize(
    ("num_ranks", "expected"), [(1, [300]), (2, [150] * 2), (4, [70, 80] * 2)]
)
def test_a_row_that_all_share_is_cut_by_cost(num_ranks, expected):
    costs = np.array([70, 60, 50, 40, 30, 20, 20, 10])
    rows = pack(np.full(8, 10), costs, capacity=CAPACITY, num_ranks=num_ranks)
    assert sorted(rows.costs.tolist()) == sorted(expected)


def test_rows_follow_from_the_seed_and_their_order_from_the_epoch_too(drawn):
    def planned(seed):
        return pack(*drawn, capacity=16384, num_ranks=8, seed=seed)

    one, again, other = planned(1), planned(1), planned(2)
    assert np.array_equal(one.samples, again.samples)
    assert np.array_equal(one.bounds, again.bounds)
    assert not np.array_equal(one.samples, other.samples)
    assert np.array_equal(one.order(3), again.order(3))
    assert not np.array_equal(one.order(3), one.order(4))
    groups = [{frozenset(group) for group in one.order(e).reshape(-1, 8).tolist()} for e in (0, 1)]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 10, "the same rows met once more"


@pytest.mark.parametrize(
    "lengths", [[], [0, 1], [CAPACITY + 1]], ids=["none", "empty", "too long"]
)
def test_lengths_that_fit_no_row_are_refused(lengths):
    with pytest.raises(ValueError, match="samples, each of 1 to capacity=1000 tokens"):
        pack(np.array(lengths, dtype=np.int64), np.ones(len(lengths), np.int64), capacity=CAPACITY)


def test_too_few_samples_for_so_many_processes_are_refused():
    lengths = np.full(9, CAPACITY)
    with pytest.raises(
        DataError, match=r"9 samples make 9 packed row\(s\), too few .* 8 processes"
    ):
        pack(lengths, lengths, capacity=CAPACITY, num_ranks=8)


@pytest.mark.parametrize(
    ("grids", "text", "supervised", "tera_operations"),
    [
        pytest.param([(1, 28, 28)], 256, 80, 2.2, id="448 x 448"),
        pytest.param([(1, 56, 56)], 256, 80, 7.6, id="896 x 896"),
        pytest.param([(1, 84, 112)], 256, 80, 29.0, id="1344 x 1792"),
        pytest.param([(8, 28, 28)], 256, 256, 12.9, id="eight frames"),
    ],
)
def test_a_sample_costs_what_its_operations_add_up_to(grids, text, supervised, tera_operations):
    visual = sum(t * h * w // 4 for t, h, w in grids)
    extent = Extent(text + visual, supervised, is_multimodal=True, grids=tuple(grids))
    (cost,) = sample_costs([extent], mix.config())
    assert cost / 1e12 == pytest.approx(tera_operations, rel=0.02)


def test_media_are_charged_to_the_sample_that_shows_them():
    grid = (2, 4, 6)
    text = Extent(10, 3, is_multimodal=False)
    one = Extent(10, 3, is_multimodal=True, grids=(grid,))
    two = Extent(10, 3, is_multimodal=True, grids=(grid, grid))
    plain, shown, twice = sample_costs([text, one, two], mix.config()).tolist()
    model = CostModel.of(mix.config())
    assert plain == 10 * model.per_token + 100 * model.per_squared_tokens + (
        3 * model.per_supervised_token
    )
    assert shown - plain == 2 * (6 * model.per_visual_token + 24**2 * model.per_squared_patches)
    assert twice - shown == shown - plain


def test_blocks_with_windows_do_not_count_as_full_attention():
    windowed = Ovis2_5Config(vit_config={"fullatt_block_indexes": "7|15|23|26"})
    share = (
        CostModel.of(windowed).per_squared_patches / CostModel.of(mix.config()).per_squared_patches
    )
    assert share == 4 / 27
