import dataclasses

import pytest

from ovis_model.model_card import Benchmark, Facts, render_card, stated_licence
from tests.support.registry import scores

FACTS = Facts(
    model_name="ovis2_5",
    model_digest="d" * 64,
    benchmarks={"ocr": Benchmark.model_validate(scores(95.0, forced_close=3))},
    protocol={"enable_thinking": True, "thinking_budget": 24, "max_new_tokens": 72},
    lineage={"base_model": "data/sample/tiny-ovis2_5", "data_digest": "e" * 64},
    training={
        "samples": 1200,
        "parameters": 2_800_000,
        "trainable_parameters": 2_800_000,
        "device": "cpu",
        "world_size": 2,
        "dtype": "float32",
        "zero_stage": 2,
    },
    validation={
        "identity": "1,300 samples in = 1,240 ok + 55 quarantined + 5 dropped (repeated 5)",
        "num_holdout": 40,
        "num_dropped": {"repeated": 5},
        "expectations": {
            "missing_media": {"severity": "quarantine", "num_bad": 50},
            "empty_answer": {"severity": "quarantine", "num_bad": 5},
            "too_many_turns": {"severity": "quarantine", "num_bad": 0},
            "blank_image": {"severity": "warn", "num_bad": 9},
        },
        "sources": {"ours": {"licence": ""}, "web": {"licence": "CC-BY-4.0"}},
    },
    base_licence="apache-2.0",
)


def test_a_card_says_where_the_model_comes_from_and_how_it_was_measured():
    card = render_card(FACTS, "Passed.")
    assert "| data digest | " + "e" * 64 in card
    assert "| training samples | 1,200 |" in card
    assert "| parameters, trained of all | 2,800,000 of 2,800,000 |" in card
    assert "Thinking enabled, at most 24 tokens of thinking, at most 72 new tokens" in card
    row = "| ocr | exact | 100 | 10.0 (5.0 to 15.0) | 95.0 (90.0 to 100.0) | 3 | 0 |"
    assert row in card
    assert "arXiv:2508.11737" in card


def test_a_card_counts_the_samples_that_were_not_used_by_reason():
    card = render_card(FACTS, "Passed.")
    assert "55 quarantined + 5 dropped (repeated 5); 40 of them held out." in card
    assert "| missing_media | quarantined | 50 |" in card
    assert "| empty_answer | quarantined | 5 |" in card
    assert "| repeated | dropped | 5 |" in card
    assert "blank_image" not in card  # used all the same
    assert "too_many_turns" not in card


def test_a_card_tells_licences_hardware_and_what_the_model_is_for():
    card = render_card(FACTS, "Passed.")
    assert "| base model | apache-2.0 |" in card
    assert "| data ours | not stated |" in card
    assert "| data web | CC-BY-4.0 |" in card
    assert "| hardware | 2 process(es) on cpu, float32, ZeRO stage 2 |" in card
    assert "## Intended use\n\nAnswers questions" in card


@pytest.mark.parametrize(
    ("place", "shown"), [("/home/me/Ovis2.5-2B/", "Ovis2.5-2B"), ("data/base", "data/base")]
)
def test_a_card_names_the_base_model_but_no_place_on_a_machine(place, shown):
    card = render_card(dataclasses.replace(FACTS, lineage={"base_model": place}), "Passed.")
    assert f"| base model | {shown} |" in card
    assert "/home" not in card


def test_a_card_without_a_report_on_the_data_says_so():
    card = render_card(dataclasses.replace(FACTS, validation={}, training={}), "Passed.")
    assert "## Data\n\nUnknown: no report of the validate step was there." in card
    assert "| data | not stated |" in card
    assert "| hardware | unknown |" in card


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [vlm]\n---\n# Ovis2.5", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\ntags: [vlm]\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- license\n---\n", None),
        ("# Ovis2.5\nlicense: mit\n", None),
        (None, None),
    ],
)
def test_a_licence_is_read_from_the_head_of_the_readme(tmp_path, readme, licence):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    assert stated_licence(tmp_path) == licence


def test_a_card_says_what_is_unknown():
    assert "| optimizer steps | unknown |" in render_card(FACTS, "Passed.")


def test_a_card_holds_the_gate_s_verdict():
    card = render_card(FACTS, "Refused:\n\n- ocr: 80.0 is under 90.0")
    assert "## Gate\n\nRefused:\n\n- ocr: 80.0 is under 90.0\n\n## Use" in card
