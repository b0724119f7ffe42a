"""Settings are checked before decoding, and each of them reaches the model."""

import pytest
import torch

from ovis_model.inference.generation import (
    GenerationSettings,
    StopStringCriteria,
    generate_ids,
    generate_outputs,
)
from ovis_model.inference.messages import question_message


@pytest.fixture(scope="module")
def prompt(ovis):
    return ovis.processor.encode_prompt([question_message("Why?")], enable_thinking=False)


def ids(ovis, prompt, **settings):
    chosen = GenerationSettings(max_new_tokens=24, **settings)
    return generate_ids(ovis.model, ovis.processor, [prompt], chosen)[0].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": -3}, "max_new_tokens must be at least 1, got -3"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample=False for greedy"),
        ({"do_sample": True, "temperature": -1.0}, "temperature above 0, got -1.0"),
        ({"top_p": 0.0}, "top_p is a probability .* got 0.0"),
        ({"top_p": 1.5}, "top_p is a probability .* got 1.5"),
        ({"top_k": 0}, "top_k must be at least 1 token, got 0"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty must be above 0 \(1 is none\), got 0"),
        ({"stop": ("a", "")}, "stop holds an empty string"),
    ],
)
def test_settings_without_a_meaning_are_refused(ovis, settings, message):
    chosen = GenerationSettings(**{"max_new_tokens": 10, **settings})
    with pytest.raises(ValueError, match=message):
        chosen.check(ovis.processor.token_ids)


def test_by_default_nothing_but_the_likeliest_token_is_taken(ovis):
    keywords = GenerationSettings(max_new_tokens=5).keywords(ovis.processor.token_ids)
    assert keywords["do_sample"] is False
    assert not {"temperature", "top_p", "top_k", "repetition_penalty"} & set(keywords)


def test_a_seed_repeats_a_sample_and_leaves_other_random_numbers_alone(ovis, prompt):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = ids(ovis, prompt, do_sample=True, seed=7)
    assert torch.rand(1) == expected
    assert ids(ovis, prompt, do_sample=True, seed=7) == first
    assert ids(ovis, prompt, do_sample=True, seed=8) != first


def test_sampling_from_one_token_is_greedy(ovis, prompt):
    greedy = ids(ovis, prompt)
    assert ids(ovis, prompt) == greedy
    assert ids(ovis, prompt, do_sample=True, top_k=1) == greedy
    assert ids(ovis, prompt, do_sample=True, top_p=1e-6) == greedy


def test_a_repetition_penalty_makes_a_row_repeat_itself_less(ovis):
    message = question_message("Who are you?")
    prompt = ovis.processor.encode_prompt([message], enable_thinking=False)
    assert len(set(ids(ovis, prompt))) < len(set(ids(ovis, prompt, repetition_penalty=5.0)))


def test_a_repetition_penalty_sees_a_padded_row_as_it_sees_it_alone(ovis, prompt):
    longer = ovis.processor.encode_prompt([question_message("Why? " * 20)], enable_thinking=False)
    settings = GenerationSettings(max_new_tokens=24, repetition_penalty=1.5)
    together = generate_outputs(ovis.model, ovis.processor, [prompt, longer], settings)
    alone = generate_outputs(ovis.model, ovis.processor, [prompt], settings)
    assert together[0] == alone[0]


def test_a_stop_string_ends_its_own_row_and_no_other(ovis, prompt):
    processor = ovis.processor
    other = processor.encode_prompt([question_message("Who are you?")], enable_thinking=False)
    plain = GenerationSettings(max_new_tokens=24)
    whole, unstopped = generate_outputs(ovis.model, processor, [prompt, other], plain)
    word = "ich"
    assert word in whole.answer
    assert word not in unstopped.answer
    settings = GenerationSettings(max_new_tokens=24, stop=(word,))
    first, second = generate_outputs(ovis.model, processor, [prompt, other], settings)
    assert first.text == whole.text.partition(word)[0]
    assert (first.finish_reason, second.finish_reason) == ("stop_string", "length")
    assert first.generated_tokens < 24
    assert second == unstopped


def test_a_stop_string_is_not_looked_for_in_an_open_thought(ovis):
    token_ids, tokenizer = ovis.processor.token_ids, ovis.processor.tokenizer
    criteria = StopStringCriteria(("two",), tokenizer, token_ids)

    def reached(text):
        row = tokenizer.encode(text, add_special_tokens=False)
        return bool(criteria(torch.tensor([row]), None))

    assert not reached("<think>two")
    assert reached("<think>one</think>two")
    assert reached("two")


def test_white_space_before_a_long_answer_is_not_a_stop_string(ovis):
    token_ids, tokenizer = ovis.processor.token_ids, ovis.processor.tokenizer
    criteria = StopStringCriteria(("\n",), tokenizer, token_ids)
    row = tokenizer.encode("\n" * 30, add_special_tokens=False)
    assert not criteria(torch.tensor([row]), None)
    row += tokenizer.encode("7\n", add_special_tokens=False)
    assert criteria(torch.tensor([row]), None)
