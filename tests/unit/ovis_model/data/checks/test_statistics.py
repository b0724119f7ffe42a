"""Counts of kinds and distributions of sizes."""

import json
from itertools import pairwise

import numpy as np
import pytest

from ovis_model.data.checks.statistics import (
    MAX_BINS,
    Histogram,
    Lengths,
    count_thought_characters,
    describe,
    kind_of,
)
from ovis_model.data.schema import parse_sample
from tests.support.raw_data import sample, turns


def parsed(sample_id, *texts, **media):
    return parse_sample(sample(sample_id, *texts, **media))


EVERY_KIND = {
    "single_image": parsed("a", "<image>?", "1", image="a.png"),
    "multi_image": parsed("b", "<image><image>?", "2", image=["a.png", "b.png"]),
    "video_file": parsed("c", "<video>?", "3", video="c.mp4"),
    "video_frames": parsed("d", "<video>?", "4", video=["a.png", "b.png", "c.png"]),
    "text_only": parsed("e", "What?", "5"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_sample_is_of_one_kind(kind):
    assert kind_of(EVERY_KIND[kind]) == kind


def test_kinds_features_and_sources_are_counted_and_zeros_are_told():
    system = {"from": "system", "value": "Be brief."}
    talk = parse_sample({"id": "f", "source": "web", "conversations": [system, *turns(*"abcd")]})
    box = parsed("g", "Where?", "<think>\nhm\n</think>\n<box>(0,0),(0.5,0.5)</box>")
    found = describe([*EVERY_KIND.values(), talk, box])
    assert found.num_samples == 7
    assert found.kinds == {
        "single_image": 1,
        "multi_image": 1,
        "video_file": 1,
        "video_frames": 1,
        "text_only": 3,
        "with_think": 1,
        "system_prompt": 1,
        "multi_turn": 1,
        "grounding": 1,
    }
    assert describe([]).kinds == dict.fromkeys(found.kinds, 0)
    assert found.sources == {"web": 1}


def test_quantities_are_measured_and_those_that_nobody_counted_are_left_out():
    samples = list(EVERY_KIND.values())
    lengths = Lengths([10, 20, 30, 40, 50], [1, 2, 3, 4, 5])
    areas = {"a.png": 100, "b.png": 400}
    found = {h.name: h for h in describe(samples, areas=areas, lengths=lengths).histograms}
    assert found["tokens"].quantiles["p50"] == 30
    assert found["supervised tokens"].quantiles["max"] == 5
    assert found["picture area"].count == 2
    assert found["images"].counts == (3, 1, 1)
    assert (found["frames"].count, found["frames"].quantiles["max"]) == (1, 3)
    assert found["text"].quantiles["max"] == len("<image><image>?2")
    assert found["thought"].count == 0
    assert [h.name for h in describe(samples).histograms] == [
        "images",
        "frames",
        "text",
        "thought",
    ]


def test_a_thought_is_measured_without_the_space_around_it():
    assert count_thought_characters(parsed("a", "?", "<think>\nhm\n</think>\n\n7")) == 2
    assert count_thought_characters(parsed("a", "<think>no</think>?", "7")) is None


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([5], id="one value"),
        pytest.param([0, 0, 0], id="only zeros"),
        pytest.param(range(MAX_BINS), id="just as many numbers as bins"),
        pytest.param(range(MAX_BINS + 1), id="one more"),
        pytest.param(range(0, 10_000, 7), id="evenly spread"),
        pytest.param([1] * 50 + [10**k for k in range(13)], id="over many orders"),
        pytest.param([0] * 99 + [10**15], id="one giant"),
        pytest.param([10**9, 10**9 + 100], id="far from zero"),
        pytest.param(np.random.default_rng(0).lognormal(6, 2, 5000).astype(int), id="skewed"),
    ],
)
def test_every_value_lies_in_one_bin_and_bins_are_few_and_in_order(values):
    array = np.asarray(values)
    found = Histogram.of("n", "n", values)
    assert sum(found.counts) == found.count == len(array)
    assert len(found.edges) == len(found.counts) + 1 <= MAX_BINS + 2
    assert list(found.edges) == sorted(set(found.edges))
    assert found.counts[0] > 0
    assert found.counts[-1] > 0
    for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True):
        assert count == ((array >= low) & (array < high)).sum()


def test_quantiles_are_values_that_occur_and_enough_values_lie_at_or_below():
    values = np.random.default_rng(1).integers(0, 1000, 777)
    found = Histogram.of("n", "n", values).quantiles
    assert (found["min"], found["max"]) == (values.min(), values.max())
    for name, share in {"p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99}.items():
        assert found[name] in values
        assert (values <= found[name]).mean() >= share
        assert (values < found[name]).mean() < share


def test_small_numbers_have_a_bin_each():
    found = Histogram.of("images", "images", [1, 1, 2, 5])
    assert (found.edges, found.counts) == ((1, 2, 3, 4, 5, 6), (2, 1, 0, 0, 1))
    assert found.mean == 2.25


def test_without_values_there_is_nothing_to_show():
    found = Histogram.of("n", "n", [])
    assert (found.count, found.counts, found.quantiles) == (0, (), {})


def test_a_negative_value_is_refused():
    with pytest.raises(ValueError, match="tokens: -3 is negative"):
        Histogram.of("tokens", "tokens", [4, -3])


def test_arrays_and_lists_give_the_same_json():
    from_list = Histogram.of("n", "n", [3, 1, 2]).to_dict()
    from_array = Histogram.of("n", "n", np.array([1, 2, 3], dtype=np.int32)).to_dict()
    assert json.dumps(from_list) == json.dumps(from_array)
