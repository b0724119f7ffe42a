"""Kinds 17 to 30: well-formed samples that would teach nothing, or the wrong thing."""

import json
from typing import Any

from tests.corpus.dataset import Dataset, Expectation, Kind, speak
from tests.corpus.media import quadrants

_IMAGE = "images/good.png"


def _with_image(data: Dataset) -> None:
    data.good()
    quadrants().save(data.path(_IMAGE))


def _shown(data: Dataset, sample_id: str, question: str, answer: str, *codes: str) -> None:
    """Add a sample with the good image and these words."""
    turns = speak([("human", question), ("gpt", answer)])
    data.add({"id": sample_id, "image": _IMAGE, "conversations": turns}, *codes)


def roles(data: Dataset) -> Expectation:
    data.good()
    data.talk("openai-names", [("user", "Who?"), ("assistant", "Nobody.")])
    data.talk("mixed-names", [("human", "Who am I?"), ("assistant", "You.")])
    for role in ("function", "narrator", "", None, 1):
        turns = [(role, f"Is {role!r} known?"), ("gpt", "No.")]
        data.talk(f"role-{role}", turns, "schema")
    nobody = {"speaker": "human", "value": "Where is from?"}
    answer = {"from": "gpt", "value": "Missing."}
    data.add({"id": "no-role", "conversations": [nobody, answer]}, "schema")
    return data.write("Q", "user and assistant are known names of human and gpt, others are not.")


def order(data: Dataset) -> Expectation:
    data.good()
    human, gpt, system = ("human", "Well?"), ("gpt", "Yes."), ("system", "Be brief.")
    data.talk("answer-first", [gpt, human, gpt], "role_order")
    data.talk("two-questions", [human, human, gpt], "role_order")
    data.talk("two-answers", [human, gpt, gpt], "role_order")
    data.talk("open-end", [human, gpt, human], "role_order")
    data.talk("late-system", [human, gpt, system], "role_order")
    data.talk("two-systems", [system, system, human, gpt], "role_order")
    data.talk("question-only", [human], "role_order", "no_answer")
    data.talk("system-only", [system], "role_order", "no_answer")
    return data.write("Q", "Questions and answers take turns.")


def no_answer(data: Dataset) -> Expectation:
    data.good()
    data.ask("nothing", "What?", "", "empty_text")
    data.ask("blanks", "What is it?", " \n\t", "empty_text")
    data.ask("thought-only", "What then?", "<think>\nHm.\n</think>\n\n", "empty_text")
    data.ask("no-thought-only", "What else?", "<think></think>", "empty_text")
    turns = [("human", "Hi!"), ("gpt", ""), ("human", "Hm?"), ("gpt", "Yes.")]
    data.talk("first-answer", turns, "empty_text")
    data.talk("all-ignored", [("human", "Hi?"), ("ignored_gpt", "Yes.")], "no_answer")
    return data.write("Q", "There is no token to learn.")


def no_question(data: Dataset) -> Expectation:
    _with_image(data)
    data.ask("empty", "", "Nothing.", "empty_text")
    data.ask("blanks", " \n ", "Blanks.", "empty_text")
    data.ask("wide-blanks", "\N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}", "Wide.", "empty_text")
    turns = [("system", " "), ("human", "Hi?"), ("gpt", "Hello.")]
    data.talk("blank-system", turns, "empty_text")
    _shown(data, "image-alone", "<image>", "A picture says it all.")
    return data.write("Q", "A picture may be a question, blanks are none.")


def placeholders(data: Dataset) -> Expectation:
    _with_image(data)
    _shown(data, "too-many", "<image><image>\nWhich?", "This.", "image_placeholders")
    _shown(data, "none", "Which?", "That.", "image_placeholders")
    data.ask("no-image", "<image>\nWhich?", "None.", "image_placeholders")
    data.ask("no-video", "<video>\nWhich?", "None.", "video_placeholders")
    turns = speak([("human", "<image>\nWhich?"), ("gpt", "One.")])
    two = {"id": "too-few", "image": [_IMAGE, _IMAGE], "conversations": turns}
    data.add(two, "image_placeholders")
    _shown(data, "fits", "<image>\nWhich?", "The one.")
    return data.write("Q", "The official code stops the whole training here.")


def stray_placeholders(data: Dataset) -> Expectation:
    _with_image(data)
    _shown(data, "in-answer", "<image>\nWhich?", "<image>", "stray_placeholder")
    _shown(data, "video-in-answer", "<image>\nWhich one?", "<video>", "stray_placeholder")
    _shown(data, "quoted", "<image>\nWhat means `<image>`?", "It.", "image_placeholders")
    turns = [("system", "An <image> follows."), ("human", "Hi"), ("gpt", "Hello")]
    data.talk("in-system", turns, "stray_placeholder")
    _shown(data, "nearly", "<image>\nWhat means < image > or <Image>?", "Nothing.")
    return data.write("Q", "A word of the text would be taken for a picture.")


def two_placeholders(data: Dataset) -> Expectation:
    _with_image(data)
    _shown(data, "image-asked-both", "<image><video>\nWhich?", "This.", "video_placeholders")
    turns = speak([("human", "<image><video>\nWhich one?"), ("gpt", "That.")])
    data.add(
        {"id": "video-asked-both", "video": [_IMAGE], "conversations": turns},
        "image_placeholders",
    )
    return data.write("Q", "One question, two kinds of media, one of them missing.")


def two_media(data: Dataset) -> Expectation:
    _with_image(data)
    turns = speak([("human", "<image><video>\nWhich?"), ("gpt", "Both.")])
    both = {"image": _IMAGE, "video": [_IMAGE], "conversations": turns}
    data.add({"id": "both", **both}, "mixed_media")
    return data.write("Q", "The official code would ignore the video.")


def no_image(data: Dataset) -> Expectation:
    _with_image(data)
    for name, value, code in (
        ("empty-list", [], "image_placeholders"),
        ("null", None, "image_placeholders"),
        ("empty-text", "", "schema"),
        ("nested", [[_IMAGE]], "schema"),
        ("list-of-null", [None], "schema"),
        ("list-of-empty", [""], "schema"),
        ("number", 7, "schema"),
        ("object", {"path": _IMAGE}, "schema"),
    ):
        data.image(name, value, code)
    turns = [("human", "No picture, no mark?"), ("gpt", "Right.")]
    other = [("human", "Null, and no mark?"), ("gpt", "Right.")]
    data.add({"id": "empty-and-unasked", "image": [], "conversations": speak(turns)})
    data.add(
        {
            "id": "null-and-unasked",
            "image": None,
            "conversations": speak(other),
        }
    )
    return data.write("Q", "The official code divides by the number of images.")


def control_tokens(data: Dataset) -> Expectation:
    data.good()
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        data.ask(f"asked-{token}", f"What is {token}?", "A token.", "control_token")
        data.ask(f"told-{token}", "What is it?", f"It is {token}", "control_token")
    turns = [("system", "Be brief.<|im_end|>"), ("human", "Hi"), ("gpt", "Hello")]
    data.talk("system", turns, "control_token")
    data.ask("nearly", "What is <| im_start |>?", "Harmless.")
    return data.write("Q", "They would end a turn, or fake one.")


def thoughts(data: Dataset) -> Expectation:
    data.good()
    for name, answer in (
        ("unclosed", "<think>Hm."),
        ("unopened", "Hm.</think>Yes."),
        ("nested", "<think>a<think>b</think>c</think>Yes."),
        ("two", "<think>a</think>Yes.<think>b</think>No."),
        ("late", "Yes, <think>Hm.</think> no."),
        ("reversed", "</think>Hm.<think>Yes."),
    ):
        data.ask(name, f"Is {name} right?", answer, "think_tags")
    data.ask("asked", "<think>Hm.</think>Is it?", "No.", "think_tags")
    turns = [("system", "Use <think>."), ("human", "Hi"), ("gpt", "Hello")]
    data.talk("system", turns, "think_tags")
    data.ask("once", "Is once right?", "<think>\nIt is.\n</think>\n\nYes.")
    return data.write("Q", "A model learns where its thoughts end.")


def too_long(data: Dataset) -> Expectation:
    _with_image(data)
    data.ask("long-answer", "Count!", "one two " * 200, "over_length")
    data.ask("long-question", "Count! " * 200, "One.", "over_length")
    _shown(data, "long-beside-image", "<image>\nCount!", "one two " * 200, "over_length")
    _shown(data, "short-beside-image", "<image>\nCount?", "one")
    return data.write(
        "Q", "Longer than the model's limit; what becomes of it is a policy.", max_tokens=256
    )


def odd_letters(data: Dataset) -> Expectation:
    data.good()
    invisible = ["invisible_characters"]
    data.ask("bidi", "Is \N{RIGHT-TO-LEFT OVERRIDE}txt.exe right?", "No.", warn=invisible)
    data.ask("zero-width", "Is pass\N{ZERO WIDTH SPACE}word one?", "No.", warn=invisible)
    data.ask("isolate", "Is \N{LEFT-TO-RIGHT ISOLATE}a b?", "No.", warn=invisible)
    data.ask("megabyte", "What is this?", "a" * 2**20, warn=["huge_word"])
    data.ask("base64", "And this?", "See " + "QUJD" * 300, warn=["huge_word"])
    data.ask("cyrillic", "Is \N{CYRILLIC SMALL LETTER A} an a?", "No, it looks like one.")
    return data.write("W", "What is learned is not what is seen.")


def leaks(data: Dataset) -> Expectation:
    _with_image(data)
    quadrants().save(data.path("images/exam.png", below="exam"))
    items: tuple[dict[str, Any], ...] = (
        {"id": "e1", "question": "How many legs has a spider?", "answer": "8"},
        {
            "id": "e2",
            "image": ["images/exam.png"],
            "question": "<image>\nWhich corner is red?",
            "answer": "A",
        },
    )
    lines = "".join(json.dumps(item) + "\n" for item in items)
    data.path("exam.jsonl", below="exam").write_text(lines, encoding="utf-8")
    header = "name: exam\nversion: 1\nitems: exam.jsonl\nmetric: exact\n"
    data.path("exam.yaml", below="exam").write_text(header, encoding="utf-8")
    _shown(data, "same-image", "<image>\nIs it a flag?", "No.", "leaked_image")
    data.ask("same-question", "How many legs has a spider?", "Eight.", "leaked_question")
    data.ask("nearly", "How  many legs has a SPIDER?", "8.", "leaked_question")
    return data.write(
        "D",
        "A score on what was learned by heart says nothing.",
        stops=("leaked_image", "leaked_question"),
    )


CONVERSATIONS = (
    Kind(17, "roles", roles),
    Kind(18, "order", order),
    Kind(19, "no_answer", no_answer),
    Kind(20, "no_question", no_question),
    Kind(21, "placeholders", placeholders),
    Kind(22, "stray_placeholders", stray_placeholders),
    Kind(23, "two_placeholders", two_placeholders),
    Kind(24, "two_media", two_media),
    Kind(25, "no_image", no_image),
    Kind(26, "control_tokens", control_tokens),
    Kind(27, "thoughts", thoughts),
    Kind(28, "too_long", too_long),
    Kind(29, "odd_letters", odd_letters),
    Kind(30, "leaks", leaks),
)
