"""Questions become chat messages; placeholders and media agree or it is said."""

import pytest

from ovis_model.inference.messages import (
    grounding_prompt,
    question_message,
    system_message,
    user_message,
)


def kinds(message):
    return [part["type"] for part in message["content"]]


def test_placeholders_stand_on_lines_of_their_own():
    message = user_message("<image>\n<image>\nSame?\nOr not?")
    assert kinds(message) == ["image", "image", "text"]
    assert message["content"][-1]["text"] == "Same?\nOr not?"
    with pytest.raises(ValueError, match="line of its own"):
        user_message("Is <image> a digit?")


def test_media_come_first_unless_the_text_places_them():
    assert kinds(question_message("Same?", num_images=2)) == ["image", "image", "text"]
    assert kinds(question_message("Why?", num_videos=1)) == ["video", "text"]
    placed = question_message("First\n<image>\nthen\n<image>", num_images=2)
    assert kinds(placed) == ["text", "image", "text", "image"]


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        ("<image>\nSame?", {"num_images": 2}, r"1 <image> placeholder\(s\) for 2 image"),
        ("<image>\n<image>\n?", {"num_images": 1}, r"2 <image> placeholder\(s\) for 1 image"),
        ("<image>\nWhy?", {}, r"1 <image> placeholder\(s\) for 0 image"),
        ("<video>\nWhy?", {"num_images": 1}, r"0 <image> placeholder\(s\) for 1 image"),
        ("<image>\nWhy?", {"num_videos": 1}, r"1 <image> placeholder\(s\) for 0 image"),
        ("Is <image> a 7?", {"num_images": 1}, "must be a line of its own"),
        ("", {}, "the prompt is empty"),
        (" \n", {"num_images": 1}, "the prompt is empty"),
    ],
)
def test_a_question_that_does_not_fit_its_media_is_refused(text, media, message):
    with pytest.raises(ValueError, match=message):
        question_message(text, **media)


def test_a_system_message_shows_nothing():
    assert system_message("Be brief.") == {"role": "system", "content": "Be brief."}
    with pytest.raises(ValueError, match="cannot show anything; remove <image>"):
        system_message("See <image>")


@pytest.mark.parametrize(
    ("text", "kind", "prompt"),
    [
        (
            "the <ref>7</ref>",
            "box",
            "the <ref>7</ref>. Please provide the bounding box coordinates.",
        ),
        (" a 7. ", "point", "a 7. Please provide the point coordinates."),
    ],
)
def test_grounding_asks_in_the_taught_words(text, kind, prompt):
    assert grounding_prompt(text, kind) == prompt
