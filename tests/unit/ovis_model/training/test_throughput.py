"""Rates of the log line, against a clock that is ours."""

import time

import pytest
import torch

from ovis_model.flops import BatchShape, FlopCounter
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.training.throughput import Throughput, peak_of
from tests.support.tiny_model import build_tokenizer, tiny_config

CPU = torch.device("cpu")
SHAPE = BatchShape((20, 10), ((1, 4, 4),), 6)


@pytest.fixture(scope="module")
def model():
    return Ovis2_5ForConditionalGeneration(tiny_config(build_tokenizer()))


@pytest.fixture
def clock(monkeypatch):
    """Stand still until told to move."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def throughput(model, **settings):
    rates = {name: 1e-3 for name, _ in model.named_parameters()}
    return Throughput(model, rates, device=CPU, **{"world_size": 1, **settings})


def test_rates_are_work_by_time_since_the_first_batch(model, clock):
    work = throughput(model, world_size=2, peak=1e9)
    clock[0] += 1000  # the model is put on its device, the optimizer is made
    work.add(30, SHAPE, rows=(1, 40))
    work.add(30, SHAPE, rows=(1, 40))
    clock[0] += 4
    flops = FlopCounter(model.config).of(SHAPE).total
    found = work.since_last_time()
    assert 0.1 < found.pop("peak_memory_gb") < 100  # torch alone takes some of it
    assert found == {
        "tokens_per_second": 30.0,
        "visual_tokens_per_second": 6.0,
        "samples_per_second": 2.0,
        "data_wait_fraction": 0.0,
        "gflops_per_second": round(flops / 1e9, 3),
        "padding_fraction": 0.25,
        "tokens_per_row": 30.0,
        "mfu": round(flops / 2 / 1e9, 4),
    }


def test_each_line_is_about_the_time_since_the_one_before(model, clock):
    work = throughput(model)
    work.add(30, SHAPE, rows=(1, 40))
    clock[0] += 1
    work.since_last_time()
    clock[0] += 1  # as a checkpoint takes
    work.add(10, SHAPE, rows=(2, 10))
    clock[0] += 1
    found = work.since_last_time()
    assert found["tokens_per_second"] == 5.0
    assert (found["padding_fraction"], found["tokens_per_row"]) == (0.5, 5.0)


def test_waiting_for_data_is_told_as_a_share_of_the_time(model, clock):
    def loader():
        for _ in range(3):
            clock[0] += 2
            yield 30

    work = throughput(model)
    for tokens in work.waiting_for(loader()):  # the first one comes before the clock starts
        work.add(tokens, SHAPE, rows=(1, 40))
        clock[0] += 3
    assert work.since_last_time()["data_wait_fraction"] == round(4 / 13, 4)
    clock[0] += 1
    assert work.since_last_time()["data_wait_fraction"] == 0


def test_less_work_is_counted_where_less_learns(model, clock):
    rates = {"vte.weight": 1e-3}
    work = Throughput(model, rates, device=CPU, world_size=1)
    work.add(30, SHAPE, rows=(1, 40))
    clock[0] += 1
    whole = FlopCounter(model.config).of(SHAPE).total / 1e9
    assert 0 < work.since_last_time()["gflops_per_second"] < whole * 0.8


def test_without_a_known_peak_there_is_no_share_of_it(model, clock):
    assert peak_of(CPU) is None
    work = throughput(model)
    work.add(30, SHAPE, rows=(1, 40))
    clock[0] += 1
    assert "mfu" not in work.since_last_time()
