"""Items that are in the training data are found by picture and by words, and others are not."""

import numpy as np
import pytest
from PIL import Image

from ovis_model.data.media_files import MediaFiles
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError
from ovis_model.evaluation.contamination import Asked, TrainingTraces, find_overlap

LONG = "In which year did the tall ship with the three green masts leave the old harbour again?"


def scene(seed, size=(128, 96)):
    """Return a picture with enough detail to be compared by looks."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def learned(question, answer, *images):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return Sample.model_validate({"id": "s", "image": list(images), "conversations": turns})


@pytest.fixture
def traces(tmp_path):
    scene(1).save(tmp_path / "one.bmp")
    scene(2).save(tmp_path / "two.png")
    samples = [
        learned("<image>\nWhat is this?", "a scene", "one.bmp"),
        learned("<image>\nWhat is that?", "another", "two.png"),
        learned(f"<image>\n{LONG}", "1871", "two.png"),
    ]
    return TrainingTraces.of(samples, MediaFiles(tmp_path))


def test_the_same_pixels_are_found_whatever_the_file_was(traces):
    found = find_overlap(
        [Asked("a", "Why?", "x", [scene(1)]), Asked("b", "", "", [scene(9)])], traces
    )
    assert (found.pixels, found.num_samples) == ({"a"}, 3)


def test_a_scaled_copy_and_all_that_look_like_it_are_found_by_looks(traces):
    small = scene(2).resize((100, 76))
    other = scene(2).resize((90, 68))
    found = find_overlap(
        [Asked("a", "", "", [small]), Asked("b", "", "", [scene(8)]), Asked("c", "", "", [other])],
        traces,
    )
    assert (found.pixels, found.looks) == (set(), {"a", "c"})


def test_a_long_question_with_its_answer_is_found_but_for_case_and_spacing(traces):
    found = find_overlap(
        [
            Asked("same", LONG.upper().replace(" ", "  "), "1871", [scene(5)]),
            Asked("other answer", LONG, "1872", [scene(6)]),
            Asked("short", "What is this?", "a scene", [scene(7)]),
        ],
        traces,
    )
    assert found.texts == {"same"}
    assert found.passages == {"same", "other answer"}


def test_a_short_question_without_a_picture_is_told_by_its_words():
    traces = TrainingTraces.of([learned("What is 2 + 2?", "4")], None)
    found = find_overlap(
        [Asked("a", "what is 2 + 2", "4"), Asked("b", "what is 2 + 2", "5")], traces
    )
    assert (found.texts, found.found) == ({"a"}, {"a"})


def test_what_a_benchmark_says_in_every_question_is_no_evidence(traces):
    asked = [Asked(str(n), f"{LONG} {n}", str(n), [scene(n + 20)]) for n in range(11)]
    assert find_overlap(asked, traces).passages == set()
    assert find_overlap(asked[:10], traces).passages == {str(n) for n in range(10)}


def test_what_training_says_all_the_time_is_no_evidence():
    asked = [Asked("a", LONG, "1871")]
    often = TrainingTraces.of([learned(LONG, str(n)) for n in range(11)], None)
    seldom = TrainingTraces.of([learned(LONG, str(n)) for n in range(10)], None)
    assert find_overlap(asked, often).passages == set()
    assert find_overlap(asked, seldom).passages == {"a"}


def test_the_same_place_in_another_picture_is_no_passage():
    where = "Where is the digit 7 in this picture, please?"
    place = "<box>(0.100,0.200),(0.300,0.400)</box><box>(0.1,0.2),(0.3,0.4)</box>"
    traces = TrainingTraces.of([learned(where, place)], None)
    assert find_overlap([Asked("a", where, place, [scene(1)])], traces).found == set()


def test_a_training_picture_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png"):
        TrainingTraces.of([learned("<image>\nWhat?", "x", "gone.png")], MediaFiles(tmp_path))
