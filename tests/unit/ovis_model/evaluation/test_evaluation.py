"""Base and tuned model on the same items: scores, predictions, and a page with pictures."""

import json
import re

import numpy as np
import pytest
from moviepy import ImageSequenceClip
from PIL import Image

from ovis_model.config import EvaluateConfig, PixelLimits
from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks
from ovis_model.evaluation.evaluation import evaluate
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.report import (
    Attempt,
    Exhibit,
    Gallery,
    choose_exhibits,
    render_html,
)
from ovis_model.evaluation.scores import BenchmarkReport, EvaluationReport, ModelScore
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.inference.thinking import ParsedOutput
from tests.support.tiny_model import build_tiny_checkpoint

CONFIG = EvaluateConfig(benchmarks="", thinking_budget=4, max_new_tokens=36, batch_size=3)
BOX = "<ref>7</ref><box>(0.000,0.000),(0.500,0.500)</box>"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two checkpoints and three benchmarks: images, a video, boxes."""
    root = tmp_path_factory.mktemp("world")
    build_tiny_checkpoint(root / "tuned", seed=0)
    # A base whose own limits would show it 196 visual tokens per image.
    build_tiny_checkpoint(root / "base", seed=1, pixel_limits=PixelLimits())
    folder = root / "benchmarks"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(folder / f"{number}.png")
    clip = [np.full((32, 32, 3), 50 * number, dtype=np.uint8) for number in range(4)]
    ImageSequenceClip(clip, fps=4).write_videofile(
        str(folder / "clip.mp4"), audio=False, logger=None
    )
    images = [
        {
            "id": f"i{number}",
            "image": [f"{number}.png"] * (1 + number % 2),
            "question": "<image>\n" * (1 + number % 2) + "Which digit is this?",
            "answer": str(number),
        }
        for number in range(7)
    ]
    write_benchmark(folder, "images", images)
    video = {"id": "v", "video": "clip.mp4", "question": "<video>\nWhich digits?", "answer": "7"}
    frames = {**video, "id": "f", "video": ["0.png", "1.png"]}
    write_benchmark(folder, "video", [video, frames])
    box = {"id": "b", "image": ["0.png"], "question": "<image>\nWhere?", "answer": BOX}
    write_benchmark(folder, "boxes", [box], metric="iou")
    return root


def write_benchmark(folder, name, items, metric="exact"):
    header = {"name": name, "version": 1, "items": f"{name}.jsonl", "metric": metric}
    (folder / f"{name}.yaml").write_text(json.dumps(header), encoding="utf-8")
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def run(world, output, config=CONFIG):
    return evaluate(
        config,
        model=world / "tuned",
        base_model=world / "base",
        benchmarks=world / "benchmarks",
        predictions=output / "predictions",
        html=output / "evaluate.html",
    )


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("reports")
    return run(world, output), output


def lines_of(output, name):
    text = (output / "predictions" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_benchmark_is_scored_for_both_models(evaluated):
    report, _ = evaluated
    assert list(report.benchmarks) == ["boxes", "images", "video"]
    images = report.benchmarks["images"]
    assert images.num_items == 7
    assert images.tuned.interval_low <= images.tuned.score <= images.tuned.interval_high
    assert report.protocol["thinking_budget"] == 4


def test_each_item_has_one_line_in_order_with_both_answers(evaluated):
    report, output = evaluated
    lines = lines_of(output, "images")
    assert [line["id"] for line in lines] == [f"i{number}" for number in range(7)]
    for line in lines:
        for role in ("base", "tuned"):
            assert line[role]["thinking_tokens"] <= 4
            assert line[role]["correct"] is (line[role]["answer"].strip() == line["answer"])
    closed = [line["tuned"]["thinking_closed"] for line in lines]
    score = report.benchmarks["images"].tuned
    assert (score.forced_close, score.thinking_closed) == (
        closed.count("forced"),
        closed.count("natural"),
    )


def test_the_batch_size_changes_no_answer(evaluated, world, tmp_path):
    _, output = evaluated
    run(world, tmp_path, CONFIG.model_copy(update={"batch_size": 1}))
    for name in ("images", "video", "boxes"):
        assert lines_of(tmp_path, name) == lines_of(output, name)


def test_evaluating_again_gives_the_same_bytes(evaluated, world, tmp_path):
    report, output = evaluated
    assert run(world, tmp_path) == report
    again = (tmp_path / "evaluate.html").read_bytes()
    assert again == (output / "evaluate.html").read_bytes()


def test_a_limit_shortens_every_benchmark_and_its_fingerprint_tells(evaluated, world, tmp_path):
    report, _ = evaluated
    short = run(world, tmp_path, CONFIG.model_copy(update={"limit": 2}))
    assert short.benchmarks["images"].num_items == 2
    prints = {r.benchmarks["images"].fingerprint for r in (short, report)}
    assert len(prints) == 2
    assert short.benchmarks["video"] == report.benchmarks["video"]


def test_an_old_prediction_does_not_survive(world, tmp_path):
    old = tmp_path / "predictions" / "gone.jsonl"
    old.parent.mkdir()
    old.write_text("{}", encoding="utf-8")
    run(world, tmp_path, CONFIG.model_copy(update={"limit": 1}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluate.html", "predictions"]
    assert not old.exists()


def test_the_report_reads_back_and_names_every_number(evaluated, tmp_path):
    report, _ = evaluated
    report.write(tmp_path / "evaluate.json")
    assert EvaluationReport.read(tmp_path / "evaluate.json") == report
    assert report.metrics["images.tuned.score"] == report.benchmarks["images"].tuned.score
    assert report.to_table().count("\n") == 3


def test_the_page_shows_pictures_and_loads_nothing(evaluated):
    _, output = evaluated
    page = (output / "evaluate.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 7 + 2 + 1
    assert "Showing 7 of 7 items" in page
    assert not re.search(r"(src|href)=.?(http|/)", page)


def test_a_broken_picture_is_named_with_its_item(world, tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"not a picture")
    item = {"id": "x", "image": ["a.png"], "question": "<image>\n?", "answer": "1"}
    write_benchmark(folder, "broken", [item])
    (tmp_path / "base").symlink_to(world / "base")
    (tmp_path / "tuned").symlink_to(world / "tuned")
    with pytest.raises(DataError, match=r"benchmark 'broken', item 'x': .*a\.png"):
        run(tmp_path, tmp_path)
    assert not (tmp_path / "predictions").exists()


def test_limits_without_room_for_this_models_closing_sentence_are_a_config_error(world, tmp_path):
    config = CONFIG.model_copy(update={"max_new_tokens": 10})
    with pytest.raises(ConfigError, match="set max_new_tokens to at least"):
        run(world, tmp_path, config)


def output_of(answer, *, thinking="", closed="natural"):
    return ParsedOutput(answer, thinking, answer, "stop", closed, 3, 1, 5)


def page_about(tmp_path, answer):
    (tmp_path / "x.yaml").write_text(
        json.dumps({"name": "x", "version": 1, "items": "x.jsonl", "metric": "exact"}),
        encoding="utf-8",
    )
    item = BenchmarkItem(id="<b>id</b>", question=answer, answer=answer)
    (tmp_path / "x.jsonl").write_text(item.model_dump_json(), encoding="utf-8")
    benchmark = load_benchmarks(tmp_path)[0]
    output = output_of(answer, thinking=answer)
    mark = Mark(correct=True, value=1.0)
    score = ModelScore.of([output], [mark])
    exhibit = Exhibit(item, (), Attempt(output, mark), Attempt(output, mark))
    report = EvaluationReport(
        protocol={"note": answer},
        benchmarks={
            "x": BenchmarkReport(
                fingerprint="0", metric="exact", num_items=1, tuned=score, base=score
            )
        },
    )
    return render_html(report, [Gallery(benchmark, [exhibit])])


@pytest.mark.parametrize("attack", ["<script>alert(1)</script>", "\"><img src=x onerror='a'>"])
def test_what_comes_from_data_is_text_never_markup(tmp_path, attack):
    page = page_about(tmp_path, attack)
    assert attack not in page
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>id" not in page


def test_wrong_items_come_first_and_the_rest_is_cut():
    right, wrong = Mark(correct=True, value=1.0), Mark(correct=False, value=0.0)
    marks = [right] * 30 + [wrong] * 2
    chosen = choose_exhibits(marks)
    assert chosen[:3] == [30, 31, 0]
    assert len(chosen) == 24


def test_scores_count_how_thoughts_and_outputs_ended():
    outputs = [
        output_of("7"),
        output_of("7", closed="forced"),
        ParsedOutput("", "x", "", "length", "never", 9, 0, 9),
    ]
    marks = [Mark(True, 1.0), Mark(False, 0.0), Mark(False, 0.0, invalid=True)]
    score = ModelScore.of(outputs, marks)
    assert (score.num_correct, score.score) == (1, 33.3333)
    assert (score.thinking_closed, score.forced_close, score.truncated, score.invalid) == (
        1,
        1,
        1,
        1,
    )
    assert score.mean_thinking_tokens == 5.0
