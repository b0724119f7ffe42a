import pytest

from ovis_model.config import SourceConfig
from ovis_model.data.checks.mixing import mix_sources


def source(name: str, **settings: object) -> SourceConfig:
    return SourceConfig.model_validate({"name": name, "annotations": "a.json", **settings})


def mixed(weight: float, count: int, max_samples: int | None = None, seed: int = 0) -> list[int]:
    ids = [f"s{n}" for n in range(count)]
    plan = [source("web", weight=weight, max_samples=max_samples)]
    return mix_sources(ids, ["web"] * count, plan, seed=seed).copies


@pytest.mark.parametrize(
    ("weight", "lines"), [(1.0, 10), (2.0, 20), (2.5, 25), (0.5, 5), (0.26, 3), (1.04, 10)]
)
def test_a_weight_gives_so_many_lines_to_the_sample(weight: float, lines: int) -> None:
    copies = mixed(weight, 10)
    assert sum(copies) == lines
    assert max(copies) - min(copies) <= 1


def test_a_cap_comes_before_the_weight() -> None:
    copies = mixed(2.0, 10, max_samples=3)
    assert sorted(copies) == [0] * 7 + [2] * 3


def test_what_is_left_out_is_named_by_its_policy() -> None:
    ids = [f"s{n}" for n in range(8)]
    plan = [source("a", max_samples=2), source("b", weight=0.5)]
    mix = mix_sources(ids, ["a"] * 4 + ["b"] * 4, plan, seed=0)
    assert sorted(mix.dropped_by.values()) == ["cap", "cap", "weight", "weight"]
    assert {index for index in mix.dropped_by if mix.dropped_by[index] == "cap"} <= set(range(4))
    assert all(mix.copies[index] == 0 for index in mix.dropped_by)


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    ids = [f"s{n}" for n in range(40)]
    plan = [source("a", weight=0.5)]

    def chosen(order: list[str], seed: int) -> set[str]:
        copies = mix_sources(order, ["a"] * len(order), plan, seed=seed).copies
        return {name for name, count in zip(order, copies, strict=True) if count}

    assert chosen(ids, 0) == chosen(ids[::-1], 0)
    assert chosen(ids, 0) != chosen(ids, 1)


def test_another_source_and_samples_without_one_are_taken_once() -> None:
    mix = mix_sources(["x", "y"], [None, "other"], [source("a", weight=3)], seed=0)
    assert mix.copies == [1, 1]
    assert not mix.dropped_by
