"""What of an output is marked, whichever backend wrote it."""

import time

import pytest

from ovis_model.evaluation.responses import (
    Phase,
    continuation,
    extract_final_answer,
    read_output,
    read_phases,
)
from ovis_model.inference.thinking import ParsedOutput
from ovis_model.tokens import CLOSING_SENTENCE


def read(*phases, thinking=True, final=True):
    made = [Phase(text, reason) for text, reason in phases]
    return read_phases(made, enable_thinking=thinking, asks_for_final_answer=final)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("FINAL  ANSWER :  : B ", "B "),
        ("the\nfinal answer\tis: B", "B"),
        ("Final answer: A. The final answer is C", "C"),
        ("The final answer is A. Final answer: ", ""),
        ("final answer B", "final answer B"),
        ("The final answer: B", "B"),
        ("Final answer:B\nFinal answers: C", "B\nFinal answers: C"),
        ("", ""),
    ],
)
def test_what_follows_the_last_final_answer_is_taken(response, answer):
    assert extract_final_answer(response) == answer


def test_forty_thousand_letters_of_thought_are_read_at_once_and_kept_whole():
    thought = "the final answer is not clear yet. " * 1200
    start = time.perf_counter()
    found = read((f"<think>{thought}</think>{'final answer' * 3000}\nFinal answer: B", "stop"))
    assert time.perf_counter() - start < 1.0
    assert (found.thinking, found.prediction) == (thought.strip(), "B")


def test_without_the_request_the_whole_response_is_marked():
    text = "<think>x</think>\nFinal answer: B"
    assert read((text, "stop"), final=False).prediction == "Final answer: B"


@pytest.mark.parametrize(
    ("text", "thinking", "flags"),
    [
        pytest.param("Final answer: B", True, {"no_think_block"}, id="no thought"),
        pytest.param("Final answer: B", False, set(), id="none asked for"),
        pytest.param("x</think>Final answer: B", True, set(), id="closed, never opened"),
        pytest.param("<think>Final answer: B", True, {"unclosed_thinking"}, id="never closed"),
    ],
)
def test_flags_tell_how_the_thought_ended(text, thinking, flags):
    found = read((text, "stop"), thinking=thinking)
    names = ("forced_close", "unclosed_thinking", "no_think_block", "answer_truncated")
    assert {name for name in names if getattr(found, name)} == flags
    assert found.prediction == "B"


def test_a_second_phase_continues_what_the_first_began():
    cut = Phase("<think>x</think>The answer", "length")
    assert continuation(cut) == ""
    assert continuation(Phase("<think>x", "length")) == CLOSING_SENTENCE
    found = read(("<think>x", "length"), ("Final answer: C", "length"))
    assert found.text == f"<think>x{CLOSING_SENTENCE}Final answer: C"
    assert (found.forced_close, found.answer_truncated) == (True, True)


@pytest.mark.parametrize("count", [0, 3])
def test_an_output_has_one_or_two_phases(count):
    with pytest.raises(ValueError, match=f"one or two phases, not {count}"):
        read(*[("x", "length")] * count)


def test_our_own_outputs_are_read_by_the_same_rule():
    output = ParsedOutput(
        text=f"<think>x{CLOSING_SENTENCE}The final answer is B",
        thinking="x",
        answer="The final answer is B",
        finish_reason="length",
        thinking_closed="forced",
        thinking_tokens=3,
        answer_tokens=6,
        generated_tokens=33,
    )
    found = read_output(output, enable_thinking=True, asks_for_final_answer=True)
    phases = read(("<think>x", "length"), ("The final answer is B", "length"))
    assert found == phases
    assert found.prediction == "B"
