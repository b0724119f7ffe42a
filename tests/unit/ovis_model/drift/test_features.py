"""What is measured of a sample's text."""

import pytest

from ovis_model.data.schema import Sample, Turn
from ovis_model.drift.features import categories, draw_word, scripts_of, text_numbers

VIDEO = {"video": "clip.mp4"}


def conversation(*texts, **media):
    turns = tuple(
        Turn(role="gpt" if number % 2 else "human", value=text)
        for number, text in enumerate(texts)
    )
    return Sample(id="1", conversations=turns, **media)


def test_lengths_leave_out_placeholders_and_thoughts():
    sample = conversation("<image>\nWhich digit?", "<think>\nRound.\n</think>\n\n8", image="a.png")
    assert text_numbers(sample) == {
        "images": 1,
        "questions": 1,
        "question_characters": len("Which digit?"),
        "answer_characters": 1,
        "thinking_characters": len("Round."),
    }


def test_a_video_has_no_number_of_images_whether_it_was_extracted_or_not():
    file, frames = conversation("<video>?", "a", **VIDEO), conversation("?", "a", video=["b.png"])
    assert text_numbers(file)["images"] is text_numbers(frames)["images"] is None
    assert categories(file)["kind"] == categories(frames)["kind"] == "video"


@pytest.mark.parametrize(
    ("answer", "short", "thinking"),
    [
        pytest.param("Yes", "yes", "without", id="short"),
        pytest.param("x" * 33, "(longer)", "without", id="longer"),
        pytest.param("<think>\nhm\n</think>\n\nNo", "no", "with", id="after a thought"),
        pytest.param("<think>\n\n</think>\n\nNo", "no", "without", id="after an empty thought"),
        pytest.param("<think>\nhm", "", "with", id="never closed"),
    ],
)
def test_the_answer_is_what_follows_the_thought(answer, short, thinking):
    found = categories(conversation("?", answer))
    assert (found["answer"], found["thinking"]) == (short, thinking)


def test_a_question_alone_has_no_answer():
    found = categories(conversation("Which?"))
    assert (found["answer"], found["answer_word"]) == ("(none)", "(none)")


def test_a_word_is_drawn_from_all_over_the_texts():
    words = {draw_word(f"one two three four {number}") for number in range(200)}
    assert {"one", "two", "three", "four"} <= words


def test_a_script_of_few_letters_is_not_named():
    assert scripts_of("eine lange Zeile in lateinischer Schrift und ein Σ") == "latin"
    assert scripts_of("привет world") == "cyrillic + latin"


def test_the_form_of_a_conversation_names_all_that_it_has():
    assert categories(conversation("?", "a", "?", "<box>(0.1,0.1),(0.2,0.2)</box>"))[
        "conversation"
    ] == ("multi_turn + grounding")
    assert categories(conversation("?", "a"))["conversation"] == "plain"
