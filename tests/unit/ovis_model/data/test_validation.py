import json
from pathlib import Path
from typing import Any

import pytest

from ovis_model.config import ValidateConfig
from ovis_model.data.report import ValidationReport
from ovis_model.data.schema import read_samples
from ovis_model.data.validation import validate
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file
from tests.support.raw_data import sample, write_annotations, write_every_kind, write_picture


def run(root: Path, **settings: Any) -> ValidationReport:
    """Validate root/raw into root/validated."""
    return validate(
        ValidateConfig(raw_data=str(root / "raw"), **settings),
        raw_data=root / "raw",
        output=root / "validated",
        report=root / "reports/validate.json",
        data_docs=root / "reports/data_docs",
    )


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
    assert all(expectation.passed for expectation in report.expectations.values())


def test_the_manifest_describes_the_files_beside_it(world: Path) -> None:
    folder = world / "validated"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) | {"manifest.json"} == {p.name for p in folder.iterdir()}
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == sha256_of_file(folder / name)
        assert entry["rows"] == len((folder / name).read_text().splitlines())
    assert manifest["annotations"]["sha256"] == sha256_of_file(world / "raw/annotations.json")
    assert manifest["num_media"] == 6


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    write_every_kind(tmp_path / "raw")
    outputs = []
    for _ in range(2):
        run(tmp_path, holdout_fraction=0.3)
        files = sorted((tmp_path / "validated").iterdir())
        outputs.append([p.read_bytes() for p in (*files, tmp_path / "reports/validate.json")])
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
    assert report.num_generated_ids == 1
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
        "reasons": {"empty_text": "shortest_turn_chars = 0"},
    }
    written = [s.id for s in read_samples(tmp_path / "validated/train.jsonl")]
    assert "bad" not in written


def test_a_failure_leaves_report_and_docs_and_no_stale_output(tmp_path: Path) -> None:
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello.")])
    run(tmp_path, holdout_fraction=0.0)
    assert (tmp_path / "validated").exists()
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello."), sample("t", "Hi?", " ")])
    with pytest.raises(DataError) as caught:
        run(tmp_path, holdout_fraction=0.0)
    assert str(caught.value) == (
        "1 of 2 samples (50.0%) are bad and validate.max_bad_fraction allows 0.0%: "
        "'t' (empty_text: shortest_turn_chars = 0). The whole list is in "
        f"{tmp_path}/reports/validate.json, a page to browse in "
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
