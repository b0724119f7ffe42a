"""What nobody gave comes from the checkpoint, what somebody gave does not, and it is said."""

import json
import logging

import pytest

from ovis_model.errors import CheckpointError
from ovis_model.inference.defaults import (
    BUDGET,
    MAX_NEW_TOKENS,
    SamplingDefaults,
    SettingsChooser,
    given,
)
from ovis_model.inference.generation import GenerationSettings

OFFICIAL = SamplingDefaults(temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05)
OFF = (False, False, BUDGET)


@pytest.fixture
def choose():
    def choose(
        *,
        thinking=OFF,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=0.6,
        do_sample=True,
        defaults=OFFICIAL,
        **options,
    ):
        chooser = SettingsChooser(defaults)
        return chooser.choose(thinking, max_new_tokens, temperature, do_sample, options)

    return choose


def test_sampling_takes_the_checkpoints_values_where_none_are_given(choose):
    settings = choose(top_k=5)
    assert (settings.top_p, settings.top_k, settings.repetition_penalty) == (0.95, 5, 1.05)
    assert settings.temperature == 0.6


def test_greedy_decoding_takes_none_of_them_but_a_penalty_that_is_asked_for(choose):
    assert choose(do_sample=False) == GenerationSettings(max_new_tokens=1024)
    assert choose(do_sample=False, repetition_penalty=1.2).repetition_penalty == 1.2


def test_a_checkpoint_without_values_changes_nothing(choose):
    settings = choose(defaults=SamplingDefaults())
    assert (settings.top_p, settings.top_k, settings.repetition_penalty) == (None, None, None)


def test_what_is_taken_and_what_is_overridden_is_said_once(caplog):
    chooser = SettingsChooser(OFFICIAL)
    with caplog.at_level(logging.INFO, logger="ovis_model.inference.defaults"):
        for _ in range(2):
            chooser.choose(OFF, MAX_NEW_TOKENS, 0.9, True, {"top_p": 0.5})
    source = "the checkpoint's generation_config.json"
    assert caplog.messages == [
        f"sampling with top_k=20, repetition_penalty=1.05 of {source}",
        f"sampling with temperature=0.9, not with 0.6 as {source} says",
        f"sampling with top_p=0.5, not with 0.95 as {source} says",
    ]


def test_a_default_is_told_from_the_same_number_given(choose):
    assert (given(BUDGET), given(2048), given(int(BUDGET))) == (None, 2048, 2048)
    assert BUDGET == 2048
    thinking = {"max_new_tokens": 3072}
    assert choose(thinking=(True, False, BUDGET), **thinking).thinking_budget is None
    assert choose(thinking=(True, False, 2048), **thinking).thinking_budget == 2048
    assert choose(thinking=(True, True, BUDGET), **thinking).thinking_budget == 2048


def test_thinking_makes_room_unless_the_length_is_given(choose):
    assert choose(thinking=(True, False, BUDGET)).max_new_tokens == 3072
    assert choose(thinking=(True, False, BUDGET), max_new_tokens=1024).max_new_tokens == 1024
    assert choose().max_new_tokens == 1024


@pytest.mark.parametrize(
    ("stop", "expected"), [("END", ("END",)), (["a", "b"], ("a", "b")), ((), ())]
)
def test_one_stop_string_or_several_are_taken(choose, stop, expected):
    assert choose(stop=stop).stop == expected


@pytest.mark.parametrize(
    ("name", "hint"),
    [("top_pp", "did you mean 'top_p'"), ("zzz", "there are system, stop, seed")],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(choose, name, hint):
    with pytest.raises(TypeError, match=f"unknown option '{name}'; {hint}"):
        choose(**{name: 1})


def test_the_checkpoints_file_is_read(tmp_path):
    assert SamplingDefaults.read(tmp_path) == SamplingDefaults()
    values = {"top_p": 0.95, "top_k": 20, "repetition_penalty": None, "eos_token_id": [1, 2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert SamplingDefaults.read(tmp_path) == SamplingDefaults(top_p=0.95, top_k=20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON .*restore or delete it"),
        ("[]", "is not a JSON object"),
        ('{"top_p": "high"}', "top_p is 'high', which is not a number"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=f"generation_config.json.*{message}"):
        SamplingDefaults.read(tmp_path)


def test_an_automatic_budget_is_what_was_recorded():
    thought = (True, False, "auto")

    def choose(thinking, auto):
        return SettingsChooser(OFFICIAL, auto).choose(thinking, MAX_NEW_TOKENS, 0.6, True, {})

    settings = choose(thought, lambda: 256)
    assert (settings.enable_thinking, settings.thinking_budget) == (True, 256)
    settings = choose(thought, lambda: 0)  # thinking did not pay
    assert (settings.enable_thinking, settings.thinking_budget) == (False, None)
    assert not choose((False, False, "auto"), None).enable_thinking
    with pytest.raises(ValueError, match="'auto' needs a model in a folder; give a number"):
        choose(thought, None)
