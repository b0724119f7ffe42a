import pytest

from ovis_model.training.trainer import EpochSampler

LENGTHS = [10, 50, 11, 49, 12, 48, 13, 47, 14]


@pytest.mark.parametrize("batch_size", [None, 2, 4])
def test_every_epoch_visits_every_sample_once(batch_size):
    sampler = EpochSampler(LENGTHS, seed=1, batch_size=batch_size)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sorted(sampler) == list(range(len(LENGTHS)))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_the_order_is_a_function_of_seed_and_epoch(batch_size):
    def order(seed, epoch):
        sampler = EpochSampler(LENGTHS, seed=seed, batch_size=batch_size)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_without_shuffling_the_order_is_the_file_s():
    assert list(EpochSampler(LENGTHS, seed=1, shuffle=False)) == list(range(len(LENGTHS)))


def test_grouping_puts_samples_of_similar_length_into_one_batch():
    order = list(EpochSampler(LENGTHS[:8], seed=1, batch_size=4))
    spreads = [[LENGTHS[i] for i in order[start : start + 4]] for start in (0, 4)]
    assert all(max(batch) - min(batch) <= 3 for batch in spreads)


def test_a_short_batch_comes_last_when_grouping():
    sampler = EpochSampler(LENGTHS, seed=1, batch_size=4)
    for epoch in range(5):
        sampler.set_epoch(epoch)
        assert LENGTHS[list(sampler)[-1]] == min(LENGTHS)
