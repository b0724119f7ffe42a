"""The table a person sees at the end of a run."""

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.scores import BenchmarkReport, EvaluationReport, ModelScore
from ovis_model.registration import RegisterReport
from ovis_model.training.report import TrainReport
from tasks import summary
from tasks.summary import Summary, as_markdown, as_text, read_summary


def score(percent):
    return ModelScore(
        score=percent,
        interval_low=percent - 2,
        interval_high=percent + 1,
        num_correct=0,
        thinking_closed=340,
        forced_close=0,
        truncated=0,
        invalid=0,
        mean_thinking_tokens=9.0,
    )


def a_summary(objections=()):
    benchmark = BenchmarkReport(
        fingerprint="f", metric="exact", num_items=359, tuned=score(98.04), base=score(10.0)
    )
    return Summary(
        TrainReport(
            steps=300,
            epochs=3,
            samples=9,
            holdout_samples=1,
            tokens=1,
            supervised_tokens=1,
            longest_sample_tokens=1,
            first_loss=6.2,
            final_loss=0.05,
            holdout_loss=0.04,
            weights_step=300,
            parameters=1,
            trainable_parameters=1,
            modules=[],
            world_size=1,
            effective_batch_size=32,
            deepspeed=True,
            zero_stage=2,
            dtype="float32",
            attn_implementation={"vit": "sdpa per frame", "llm": "sdpa"},
            device="cpu",
        ),
        EvaluationReport(protocol={}, benchmarks={"digits_single": benchmark}),
        RegisterReport(
            model_name="ovis2_5",
            version=3,
            model_digest="d",
            promoted=not objections,
            objections=list(objections),
            aliases=["challenger", "champion"],
            champion=3,
        ),
    )


def test_the_table_has_base_tuned_and_interval_of_each_benchmark():
    lines = as_text(a_summary(), seconds=372).splitlines()
    assert lines[0].split("  ")[0] == "benchmark"
    for cell in ("digits_single", "359", "10.0 %", "98.0 %", "96.0 to 99.0 %", "340 of 359"):
        assert cell in lines[2]
    assert "gate       passed" in lines
    assert "model      ovis2_5 version 3, aliases: challenger, champion" in lines
    assert "wall time  6 min 12 s" in lines


def test_a_refusal_says_why():
    text = as_text(a_summary(objections=["digits_single: 80.0 is under 90.0"]))
    assert "gate      refused: digits_single: 80.0 is under 90.0" in text


def test_markdown_has_the_same_numbers():
    markdown = as_markdown(a_summary())
    assert "| digits_single | exact | 359 | 10.0 % | 98.0 % |" in markdown
    assert "* **gate**: passed" in markdown


def test_before_the_first_run_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "TRAIN_REPORT", tmp_path / "train.json")
    with pytest.raises(DataError, match="has not run yet; `make run`"):
        read_summary()


def test_a_report_of_another_version_is_told_apart(tmp_path, monkeypatch):
    path = tmp_path / "train.json"
    path.write_text('{"steps": 3}', encoding="utf-8")
    monkeypatch.setattr(summary, "TRAIN_REPORT", path)
    with pytest.raises(DataError, match="not a report of this version"):
        read_summary()
