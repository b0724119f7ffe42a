from ovis_model.data.checks.splitting import choose_holdout, split_samples
from ovis_model.data.schema import Sample, Turn

TURN = (Turn(role="gpt", value="7"),)


def one_image(n: int) -> Sample:
    return Sample(id=f"s{n}", image=(f"{n}.png",), conversations=TURN)


def digests(samples: list[Sample]) -> dict[str, str]:
    return {path: f"digest of {path}" for sample in samples for path in sample.media}


def test_about_the_fraction_asked_for_is_held_out() -> None:
    samples = [one_image(n) for n in range(2000)]
    split = split_samples(samples, digests(samples), fraction=0.1, seed=0)
    assert len(split.train) + len(split.holdout) == 2000
    assert 150 < len(split.holdout) < 250


def test_another_seed_holds_out_others_and_the_same_seed_the_same() -> None:
    samples = [one_image(n) for n in range(200)]
    sides = [
        split_samples(samples, digests(samples), fraction=0.2, seed=seed).holdout
        for seed in (0, 0, 1)
    ]
    assert sides[0] == sides[1] != sides[2]


def test_adding_samples_moves_none_of_the_old() -> None:
    samples = [one_image(n) for n in range(300)]
    before = split_samples(samples[:200], digests(samples), fraction=0.2, seed=0)
    after = split_samples(samples, digests(samples), fraction=0.2, seed=0)
    assert set(before.holdout) <= set(after.holdout)
    assert set(before.train) <= set(after.train)


def test_samples_that_share_content_stay_together_even_through_a_third() -> None:
    pairs = [
        Sample(id=f"p{n}", image=(f"{n}a.png", f"{n}b.png"), conversations=TURN)
        for n in range(100)
    ]
    firsts = [Sample(id=f"f{n}", image=(f"{n}a.png",), conversations=TURN) for n in range(100)]
    videos = [Sample(id=f"v{n}", video=(f"{n}b.png",), conversations=TURN) for n in range(100)]
    samples = pairs + firsts + videos
    split = split_samples(samples, digests(samples), fraction=0.3, seed=0)
    held = {sample.id[1:] for sample in split.holdout}
    assert held
    assert held.isdisjoint(sample.id[1:] for sample in split.train)
    assert (split.num_groups, split.largest_group) == (100, 3)


def test_the_same_bytes_under_two_names_count_as_one() -> None:
    samples = [one_image(n) for n in range(100)]
    same = dict.fromkeys((f"{n}.png" for n in range(100)), "one digest")
    split = split_samples(samples, same, fraction=0.5, seed=0)
    assert (split.num_groups, split.largest_group) == (1, 100)


def test_a_group_larger_than_the_holdout_is_trained_on_for_every_seed() -> None:
    samples = [one_image(n) for n in range(10)]
    same = dict.fromkeys((f"{n}.png" for n in range(10)), "one digest")
    for seed in range(20):
        assert len(split_samples(samples, same, fraction=0.5, seed=seed).train) == 10


def test_equal_texts_without_media_stay_together() -> None:
    samples = [Sample(id=f"{n}", conversations=TURN) for n in range(2)]
    assert split_samples(samples, {}, fraction=0.5, seed=0).num_groups == 1


def test_nothing_is_held_out_when_nothing_is_asked_for() -> None:
    samples = [one_image(n) for n in range(50)]
    assert split_samples(samples, digests(samples), fraction=0.0, seed=0).holdout == ()
    assert split_samples([], {}, fraction=0.5, seed=0).train == ()


def choose(contents: list[list[str]], strata: list[str] | None = None, **settings: object):
    return choose_holdout(
        contents, strata or [""] * len(contents), **{"fraction": 0.2, "seed": 0, **settings}
    )


def test_pictures_that_look_the_same_stay_on_one_side() -> None:
    contents = [[f"{n:03}"] for n in range(200)]
    alike = [(f"{n:03}", f"{n + 1:03}") for n in range(0, 200, 2)]
    held = choose(contents, alike=alike).is_held
    assert (held[::2] == held[1::2]).all()
    assert 0 < held.sum() < 100
    assert choose(contents, alike=alike).num_groups == 100


def test_every_source_with_room_for_it_has_something_held_out() -> None:
    contents = [[f"{n:03}"] for n in range(400)]
    strata = ["large"] * 380 + ["small"] * 18 + ["tiny", "one"]
    for seed in range(10):
        held = choose(contents, strata, fraction=0.03, seed=seed).is_held
        assert held[:380].any()
        assert held[380:398].any()  # 0.54 expected
        assert not held[398:].all()


def test_more_samples_of_another_source_move_nobody() -> None:
    contents = [[f"{n:03}"] for n in range(100)]
    before = choose(contents, ["a"] * 100).is_held
    after = choose([*contents, *([f"x{n}"] for n in range(50))], ["a"] * 100 + ["b"] * 50).is_held
    assert (after[:100] == before).all()


def test_nobody_is_held_out_of_nothing() -> None:
    assert choose([]).num_groups == 0
