"""Questions in the official words, at the edges that the official rows leave out."""

import pytest

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.prompts import FINAL_ANSWER, build_prompt, check_placeholders


def item(question="Which?", images=1, **more):
    names = tuple(f"{number}.png" for number in range(images))
    return BenchmarkItem(**{"id": "a", "answer": "A", "image": names, **more}, question=question)


@pytest.mark.parametrize(
    ("style", "asked", "text"),
    [
        pytest.param("multiple_choice", item(), f"<image>\nWhich?\n{FINAL_ANSWER}", id="open"),
        pytest.param(
            "option_letter",
            item(options={"A": "x", "D": "y"}, hint="Look."),
            "<image>\nLook.\nWhich?\nA. x\nD. y\n"
            "Answer with the option's letter from the given choices directly.",
            id="a hint, and letters left out",
        ),
        pytest.param("question", item(images=2), "<image>\n<image>\nWhich?", id="two images"),
        pytest.param("question", item(images=0), "Which?", id="text alone"),
        pytest.param(
            "short_answer",
            item(images=0, video="v.mp4"),
            "<video>\nWhich?\nAnswer the question using a single word or phrase.",
            id="a video",
        ),
        pytest.param(
            "interleaved_choice",
            item("<image 1><image 2>?", images=2),
            f"\n<image>\n\n<image>\n?\n{FINAL_ANSWER}",
            id="images side by side",
        ),
        pytest.param(
            "interleaved_choice",
            item("Which?", images=12, options={"A": "<image 12>"}),
            f"Which?\nA. \n<image>\n\n{FINAL_ANSWER}",
            id="an image in an option, of two digits",
        ),
        pytest.param(
            "grounding",
            item("Find the <ref>dog</ref>"),
            "<image>\nFind the <ref>dog</ref>. Please provide the bounding box coordinates.",
            id="a ref of its own",
        ),
        pytest.param(
            "grounding",
            item("Find it. Please provide the bounding box coordinates."),
            "<image>\nFind it. Please provide the bounding box coordinates.",
            id="asked for already",
        ),
    ],
)
def test_a_question_is_put_in_the_words_of_its_style(style, asked, text):
    prompt = build_prompt(asked, style)
    assert prompt.text == text
    assert prompt.text.count("<image>") == len(prompt.image)


def test_only_what_asks_for_a_final_answer_is_read_for_one():
    assert build_prompt(item(), "final_answer").asks_for_final_answer
    assert not build_prompt(item(), "short_answer").asks_for_final_answer
    # The official code looks at the prompt, whoever wrote the words.
    assert build_prompt(item(f"Which? {FINAL_ANSWER}"), "question").asks_for_final_answer


@pytest.mark.parametrize("number", [0, 2])
def test_an_image_that_is_not_there_is_an_error(number):
    with pytest.raises(ValueError, match=rf"speaks of <image {number}>, and there are 1 image"):
        build_prompt(item(f"See <image {number}>."), "interleaved_choice")


def test_a_verbatim_question_shows_where_its_media_belong():
    asked = item("First\n<image>\nthen\n<image>\nWhich?", images=2)
    check_placeholders(asked)
    assert build_prompt(asked, "verbatim").text == asked.question
    with pytest.raises(ValueError, match=r"2 <image> placeholder\(s\) but the item carries 1"):
        check_placeholders(item(asked.question))
