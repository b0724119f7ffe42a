"""Bad data of every kind, in one dataset: each is found, named, and costs nobody else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ovis_model.data.report import ValidationReport
from ovis_model.data.schema import read_samples
from tasks.artifacts import DATA_DOCS, VALIDATE_REPORT, VALIDATED
from tests.support.raw_data import (
    picture,
    sample,
    write_annotations,
    write_every_kind,
    write_picture,
)
from tests.support.tiny_model import build_tiny_checkpoint
from tests.support.validating import run_validation

REPOSITORY = Path(__file__).parents[2]
IMAGE = "images/a.png"
ASK = "<image>\nWhich?"


def talk(sample_id: str, *turns: tuple[str, Any], **media: Any) -> dict[str, Any]:
    conversations = [{"from": role, "value": value} for role, value in turns]
    return {"id": sample_id, **media, "conversations": conversations}


#: Reason codes that each bad sample, named by its id, must be given.
BAD: dict[str, tuple[dict[str, Any], set[str]]] = {
    bad["id"]: (bad, set(codes.split()))
    for bad, codes in (
        (talk("unknown-role", ("narrator", "Hi"), ("gpt", "Hello")), "schema"),
        (talk("null-text", ("human", None), ("gpt", "Hello")), "schema"),
        (talk("list-text", ("human", ["Hi"]), ("gpt", "Hello")), "schema"),
        (talk("no-turns"), "schema"),
        ({"id": "no-conversation", "image": IMAGE}, "schema"),
        (sample("empty-path", ASK, "7", image=""), "schema"),
        (talk("answer-first", ("gpt", "Hello"), ("human", "Hi")), "role_order"),
        (talk("two-questions", ("human", "Hi"), ("human", "Hi?"), ("gpt", "Yes")), "role_order"),
        (talk("open-end", ("human", "Hi"), ("gpt", "Yes"), ("human", "Well?")), "role_order"),
        (
            talk("late-system", ("human", "Hi"), ("gpt", "Yes"), ("system", "Brief!")),
            "role_order",
        ),
        (talk("question-only", ("human", "Hi")), "role_order no_answer"),
        (talk("nothing-to-learn", ("human", "Hi"), ("ignored_gpt", "Yes")), "no_answer"),
        (sample("empty-answer", "Hi", " \n"), "empty_text"),
        (sample("only-thought", "Hi", "<think>\nHm.\n</think>\n\n"), "empty_text"),
        (sample("too-many-placeholders", f"{ASK}<image>", "7", image=IMAGE), "image_placeholders"),
        (sample("no-placeholder", "Which?", "7", image=IMAGE), "image_placeholders"),
        (sample("no-image", ASK, "7"), "image_placeholders"),
        (sample("empty-image-list", ASK, "7", image=[]), "image_placeholders"),
        (sample("no-video", "<video>?", "7"), "video_placeholders"),
        (sample("placeholder-in-answer", ASK, "<image>", image=IMAGE), "stray_placeholder"),
        (
            sample("image-and-video", "<image><video>?", "7", image=IMAGE, video=[IMAGE]),
            "mixed_media",
        ),
        (sample("open-thought", "Hi", "<think>Hm."), "think_tags"),
        (sample("thinking-question", "<think></think>Hi", "Hello"), "think_tags"),
        (sample("control-token", "Hi<|im_end|>", "Hello"), "control_token"),
        (sample("fake-turn", "Hi", "<|im_start|>user"), "control_token"),
        (sample("pixel-box", "Where?", "<box>(12,20),(30,40)</box>"), "grounding"),
        (sample("absolute", ASK, "7", image="/etc/passwd"), "unsafe_path"),
        (sample("parent", ASK, "7", image="../a.png"), "unsafe_path"),
        (sample("address", ASK, "7", image="https://host.invalid/a.png"), "unsafe_path"),
        (sample("link-out", ASK, "7", image="images/link.png"), "unsafe_path"),
        (sample("missing", ASK, "7", image="images/none.png"), "missing_media"),
        (sample("missing-frame", "<video>?", "7", video=[IMAGE, "none.png"]), "missing_media"),
        (sample("empty-file", ASK, "7", image="images/empty.png"), "empty_file"),
        (sample("cut-off", ASK, "7", image="images/cut.jpg"), "unreadable_media"),
        (sample("web-page", ASK, "7", image="images/page.jpg"), "wrong_format"),
        (sample("folder", ASK, "7", image="images"), "not_a_file"),
        (sample("no-movie", "<video>?", "7", video="videos/no.mp4"), "unreadable_media"),
        (sample("playlist", "<video>?", "7", video="videos/list.mp4"), "wrong_format"),
        (sample("ribbon", ASK, "7", image="images/ribbon.png"), "extreme_shape"),
        (sample("mixed-frames", "<video>?", "7", video=[IMAGE, "images/big.png"]), "frame_sizes"),
    )
}


def write_bad_media(raw: Path) -> None:
    images, videos = raw / "images", raw / "videos"
    write_picture(raw.parent / "secret.png", 1)
    (images / "link.png").symlink_to(raw.parent / "secret.png")
    (images / "empty.png").touch()
    picture(9, side=128).save(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:-200])
    (images / "page.jpg").write_text("<html>404</html>")
    picture(9).resize((804, 4)).save(images / "ribbon.png")
    write_picture(images / "big.png", 9, side=64)
    (videos / "no.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(64))
    (videos / "list.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    good = write_every_kind(root / "raw")
    write_bad_media(root / "raw")
    doubles = [sample("double", "Hi", "Hello"), sample("double", "Hi", "Good day")]
    nobody = ["not a sample", 3, None]
    bad = [entry for entry, _ in BAD.values()]
    write_annotations(root / "raw", [*doubles, *good, *bad, *nobody])
    run_validation(
        root,
        max_bad_fraction=0.99,
        severity={"duplicate_id": "quarantine"},
    )
    return root


@pytest.fixture(scope="module")
def report(world: Path) -> ValidationReport:
    return ValidationReport.read(world / "reports/validate.json")


@pytest.mark.parametrize("sample_id", BAD)
def test_a_bad_sample_is_set_aside_for_exactly_its_reason(
    report: ValidationReport, sample_id: str
) -> None:
    (found,) = (entry for entry in report.quarantined if entry.id == sample_id)
    assert set(found.reasons) == BAD[sample_id][1]


def test_both_samples_of_one_id_are_set_aside(report: ValidationReport) -> None:
    doubles = [entry for entry in report.quarantined if entry.id == "double"]
    assert [entry.reasons for entry in doubles] == [
        {"duplicate_id": "also at entry 2"},
        {"duplicate_id": "also at entry 1"},
    ]


def test_entries_that_are_no_objects_are_counted_too(report: ValidationReport) -> None:
    nobody = [entry for entry in report.quarantined if entry.id.startswith("auto-")]
    assert [entry.reasons["schema"] for entry in nobody] == [
        f"a sample is a JSON object, this is a {kind}" for kind in ("str", "int", "NoneType")
    ]


def test_every_sample_ends_in_one_of_the_two_ledgers(
    world: Path, report: ValidationReport
) -> None:
    assert report.num_quarantined == len(report.quarantined) == len(BAD) + 2 + 3
    assert report.num_samples == report.num_ok + report.num_quarantined
    written = [s.id for s in read_samples(world / "validated/train.jsonl")]
    assert len(written) == report.num_ok == 9
    assert set(written).isdisjoint(BAD)


def test_a_placeholder_count_says_both_numbers(report: ValidationReport) -> None:
    (found,) = (e for e in report.quarantined if e.id == "too-many-placeholders")
    assert found.reasons == {"image_placeholders": "num_image_placeholders = 2, num_images = 1"}


def test_the_step_ends_with_an_error_that_names_the_sample(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_annotations(raw, [sample("fine", "Hi", "Hello"), sample("culprit", "Hi", "")])
    params = (REPOSITORY / "params.yaml").read_text()
    paths = {"raw_data": "raw", "ovis_pretrained_path": "model", "benchmarks": "benchmarks"}
    for key, value in paths.items():
        params = re.sub(rf"(?m)^  {key}: .*$", f"  {key}: {value}", params)
    (tmp_path / "params.yaml").write_text(params)
    build_tiny_checkpoint(tmp_path / "model")
    result = subprocess.run(
        [sys.executable, "-m", "tasks", "validate"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("validate failed: 1 of 2 samples (50.0%) are bad")
    assert "'culprit' (empty_text" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / VALIDATED).exists()
    assert json.loads((tmp_path / VALIDATE_REPORT).read_text())["num_quarantined"] == 1
    assert (tmp_path / DATA_DOCS / "index.html").exists()
