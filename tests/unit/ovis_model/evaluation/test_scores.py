"""The numbers of a report, from rows."""

import pytest

from ovis_model.errors import DataError
from ovis_model.evaluation.aggregation import score_interval
from ovis_model.evaluation.predictions import BenchmarkRecord, Flags, TokenCounts
from ovis_model.evaluation.scores import EvaluationReport, ModelScore
from ovis_model.evaluation.summary import Sources, summarise
from ovis_model.evaluation.timing import Timing, timing_metrics
from tests.support.evaluation_sources import sources
from tests.support.predictions import row, run


def record(num_items, **fields):
    return BenchmarkRecord(fingerprint="f", metric="exact", num_items=num_items, **fields)


def score_of(*rows, **fields):
    return ModelScore.of(rows, record(len({one.index for one in rows}), **fields))


def test_scores_count_how_thoughts_and_answers_ended():
    score = score_of(
        row("1", 1.0, tokens=TokenCounts(thinking=3)),
        row("2", 0.0, flags=Flags(forced_close=True), tokens=TokenCounts(thinking=3)),
        row(
            "3",
            0.0,
            status="invalid",
            flags=Flags(unclosed_thinking=True, answer_truncated=True),
            tokens=TokenCounts(thinking=9),
        ),
        row("4", 0.0, flags=Flags(no_think_block=True), status="unresolved"),
    )
    assert (score.num_correct, score.num_rows, score.score, score.upper) == (1, 4, 25.0, 50.0)
    assert (score.thinking_closed, score.forced_close, score.unclosed_thinking) == (1, 1, 1)
    assert (score.no_think_block, score.truncated, score.invalid, score.unresolved) == (1, 1, 1, 1)
    assert (score.mean_thinking_tokens, score.thinking_tokens_p50) == (3.75, 3)
    assert score.thinking_tokens_p95 == 9
    assert (score.score_when_forced, score.score_when_not_forced) == (0.0, 33.3333)


def test_without_thinking_no_thought_closed_itself():
    assert score_of(row("1", enable_thinking=False)).thinking_closed == 0


def test_the_interval_says_how_it_was_computed():
    assert score_of(row("1"), row("2", 0.0)).interval_method == "Wilson"
    graded = [row("1", 0.5), row("2", 1.0)]
    score = score_of(*graded)
    assert score.interval_method == "clustered bootstrap"
    assert score.interval_low / 100 == pytest.approx(score_interval(graded)[1])


def test_an_error_or_a_missing_answer_makes_a_run_incomplete():
    rows = {"x": [row("1")]}
    whole, failed = run(**rows), run(x=[row("1", 0.0, status="error", error="no memory")])
    assert not summarise(Sources(whole, whole)).incomplete
    report = summarise(Sources(failed, whole))
    assert (report.incomplete, report.benchmarks["x"].tuned.errors) == (True, 1)
    assert "incomplete" in report.to_table()
    assert ModelScore.of(rows["x"], record(2)).missing == 1


def test_several_seeds_show_the_noise_of_sampling():
    rows = [row(index, float(index == "1" or seed == 0), seed=seed, cluster=index)
            for index in "12" for seed in range(3)]  # fmt: skip
    score = score_of(*rows, seeds=(0, 1, 2))
    assert score.seed_scores == {0: 100.0, 1: 50.0, 2: 50.0}
    assert score.seed_deviation == pytest.approx(28.8675)
    assert score_of(row("1")).seed_deviation is None


def test_slices_are_those_values_that_tell_rows_apart():
    rows = [row(str(n), float(n < 2), slices={"kind": "ab"[n % 2], "media": "image"})
            for n in range(4)]  # fmt: skip
    slices = score_of(*rows).slices
    assert [(one.slice, one.value, one.num_rows, one.score) for one in slices] == [
        ("kind", "a", 2, 50.0),
        ("kind", "b", 2, 50.0),
    ]


def test_a_report_holds_all_that_was_measured(tmp_path):
    report = summarise(sources())
    charts = report.benchmarks["charts"]
    assert charts.num_items == 12
    assert charts.tuned.num_rows == 36
    assert charts.change.difference == pytest.approx(charts.tuned.score - charts.base.score)
    assert charts.thinking.tokens_on > charts.thinking.tokens_off
    assert charts.thinking.change.low < charts.thinking.change.difference
    assert (charts.contamination.looks, charts.contamination.clean_score) == (2, 53.3333)
    assert charts.published.obstacles
    assert report.benchmarks["boxes"].contamination is None
    report.write(tmp_path / "evaluate.json")
    assert EvaluationReport.read(tmp_path / "evaluate.json") == report
    assert "latency" not in (tmp_path / "evaluate.json").read_text(encoding="utf-8")


def test_every_number_has_a_flat_name_and_nothing_else_has():
    metrics = summarise(sources()).metrics
    assert metrics["charts.tuned.unresolved"] == 3.0
    assert "charts.tuned.interval_method" not in metrics
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_model_that_answered_nothing_has_no_report():
    with pytest.raises(DataError, match="benchmark 'x': the base model answered nothing; run"):
        summarise(Sources(run(x=[row("1")]), run(x=[])))


def test_models_without_a_common_question_cannot_be_told_apart():
    with pytest.raises(DataError, match="'x': the two models have no question in common"):
        summarise(Sources(run(x=[row("1")]), run(x=[row("2")])))


def test_time_is_shared_by_what_was_answered_together():
    tokens = TokenCounts(prompt=10, visual=4, generated=30)
    rows = [row(str(n), latency_s=2.0, batch_rows=3, tokens=tokens) for n in range(3)]
    timing = Timing.of([*rows, row("4")])
    assert timing.tokens_per_second == pytest.approx(45.0)
    assert (timing.latency_p50, timing.latency_p95, timing.ttft_p50) == (2.0, 2.0, None)
    assert (timing.prompt_tokens, timing.visual_tokens, timing.batch_rows) == (10, 4, 3)
    assert Timing.of([row("1")]) is None


def test_readings_of_the_clock_have_flat_names():
    metrics = timing_metrics({"tuned": sources().tuned})
    assert metrics["charts.tuned.latency_p50"] == pytest.approx(2.55)
    assert "charts.tuned.ttft_p50" not in metrics
    assert not any(name.startswith("boxes") for name in metrics)
