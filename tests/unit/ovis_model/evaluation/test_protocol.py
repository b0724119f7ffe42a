"""Presets decide who thinks; a published number stands beside a score of the same exam only."""

import hashlib
import json
from dataclasses import replace

import pytest

from ovis_model.errors import ConfigError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmark
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader
from ovis_model.evaluation.protocol import Protocol, model_size
from ovis_model.evaluation.published import compare_with_published, published_score
from ovis_model.evaluation.scoring.mark import Mark
from tests.support.tables import as_cell, png, write_table

RIGHT = Mark(correct=True, value=1.0)
OPEN = Mark(correct=False, value=0.0, needs_judge=True)


def header(name, **more):
    return BenchmarkHeader(name=name, version=1, items="x.tsv", metric="exact", **more)


def thinks(preset, size, name, **more):
    settings = Protocol(preset, size).settings(header(name, **more))
    return settings.generation.enable_thinking


@pytest.mark.parametrize(
    ("preset", "size", "name", "expected"),
    [
        ("published", "2B", "MMBench_TEST_EN_V11", False),
        ("published", "9B", "MMBench_TEST_EN_V11", True),
        ("published", "2B", "MMMU_Pro_V", True),
        ("published", "9B", "my_own", False),
        ("published", "9B", "RefCOCO", False),
        ("thinking_on", None, "OCRBench", True),
        ("thinking_off", None, "MMStar", False),
    ],
)
def test_the_preset_decides_who_thinks(preset, size, name, expected):
    assert thinks(preset, size, name) is expected


def test_a_benchmark_may_decide_for_itself_under_official_settings_only():
    assert thinks("published", None, "my_own", thinking=True)
    assert not thinks("thinking_off", None, "my_own", thinking=True)


def test_a_model_of_neither_size_cannot_be_run_as_published():
    with pytest.raises(ConfigError, match="this model has the layers of neither"):
        thinks("published", None, "MMStar")


@pytest.mark.parametrize(
    ("layers", "width", "size"), [(28, 2048, "2B"), (36, 4096, "9B"), (2, 64, None)]
)
def test_the_size_is_told_by_layers_and_width(layers, width, size):
    assert model_size(layers, width) == size


def test_small_images_are_blown_up_less_where_text_is_read():
    protocol = Protocol("thinking_off")
    least = [
        protocol.settings(header(name, **more)).pixel_limits.bounds("multiple_image", 5)[0]
        for name, more in (("OCRBench_v2", {}), ("MMStar", {}), ("x", {"min_pixels": 100_000}))
    ]
    assert least == [448 * 448, 1024 * 1024, 100_000]


def test_settings_are_told_in_full_for_fingerprints():
    protocol = Protocol("thinking_on")
    told = protocol.settings(header("x"), seed=3).to_json()
    assert json.loads(json.dumps(told)) == told
    assert (told["seed"], told["temperature"], told["thinking_budget"]) == (3, 0.6, 6144)
    assert "seed" not in Protocol("thinking_off").settings(header("x")).to_json()
    assert protocol.settings(header("x"), seed=4).to_json() != told


ROW = {"question": "Which?", "A": "cup", "B": "key", "answer": "A", "image": as_cell(png())}


@pytest.fixture
def mmstar(tmp_path):
    path = write_table(tmp_path / "x.tsv", [{**ROW, "index": "1"}, {**ROW, "index": "2"}])
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    values = {"catalogue": "MMStar", "items": "x.tsv", "md5": md5}
    (tmp_path / "x.yaml").write_text(json.dumps(values), encoding="utf-8")
    return load_benchmark(tmp_path / "x.yaml")


def obstacles(benchmark, marks=(RIGHT, RIGHT), preset="published", size="9B", **lengths):
    protocol = Protocol(preset, size, **lengths)
    score = benchmark.score(marks[: len(benchmark.items)])
    return compare_with_published(benchmark, protocol, score)


def test_the_same_exam_stands_beside_the_published_number(mmstar):
    found = obstacles(mmstar)
    assert found.obstacles == ()
    assert found.published.score == 72.4


def test_what_differs_is_said(mmstar, tmp_path):
    unknown = "no number of this benchmark is published for this model, as far as is known"
    assert obstacles(mmstar, size="2B").obstacles == (unknown,)
    assert obstacles(mmstar, preset="thinking_on").obstacles == (
        "the preset is thinking_on, not published",
    )
    assert (
        "4096 new tokens with 2048"
        in obstacles(mmstar, max_new_tokens=4096, thinking_budget=2048).obstacles[0]
    )
    assert "1 answers went to a judge" in obstacles(mmstar, (RIGHT, OPEN)).obstacles[0]
    first = load_benchmark(tmp_path / "x.yaml", limit=1)
    assert obstacles(first).obstacles == ("only the first items were asked",)
    changed = replace(mmstar, header=mmstar.header.model_copy(update={"md5": "0" * 32}))
    assert obstacles(changed).obstacles == ("the items are not those of the official file",)
    never = mmstar.header.model_copy(update={"not_comparable": "another split"})
    assert obstacles(replace(mmstar, header=never)).obstacles == ("another split",)


def test_independent_numbers_are_not_the_authors():
    assert published_score("RealWorldQA", "9B") is None
    assert published_score("MathVista_MINI", "2B").score == 81.4
