"""The suite `data` in small sizes: every case runs, agrees, and would notice a wrong result."""

from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageOps

from benchmarks.data.cases import cases
from benchmarks.data.inspection import same_facts, same_headers
from benchmarks.data.opening import same_samples as same_opened
from benchmarks.data.samples import SIZES, Encoded, same_samples
from ovis_model.data.checks.media_fact import MediaFact
from ovis_model.data.schema import Sample
from tests.support.benchmark_cases import check_agreement, check_seed, check_wrong_is_found

GOALS = {"V1", "V2", "P2", "D1", "D2"}
CASES = {f"{case.goal} {case.workload}": case for case in cases()}


def spoil(result):
    """Change the last thing of a result, by a little."""
    *others, last = result
    match last:
        case Image.Image():
            return [*others, ImageOps.invert(last)]
        case Encoded():
            pixels = last.pixels.clone()
            pixels[-1, -1] ^= 1
            return [*others, replace(last, pixels=pixels)]
        case MediaFact():
            return [*others, replace(last, width=last.width + 1)]
        case Sample():
            return [*others, last.model_copy(update={"id": "another"})]


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


def test_the_mix_has_twenty_pictures_of_realistic_sizes():
    assert len(SIZES) == 20
    assert min(SIZES) == (200, 120)
    assert max(SIZES) == (4000, 3000)


# ---- comparisons ----------------------------------------------------------------------------

ENCODED = Encoded(torch.tensor([1, 2]), torch.tensor([-100, 2]), torch.zeros(1, 768))


@pytest.mark.parametrize(
    ("found", "how"),
    [
        pytest.param([ENCODED], "bitwise", id="equal"),
        pytest.param([], "0 of 1 samples", id="one missing"),
        pytest.param(
            [replace(ENCODED, ids=torch.tensor([1, 3]))], "sample 0, ids: 1 differ", id="an id"
        ),
        pytest.param(
            [replace(ENCODED, labels=torch.tensor([1, 2]))],
            "sample 0, labels: 1 differ",
            id="a label",
        ),
        pytest.param(
            [replace(ENCODED, pixels=torch.full((1, 768), 0.5))],
            "sample 0, pixels: 768 differ",
            id="pixels",
        ),
    ],
)
def test_samples_are_compared_by_ids_labels_and_pixels(found, how):
    agreement = same_samples([ENCODED], found)
    assert agreement.how == how
    assert agreement.equal is (how == "bitwise")


FACT = MediaFact("a.jpg", "image", sha256="0" * 64, width=3, height=2, look="f" * 16)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        pytest.param({}, "same facts", id="equal"),
        pytest.param({"height": 3}, "1 of 1 rows differ", id="another size"),
        pytest.param({"problem": "cut_off"}, "1 of 1 files refused", id="refused"),
    ],
)
def test_facts_are_compared_one_by_one(change, how):
    agreement = same_facts([FACT], [replace(FACT, **change)])
    assert agreement.how == how
    assert agreement.equal is (how == "same facts")


def test_a_header_need_not_tell_what_pixels_tell():
    found = [replace(FACT, look=None)]
    assert same_headers([FACT], found).equal
    assert not same_facts([FACT], found).equal
    assert same_facts([FACT], []).how == "0 of 1 rows"


def test_annotations_are_compared_however_they_are_held():
    turns = [{"from": "gpt", "value": "7"}]
    listed = [{"id": str(number), "conversations": turns} for number in range(3)]
    parsed = [Sample.model_validate(one) for one in listed]
    assert same_opened(0, listed, parsed).equal
    assert same_opened(0, listed, parsed[:2]).how == "2 of 3 samples"
    assert same_opened(0, listed, parsed[::-1]).how == "2 of 3 samples differ"
