import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ovis_model.config import FrameSampling
from ovis_model.data.checks.lengths import LengthRules
from ovis_model.data.report import ValidationReport
from ovis_model.data.schema import Fit, read_samples
from ovis_model.data.validation import Context
from ovis_model.errors import ConfigError, DataError
from ovis_model.reports import sha256_of_file, sha256_of_folder
from tests.support.dask_cluster import Cluster
from tests.support.raw_data import (
    picture,
    sample,
    write_annotations,
    write_every_kind,
    write_picture,
)
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint
from tests.support.validating import run_validation as run


def ledger_of(root: Path) -> dict[str, dict[str, Any]]:
    """Return the ledger's lines by id."""
    text = (root / "reports/validate_ledger.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["id"]: line for line in lines}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where every kind of good sample was validated."""
    root = tmp_path_factory.mktemp("good")
    write_every_kind(root / "raw")
    run(root, holdout_fraction=0.0)
    return root


def test_good_samples_are_written_in_canonical_form(world: Path) -> None:
    samples = list(read_samples(world / "validated/train.jsonl"))
    expected = json.loads((world / "raw/annotations.json").read_text())["conversations"]
    assert [s.id for s in samples] == [s["id"] for s in expected]
    assert samples[0].image == ("images/a.png",)
    assert list(read_samples(world / "validated/holdout.jsonl")) == []


def test_a_dask_cluster_validates_to_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.delattr("ovis_model.data.decoding.pool.DecoderPool.__enter__")  # nothing here
    shutil.copytree(world / "raw", tmp_path / "raw")
    cluster = Cluster(tmp_path)
    try:
        cluster.add_worker()
        report = run(tmp_path, holdout_fraction=0.0, dask_scheduler=cluster.address)
    finally:
        cluster.stop()
    assert report == ValidationReport.read(world / "reports/validate.json")
    assert sha256_of_folder(tmp_path / "validated") == sha256_of_folder(world / "validated")
    assert ledger_of(tmp_path) == ledger_of(world)


def test_the_report_counts_every_kind(world: Path) -> None:
    report = ValidationReport.read(world / "reports/validate.json")
    assert report.passed
    assert (report.num_samples, report.num_ok, report.num_quarantined) == (9, 9, 0)
    assert report.kinds == {
        "single_image": 3,
        "multi_image": 1,
        "video_file": 1,
        "video_frames": 1,
        "text_only": 3,
        "with_think": 1,
        "system_prompt": 1,
        "multi_turn": 1,
        "grounding": 1,
    }
    failed = {code for code, found in report.expectations.items() if not found.passed}
    assert failed == {"few_frames"}  # six and three frames, where eight are asked for
    assert report.identity == "9 samples in = 9 ok + 0 quarantined + 0 dropped"
    assert len(report.not_checked) == 2


def test_the_manifest_describes_the_files_beside_it(world: Path) -> None:
    folder = world / "validated"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == {p.name for p in folder.iterdir()}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == sha256_of_file(folder / name)
        assert entry["rows"] == len((folder / name).read_text().splitlines())
    digest = sha256_of_file(world / "raw/annotations.json")
    assert manifest["annotations"] == {"annotations.json": digest}
    assert manifest["num_media"] == 6


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    write_every_kind(tmp_path / "raw")
    outputs = []
    for _ in range(2):
        run(tmp_path, holdout_fraction=0.3)
        files = sorted((tmp_path / "validated").iterdir())
        reports = sorted((tmp_path / "reports").glob("*.json*"))
        outputs.append([path.read_bytes() for path in (*files, *reports)])
    assert outputs[0] == outputs[1]


def test_no_picture_is_on_both_sides(tmp_path: Path) -> None:
    samples = []
    for n in range(40):
        write_picture(tmp_path / f"raw/{n}.png", n)
        samples += [sample(f"{n}-{k}", "<image>?", "7", image=f"{n}.png") for k in range(3)]
    write_annotations(tmp_path / "raw", samples)
    report = run(tmp_path, holdout_fraction=0.25)
    sides = [
        {path for s in read_samples(tmp_path / f"validated/{side}.jsonl") for path in s.image}
        for side in ("train", "holdout")
    ]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[0] | sides[1]) == report.num_groups == 40
    assert 0 < report.num_holdout < 60


def test_keys_nobody_reads_and_ids_nobody_gave_are_counted(tmp_path: Path) -> None:
    nameless = sample("", "Hi?", "Hello.", weight=3, source="web")
    del nameless["id"]
    write_annotations(tmp_path / "raw", [nameless, sample("named", "What?", "That.", weight=1)])
    report = run(tmp_path, holdout_fraction=0.0)
    assert report.ignored_keys == {"weight": 2}
    assert report.expectations["generated_id"].num_bad == 1
    first = next(read_samples(tmp_path / "validated/train.jsonl"))
    assert (first.id[:5], first.source) == ("auto-", "web")


def test_bad_samples_within_the_limit_are_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = [sample(f"s{n}", f"What is {n}?", str(n)) for n in range(9)]
    write_annotations(tmp_path / "raw", [*good, sample("bad", "What?", "")])
    report = run(tmp_path, holdout_fraction=0.0, max_bad_fraction=0.1)
    assert report.passed
    assert (report.num_ok, report.num_quarantined, report.num_train) == (9, 1, 9)
    assert report.quarantined[0].model_dump() == {
        "id": "bad",
        "place": "entry 10",
        "reasons": {"empty_text": "turn 2: num_chars = 0"},
    }
    written = [s.id for s in read_samples(tmp_path / "validated/train.jsonl")]
    assert "bad" not in written


def test_a_failure_leaves_report_and_docs_and_no_stale_output(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello.")])
    run(tmp_path)
    assert (tmp_path / "validated").exists()
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello."), sample("t", "Hi?", " ")])
    with pytest.raises(DataError) as caught:
        run(tmp_path, holdout_fraction=0.0)
    assert str(caught.value) == (
        "1 of 2 samples (50.0%) are bad and validate.max_bad_fraction allows 0.0%: "
        "'t' (empty_text: turn 2: num_chars = 0). What to do about each is in "
        f"{tmp_path}/reports/validate_ledger.jsonl, the counts are in "
        f"{tmp_path}/reports/validate.json, a page to browse is "
        f"{tmp_path}/reports/data_docs/index.html. Fix or remove them, or raise "
        "validate.max_bad_fraction, then run `dvc repro` again"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "reports"}
    assert not ValidationReport.read(tmp_path / "reports/validate.json").passed
    assert (tmp_path / "reports/data_docs/index.html").exists()


def test_at_most_five_bad_samples_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample(f"s{n}", "What?", "") for n in range(8)])
    with pytest.raises(DataError) as caught:
        run(tmp_path)
    assert "'s4' (" in str(caught.value)
    assert "'s5'" not in str(caught.value)
    assert "and 3 more" in str(caught.value)
    assert len(ValidationReport.read(tmp_path / "reports/validate.json").quarantined) == 8


def test_nothing_left_to_train_on_is_an_error_of_its_own(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello.")])
    with pytest.raises(DataError, match=r"no sample is left to train on: 0 of 1 .* 1 held out"):
        run(tmp_path, holdout_fraction=0.999999)


def test_unreadable_annotations_leave_no_report_of_another_run(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello.")])
    run(tmp_path, holdout_fraction=0.0)
    (tmp_path / "raw/annotations.json").write_text("{")
    with pytest.raises(DataError, match=r"annotations\.json \(1 bytes\) is not JSON"):
        run(tmp_path)
    assert not (tmp_path / "validated").exists()
    assert not (tmp_path / "reports/validate.json").exists()
    assert not (tmp_path / "reports/data_docs").exists()


def test_every_sample_is_in_the_ledger_once_with_its_verdict(tmp_path: Path) -> None:
    write_annotations(
        tmp_path / "raw",
        [
            sample("fine", "Hi?", "Hello."),
            sample("fine", "Hi?", "Hello."),
            sample("bad", "Hi?", ""),
            sample("again", "Hi?", "Hello."),
        ],
    )
    report = run(tmp_path, max_bad_fraction=0.5)
    assert report.identity == "4 samples in = 2 ok + 1 quarantined + 1 dropped (repeated 1)"
    text = (tmp_path / "reports/validate_ledger.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["id"], line["verdict"]) for line in lines] == [
        ("fine", "ok"),
        ("fine", "dropped"),
        ("bad", "quarantined"),
        ("again", "ok"),
    ]
    assert lines[3]["warnings"] == ["duplicate_content"]
    (reason,) = lines[2]["reasons"]
    assert (reason["code"], reason["remedy"][:9]) == ("empty_text", "write the")


def test_a_stopping_reason_stops_however_much_is_tolerated(tmp_path: Path) -> None:
    samples = [sample("one", "Hi?", "Hello."), sample("one", "Hi?", "Good day.")]
    write_annotations(tmp_path / "raw", [*samples, sample("two", "Hi?", "Yes.")])
    with pytest.raises(DataError) as caught:
        run(tmp_path, max_bad_fraction=0.9)
    message = str(caught.value)
    assert message.startswith("nothing is trained while there is duplicate_id (2): 'one' (")
    assert "validate.severity" in message
    assert ledger_of(tmp_path)["two"]["verdict"] == "ok"
    weights = {"duplicate_id": "quarantine"}
    report = run(tmp_path, max_bad_fraction=0.9, severity=weights)
    assert (report.num_quarantined, report.stopped_by) == (2, {})


def test_params_decide_what_is_a_fault(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample("s", "Hi\u200b?", "Hello.")])
    assert run(tmp_path).expectations["invisible_characters"].num_bad == 1
    with pytest.raises(DataError, match=r"'s' \(invisible_characters: turn 1: U\+200B"):
        run(tmp_path, severity={"invisible_characters": "quarantine"})
    hint = r"validate\.severity: unknown key 'leaked_imag'; did you mean 'leaked_image'\?"
    with pytest.raises(ConfigError, match=hint):
        run(tmp_path, severity={"leaked_imag": "warn"})


def lengths(folder: Path, **changes: Any) -> Context:
    rules = {
        "base_model": folder,
        "pixel_limits": TINY_PIXELS,
        "frame_sampling": TINY_FRAMES,
        "multimodal_max_length": 60,
        "text_max_length": 60,
        **changes,
    }
    return Context(sampling=TINY_FRAMES, lengths=LengthRules(**rules))


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("base") / "model")


def write_long(root: Path) -> None:
    samples = [sample("short", "Hi?", "Hello."), sample("long", "Hi?", "Hello. " * 40)]
    write_annotations(root / "raw", samples)


def test_a_sample_that_is_too_long_is_set_aside_with_its_length(
    tmp_path: Path, base_model: Path
) -> None:
    write_long(tmp_path)
    message = r"'long' \(over_length: \d+ tokens, 0 of them visual; train\.text_max_length is 60"
    with pytest.raises(DataError, match=message):
        run(tmp_path, context=lengths(base_model))
    report = run(tmp_path, context=lengths(base_model), max_bad_fraction=0.5)
    assert report.lengths.longest <= 60
    assert report.lengths.num_tokens == report.lengths.longest


@pytest.mark.parametrize(
    ("policy", "verdicts", "fit"),
    [
        ("drop", ["ok", "dropped"], None),
        ("truncate_text", ["ok", "ok"], Fit(max_tokens=60)),
        ("shrink_pixels", ["ok", "quarantined"], None),
    ],
)
def test_the_policy_decides_what_becomes_of_it(
    tmp_path: Path, base_model: Path, policy: str, verdicts: list[str], fit: Fit | None
) -> None:
    write_long(tmp_path)
    context = lengths(base_model, policy=policy)
    report = run(tmp_path, context=context, max_bad_fraction=0.5)
    ledger = ledger_of(tmp_path)
    assert [ledger[name]["verdict"] for name in ("short", "long")] == verdicts
    written = {s.id: s.fit for s in read_samples(tmp_path / "validated/train.jsonl")}
    assert written["short"] is None
    assert written.get("long") == fit
    assert report.num_dropped == ({"over_length": 1} if policy == "drop" else {})


def test_sources_are_mixed_as_planned(tmp_path: Path) -> None:
    for name in ("web", "ours"):
        write_annotations(
            tmp_path / "raw" / name, [sample(f"{name}{n}", f"{name} {n}?", "7") for n in range(10)]
        )
    sources = [
        {"name": "web", "annotations": "web/annotations.json", "max_samples": 4},
        {"name": "ours", "annotations": "ours/annotations.json", "weight": 1.5},
    ]
    report = run(tmp_path, sources=sources)
    assert report.identity == "20 samples in = 14 ok + 0 quarantined + 6 dropped (cap 6)"
    assert (report.num_train, report.num_train_lines) == (14, 19)
    found = report.sources
    assert (found["web"].num_samples, found["web"].num_ok, found["web"].num_lines) == (10, 4, 4)
    assert found["ours"].num_lines == 15
    assert found["ours"].share == found["ours"].planned_share == pytest.approx(15 / 19)
    lines = [s.id for s in read_samples(tmp_path / "validated/train.jsonl")]
    assert len(set(lines)) == 19
    assert sum(name.endswith("~2") for name in lines) == 5


def write_benchmark(folder: Path) -> Path:
    write_picture(folder / "images/a.png", 5)
    item = {"id": "1", "question": "What is 2 + 2?", "answer": "4"}
    (folder / "b.jsonl").write_text(json.dumps(item) + "\n")
    return folder


def test_what_a_benchmark_shows_or_asks_is_not_trained_on(tmp_path: Path) -> None:
    context = Context(sampling=FrameSampling(), exam=write_benchmark(tmp_path / "exam"))
    write_picture(tmp_path / "raw/copy.png", 5)
    write_picture(tmp_path / "raw/own.png", 6)
    fine = sample("fine", "<image>?", "7", image="own.png")
    write_annotations(
        tmp_path / "raw",
        [
            fine,
            sample("shown", "<image>?", "7", image="copy.png"),
            sample("asked", "what is 2 + 2", "4"),
        ],
    )
    with pytest.raises(DataError, match=r"leaked_image \(1\), leaked_question \(1\)"):
        run(tmp_path, context=context, max_bad_fraction=0.9)
    ledger = ledger_of(tmp_path)
    assert ledger["fine"]["verdict"] == "ok"
    assert "images/a.png of the benchmarks" in ledger["shown"]["reasons"][0]["detail"]
    assert ledger["asked"]["reasons"][0]["detail"] == "b.jsonl, line 1"
    write_annotations(tmp_path / "raw", [fine])
    assert run(tmp_path, context=context).passed


def test_a_benchmarks_picture_is_found_in_another_format_too(tmp_path: Path) -> None:
    context = Context(sampling=FrameSampling(), exam=write_benchmark(tmp_path / "exam"))
    picture(5).save(tmp_path / "raw.bmp")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.bmp").rename(tmp_path / "raw/copy.bmp")
    write_annotations(tmp_path / "raw", [sample("shown", "<image>?", "7", image="copy.bmp")])
    with pytest.raises(DataError, match=r"leaked_image \(1\)"):
        run(tmp_path, context=context)


def test_a_cap_does_not_make_bad_samples_weigh_more(tmp_path: Path) -> None:
    samples = [sample(f"s{n}", f"What is {n}?", str(n)) for n in range(9)]
    write_annotations(tmp_path / "raw", [*samples, sample("bad", "What?", "")])
    sources = [{"name": "web", "annotations": "annotations.json", "max_samples": 1}]
    report = run(tmp_path, sources=sources, max_bad_fraction=0.1)
    assert (report.num_ok, report.bad_fraction) == (1, 0.1)


def test_what_needs_pixels_is_not_passed_by_looking_at_headers(tmp_path: Path) -> None:
    write_every_kind(tmp_path / "raw")
    report = run(tmp_path, media_check="header")
    unseen = {code for code, found in report.expectations.items() if found.passed is None}
    assert unseen == {"blank", "near_duplicate"}
    assert any(text.startswith("pixels: ") for text in report.not_checked)


def test_an_unchanged_file_is_not_looked_at_again(tmp_path: Path) -> None:
    memory = tmp_path / "memory.jsonl"
    write_every_kind(tmp_path / "raw")
    context = Context(sampling=FrameSampling(), memory=memory)
    first = run(tmp_path, context=context)
    lines = memory.read_bytes()
    assert len(lines.splitlines()) == 6
    assert run(tmp_path, context=context) == first
    assert memory.read_bytes() == lines
    write_picture(tmp_path / "raw/images/a.png", 99)
    run(tmp_path, context=context)
    assert len(memory.read_bytes().splitlines()) == 7


def test_the_part_of_a_video_that_is_shown_must_have_frames(tmp_path: Path) -> None:
    write_every_kind(tmp_path / "raw")  # a clip of six frames, four in a second
    samples = [
        sample(name, "<video>?", name, video="videos/clip.mp4", video_start=start, video_end=end)
        for name, start, end in (("inside", 0.5, 1.0), ("beyond", 3.0, 9.0), ("between", 0.3, 0.4))
    ]
    write_annotations(tmp_path / "raw", samples)
    run(tmp_path, max_bad_fraction=0.9)
    ledger = ledger_of(tmp_path)
    assert [ledger[s["id"]]["verdict"] for s in samples] == ["ok", "quarantined", "quarantined"]
    assert ledger["beyond"]["reasons"][0]["code"] == "empty_range"
    assert ledger["beyond"]["reasons"][0]["detail"] == (
        "no frame between 3.0 s and 9.0 s; videos/clip.mp4 is 1.500 s long"
    )
