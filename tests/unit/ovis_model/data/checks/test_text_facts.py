import pytest

from ovis_model.data.checks.text_facts import (
    TURN_COLUMNS,
    count_placeholders,
    kinds_of_sample,
    normalised,
    thoughts,
    turn_facts,
)
from ovis_model.data.schema import Turn, parse_sample
from tests.support.raw_data import sample


def facts(text: str, role: str = "gpt") -> dict[str, object]:
    turn = Turn.model_validate({"from": role, "value": text})
    return dict(zip(TURN_COLUMNS, turn_facts(turn), strict=True))


def test_an_ordinary_turn_has_no_problem() -> None:
    found = facts("Sieben Bücher, ½ Liter, 数字。\tOk\r\n")
    assert found.pop("role") == "gpt"
    assert found.pop("num_chars") == 30
    assert found.pop("num_stray_placeholders") == 0
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("<think>\nHm.\n</think>\n\n7", None),
        ("7", None),
        ("<think>\nHm. 7", "<think> is never closed"),
        ("Hm.</think> 7", "tags are </think>"),
        ("<think>a<think>b</think></think>7", "tags are <think> <think> </think> </think>"),
        ("</think>7<think>", "tags are </think> <think>"),
        ("7 <think>because</think> so", "text before <think>"),
    ],
)
def test_thoughts_are_balanced_and_come_first(answer: str, problem: str | None) -> None:
    assert facts(answer)["think_problem"] == problem


def test_a_question_does_not_think() -> None:
    assert facts("<think></think>?", "human")["think_problem"] == "<think> in a 'human' turn"


def test_a_thought_alone_is_an_empty_answer() -> None:
    assert facts("<think>\nHm.\n</think>\n\n")["num_chars"] == 0


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|image_pad|>"])
@pytest.mark.parametrize("role", ["system", "human", "gpt"])
def test_tokens_that_steer_the_model_are_found_in_any_turn(token: str, role: str) -> None:
    assert facts(f"Hi {token}", role)["control_token"] == token


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a\0b", "U+0000 at character 1"),
        ("\x1b[31m", "U+001B at character 0"),
        ("ok\x7f", "U+007F at character 2"),
        ("half \ud83d", "U+D83D at character 5"),
        ("tab\tline\nreturn\r", None),
    ],
)
def test_control_characters_and_half_characters_are_found(text: str, where: str | None) -> None:
    assert facts(text)["control_character"] == where


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("pass\u200bword", "U+200B at character 4"),
        ("\u202etxet", "U+202E at character 0"),
        ("soft\u00adhyphen", "U+00AD at character 4"),
        ("Ünïcödé 😀", None),
    ],
)
def test_invisible_characters_are_found(text: str, where: str | None) -> None:
    assert facts(text)["invisible_character"] == where


def test_a_word_of_a_thousand_letters_passes_and_one_more_is_found() -> None:
    assert facts("x" * 1000 + " y")["huge_word"] is None
    assert facts("y " + "x" * 1001)["huge_word"] == "1,001 letters without a space"


@pytest.mark.parametrize(
    ("answer", "good"),
    [
        ("<box>(0.100,0.200),(0.300,0.400)</box>", True),
        ("<box>( 0.1 , 0.2 ) , (0.3,0.4)</box>", True),
        ("<point>(0.000,0.999)</point>", True),
        ("<box>(120,200),(300,400)</box>", False),
        ("<box>(0.3,0.4),(0.1,0.2)</box>", False),
        ("<box>0.1,0.2,0.3,0.4</box>", False),
        ("<point>(0.5,1.0)</point>", False),
        ("<point>(-0.1,0.5)</point>", False),
    ],
)
def test_boxes_and_points_are_fractions_in_ovis_notation(answer: str, good: bool) -> None:
    assert facts(answer)["grounding_problem"] == (None if good else answer)
    assert facts(answer, "human")["grounding_problem"] is None


def test_placeholders_are_counted_in_questions_and_are_stray_elsewhere() -> None:
    turns = parse_sample(sample("s", "<image><image> and <video>", "<image>"))
    assert count_placeholders(turns) == (2, 1)
    assert facts("<image> <video>")["num_stray_placeholders"] == 2
    assert facts("<image>", "human")["num_stray_placeholders"] == 0


def test_thoughts_are_those_of_answers_that_are_learned() -> None:
    found = parse_sample(sample("s", "Hi", "<think>one</think>1", "And?", "2"))
    assert thoughts(found) == ["one"]


def test_a_question_is_its_words() -> None:
    assert normalised("<image>\nWHICH digit,  is it?") == normalised("which digit is it")
    assert normalised("<video>\n?!") == ""


def test_a_sample_has_one_kind_of_media_and_its_features() -> None:
    found = parse_sample(
        sample("s", "<image>", "<think>a</think><box>b</box>", "x", "y", image="a.png")
    )
    assert kinds_of_sample(found) == ["single_image", "with_think", "multi_turn", "grounding"]
