from ovis_model.model_card import Benchmark, Facts, render_card
from tests.support.registry import scores

FACTS = Facts(
    model_name="ovis2_5",
    model_digest="d" * 64,
    benchmarks={"ocr": Benchmark.model_validate(scores(95.0, forced_close=3))},
    protocol={"enable_thinking": True, "thinking_budget": 24, "max_new_tokens": 72},
    lineage={"base_model": "data/sample/tiny-ovis2_5", "data_digest": "e" * 64},
    training={"samples": 1200, "parameters": 2_800_000, "trainable_parameters": 2_800_000},
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


def test_a_card_says_what_is_unknown():
    assert "| optimizer steps | unknown |" in render_card(FACTS, "Passed.")


def test_a_card_holds_the_gate_s_verdict():
    card = render_card(FACTS, "Refused:\n\n- ocr: 80.0 is under 90.0")
    assert "## Gate\n\nRefused:\n\n- ocr: 80.0 is under 90.0\n\n## Use" in card
