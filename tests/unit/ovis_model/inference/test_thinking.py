"""Generated ids become thought and answer, whatever way the thought ended."""

import json
from pathlib import Path

import pytest

from ovis_model.inference.thinking import (
    parse_generation,
    split_thinking,
)
from ovis_model.tokens import CLOSING_SENTENCE, TokenIds
from tests.support.tiny_model import build_tokenizer

SCORING = Path(__file__).parents[5] / "shared" / "scoring" / "thinking_postprocess.json"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def token_ids(tokenizer):
    return TokenIds.of(tokenizer)


@pytest.fixture(scope="module")
def parse(tokenizer, token_ids):
    def parse(text, *, ended=True, padding=0):
        ids = tokenizer.encode(text, add_special_tokens=False)
        ids += [token_ids.im_end] * ended + [token_ids.pad] * padding
        eos = (token_ids.im_end, token_ids.pad)
        return parse_generation(ids, tokenizer, token_ids, eos_ids=eos)

    return parse


def test_a_closed_thought_is_natural_and_the_answer_follows(parse):
    output = parse("<think>\ntwo strokes\n</think>\n\n7", padding=3)
    assert (output.thinking, output.answer) == ("two strokes", "7")
    assert (output.thinking_closed, output.finish_reason) == ("natural", "stop")
    assert output.text == "<think>\ntwo strokes\n</think>\n\n7"


def test_a_thought_closed_by_the_sentence_is_forced_and_without_the_sentence(parse, tokenizer):
    thought = "<think>\ntwo stro"
    output = parse(f"{thought}{CLOSING_SENTENCE}7")
    assert (output.thinking, output.answer, output.thinking_closed) == ("two stro", "7", "forced")
    assert output.thinking_tokens == len(tokenizer.encode(thought))
    assert CLOSING_SENTENCE in output.text


def test_a_thought_that_never_closes_has_no_answer(parse):
    output = parse("<think>\nit is 7", ended=False)
    assert (output.thinking, output.answer) == ("it is 7", "")
    assert (output.thinking_closed, output.finish_reason) == ("never", "length")


def test_text_without_a_thought_is_all_answer(parse):
    output = parse("7")
    assert (output.thinking, output.answer, output.thinking_closed) == ("", "7", "none")
    assert (output.thinking_tokens, output.generated_tokens) == (0, 2)


def test_only_the_first_closing_tag_counts(parse):
    output = parse("<think>a</think>b</think>c")
    assert (output.thinking, output.answer) == ("a", "b</think>c")


def test_an_empty_row_has_nothing(parse):
    output = parse("")
    assert (output.text, output.answer, output.generated_tokens) == ("", "", 1)


def test_a_tag_spelled_in_letters_closes_nothing(tokenizer, token_ids):
    ids = [token_ids.think_open]
    for letter in "</think>":
        ids += tokenizer.encode(letter, add_special_tokens=False)
    output = parse_generation(ids, tokenizer, token_ids, eos_ids=(token_ids.im_end,))
    assert output.thinking_closed == "never"


def test_an_end_tag_without_a_thought_before_it_counts_no_thinking(parse):
    output = parse("</think>\n\n7")
    assert (output.thinking, output.answer, output.thinking_tokens) == ("", "7", 0)


def test_a_stop_string_cuts_the_answer_and_not_the_thought(tokenizer, token_ids):
    ids = tokenizer.encode("<think>a 7.</think>\n\n It is 7. Yes.", add_special_tokens=False)
    eos = (token_ids.im_end, token_ids.pad)
    ids += [token_ids.pad] * 2  # other rows of the batch went on
    output = parse_generation(ids, tokenizer, token_ids, eos_ids=eos, stop=["."])
    assert (output.thinking, output.answer) == ("a 7.", "It is 7")
    assert output.text == "<think>a 7.</think>\n\n It is 7"
    assert output.finish_reason == "stop_string"
    assert output.generated_tokens == len(ids) - 2


@pytest.mark.skipif(not SCORING.is_file(), reason="the scoring fixtures are not here")
def test_splits_as_the_official_adapter_does(parse):
    for row in json.loads(SCORING.read_text(encoding="utf-8"))["rows"]:
        flags = row["expected_flags"]
        output = parse(row["full_text"])
        assert (output.thinking_closed == "forced") is flags["forced_close"], row["id"]
        assert (output.thinking_closed == "never") is flags["unclosed_thinking"], row["id"]
        if not flags["unclosed_thinking"]:  # there the official adapter marks the thought itself
            assert output.answer == row["expected_response"], row["id"]
            sentence = CLOSING_SENTENCE.split("</think>")[0].strip()
            expected = row["expected_thinking"].removesuffix(sentence).strip()
            assert output.thinking == expected, row["id"]
            assert split_thinking(row["full_text"])[1] == row["expected_response"], row["id"]
