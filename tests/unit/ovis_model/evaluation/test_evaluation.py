"""Base and tuned model on the same items: scores, predictions, and a page with pictures."""

import json
import re

import numpy as np
import pytest
from moviepy import ImageSequenceClip
from PIL import Image

from ovis_model.config import EvaluateConfig, GateConfig, PixelLimits
from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.evaluation import Models, Outputs, evaluate
from ovis_model.evaluation.predictions import read_run
from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.gate import Answers, decide
from ovis_model.model_folder import digest_of_folder
from tests.support.raw_data import sample
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
    extracted = root / "extracted"
    extracted.mkdir()
    # The same pixels in another format are in the training data.
    Image.open(folder / "3.png").save(extracted / "three.bmp")
    learned = sample("s", "<image>\nRead it.", "3", image="three.bmp")
    (extracted / "train.jsonl").write_text(json.dumps(learned) + "\n", encoding="utf-8")
    return root


def write_benchmark(folder, name, items, metric="exact"):
    header = {"name": name, "version": 1, "items": f"{name}.jsonl", "metric": metric}
    (folder / f"{name}.yaml").write_text(json.dumps(header), encoding="utf-8")
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def run(world, output, config=CONFIG, **champion):
    return evaluate(
        config,
        models=Models(world / "tuned", world / "base", **champion),
        benchmarks=world / "benchmarks",
        training=world / "extracted",
        outputs=Outputs(
            predictions=output / "predictions",
            html=output / "evaluate.html",
            working=output / ".resume",
        ),
    )


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("reports")
    return run(world, output), output


def rows_of(output, name, role="tuned"):
    return read_run(output / "predictions" / role).rows[name]


def answers_of(output, name, role="tuned"):
    """Return what does not depend on how fast it came or what it was answered with."""
    rows = rows_of(output, name, role)
    return [
        row.model_copy(update={"latency_s": 0.0, "ttft_s": None, "batch_rows": 1}) for row in rows
    ]


def test_every_benchmark_is_scored_for_both_models(evaluated):
    report, _ = evaluated
    assert list(report.benchmarks) == ["boxes", "images", "video"]
    images = report.benchmarks["images"]
    assert images.num_items == 7
    assert images.tuned.interval_low <= images.tuned.score <= images.tuned.interval_high
    assert report.protocol["thinking_budget"] == 4


def test_each_item_has_a_row_of_each_model_that_tells_all(evaluated, world):
    report, output = evaluated
    for role in ("base", "tuned"):
        rows = rows_of(output, "images", role)
        assert [row.index for row in rows] == [f"i{number}" for number in range(7)]
        for row in rows:
            assert row.model == digest_of_folder(world / role)
            assert row.tokens.thinking <= 4
            assert 0 < row.tokens.visual < row.tokens.prompt
            assert row.right is (row.response.strip() == row.truth)
            assert row.latency_s >= row.ttft_s > 0
            assert {(one.width, one.height) for one in row.media} == {(32, 32)}
            assert len({row.media[0].sha256, row.row_hash}) == 2
        score = getattr(report.benchmarks["images"], role)
        assert score.forced_close == sum(row.flags.forced_close for row in rows)
        assert score.num_correct == sum(row.right for row in rows)
    assert rows[1].slices == {"media": "several images", "image size": "up to 448 px square"}


def test_questions_about_one_picture_are_one_cluster(evaluated):
    _, output = evaluated
    (box,), images = rows_of(output, "boxes"), rows_of(output, "images")
    assert box.cluster == images[0].cluster
    assert len({row.cluster for row in images}) == 7


def test_frames_and_videos_are_told_with_what_was_seen_of_them(evaluated):
    _, output = evaluated
    clip, frames = rows_of(output, "video")
    assert len(clip.media) > 1
    assert len({one.sha256 for one in clip.media}) == 1
    assert len({one.sha256 for one in frames.media}) == 2
    assert clip.media[0].grid[0] == len(clip.media)


def test_the_batch_size_changes_no_answer(evaluated, world, tmp_path):
    _, output = evaluated
    run(world, tmp_path, CONFIG.model_copy(update={"batch_size": 1}))
    for name in ("images", "video", "boxes"):
        assert answers_of(tmp_path, name) == answers_of(output, name)
        assert {row.batch_rows for row in rows_of(tmp_path, name)} == {1}


def test_evaluating_again_gives_the_same_report(evaluated, world, tmp_path):
    report, _ = evaluated
    assert run(world, tmp_path) == report


def test_a_picture_of_the_training_data_is_found_in_the_benchmark(evaluated):
    report, _ = evaluated
    found = report.benchmarks["images"].contamination
    assert (found.pixels, found.found, found.num_samples) == (1, ("i3",), 1)
    assert report.benchmarks["boxes"].contamination.found == ()


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
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [".resume", "evaluate.html", "predictions"]
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
    assert page.count("data:image/png;base64,") == 7 + 3 + 2 + 2 + 1
    assert "Showing 7 of 7 answers" in page
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


def test_the_champion_is_asked_the_same(world, tmp_path, evaluated):
    report, _ = evaluated
    build_tiny_checkpoint(tmp_path / "old", seed=2)
    with_champion = run(world, tmp_path, champion=tmp_path / "old")
    assert with_champion == report  # the report does not depend on the registry
    asked = Answers.read(tmp_path / "predictions")
    assert asked.champion.record.model == digest_of_folder(tmp_path / "old")
    assert asked.candidate.record.model == digest_of_folder(world / "tuned")
    found = decide(asked, GateConfig(margin=99.0))
    assert found.champion.benchmarks["images"].num_items == 7
    assert found.tokens["images"].champion > 0


def test_a_champion_that_is_the_candidate_is_not_asked_twice(world, tmp_path, caplog):
    caplog.set_level("INFO")
    run(world, tmp_path, champion=world / "tuned")
    assert "no champion is asked: the candidate is the champion" in caplog.text
    assert Answers.read(tmp_path / "predictions").champion is None


def test_answers_are_kept_and_those_that_no_run_needs_are_dropped(world, tmp_path):
    config = CONFIG.model_copy(update={"limit": 1})
    run(world, tmp_path, config)
    kept = sorted(path for path in (tmp_path / ".resume").rglob("*.jsonl"))
    assert len(kept) == 3 * 2
    first = rows_of(tmp_path, "images")
    assert run(world, tmp_path, config)
    assert rows_of(tmp_path, "images") == first  # latencies too: nothing was asked again
    run(world, tmp_path, config.model_copy(update={"max_new_tokens": 37}))
    again = sorted(path for path in (tmp_path / ".resume").rglob("*.jsonl"))
    assert len(again) == len(kept)
    assert not set(again) & set(kept)


def test_thinking_is_compared_with_not_thinking_on_the_same_rows(world, tmp_path):
    report = run(world, tmp_path, CONFIG.model_copy(update={"thinking_off": True, "limit": 2}))
    thinking = report.benchmarks["images"].thinking
    assert min(thinking.tokens_on, thinking.tokens_off) > 0
    assert report.benchmarks["images"].tuned.mean_thinking_tokens > 0
    assert thinking.change.low <= thinking.change.difference <= thinking.change.high
