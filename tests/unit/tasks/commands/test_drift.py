"""`ovis drift`: new data against a version's profile, or against other data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.triggers import Memory, remembering
from flows.watch import look_for_drift
from ovis_model.errors import DataError
from ovis_model.registry import DATA_DIGEST, DRIFT_PROFILE, INPUTS_DIGEST, MODEL_DIGEST
from ovis_model.reports import sha256_of_file
from tasks._mlflow import run_of
from tasks._registry import MlflowRegistry
from tasks.artifacts import (
    DRIFT_HTML,
    DRIFT_OF_RAW,
    DRIFT_REPORT,
    EXTRACTED,
    NOTIFICATIONS,
    TRIGGERS,
)
from tasks.cli import main
from tasks.commands import drift
from tasks.operations import TriggersConfig
from tests.support.drifting import draw_samples
from tests.support.raw_data import write_annotations
from tests.support.training_world import write_extracted
from tests.support.working_tree import ROOT

NUM_SAMPLES = 200


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working tree whose champion, version 1, has learned from data/extracted."""
    folder = tmp_path_factory.mktemp("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name in ("params.yaml", "operations.yaml"):
            shutil.copy(ROOT / name, folder)
        write_data(EXTRACTED, seed=0)
        registry = MlflowRegistry("ovis2_5")
        registry._create()
        run = run_of(registry._client, "1" * 64).info.run_id
        for number in (1, 2):
            tags = {MODEL_DIGEST: str(number), INPUTS_DIGEST: "1" * 64}
            registry._client.create_model_version("ovis2_5", "s3://m", tags=tags, run_id=run)
        registry.set_tags(1, {DATA_DIGEST: sha256_of_file(EXTRACTED / "manifest.json")})
        registry.move_alias("champion", 1)
        drift.keep_profile(registry, 1, EXTRACTED)
    return folder


@pytest.fixture(autouse=True)
def _in_a_working_tree(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    for path in (DRIFT_REPORT, DRIFT_HTML, DRIFT_OF_RAW, NOTIFICATIONS):
        path.unlink(missing_ok=True)


def write_data(folder, **how):
    """Write samples and their pictures as the extract step does, if not named by content."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = draw_samples(folder, NUM_SAMPLES, **how)
    lines = [json.loads(one.to_json()) for one in samples]
    write_extracted(folder, lines, lines[:1])
    return folder


def notifications():
    if not NOTIFICATIONS.exists():
        return []
    lines = [json.loads(line) for line in NOTIFICATIONS.read_text("utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "drift"]


def test_more_of_the_same_is_no_drift(tmp_path, capsys):
    assert main(["drift", str(write_data(tmp_path / "new", seed=1))]) == 0
    said = capsys.readouterr().out
    assert "against champion, version 1: 200 of 200, worth 200\n" in said
    assert said.endswith("\nno drift\n")
    assert json.loads(DRIFT_REPORT.read_text())["outcome"] == "no drift"
    assert "No drift" in DRIFT_HTML.read_text()
    assert notifications() == []


def test_drift_is_told_to_who_asks_and_once_to_everybody(tmp_path, capsys):
    new = str(write_data(tmp_path / "new", seed=1, brighter=50))
    assert main(["drift", new]) == 3
    said = capsys.readouterr().out
    assert said.endswith("\ndrift: brightness, look of the picture\n")
    assert main(["drift", new, "--against", "1"]) == 3
    (told,) = notifications()
    assert told["title"] == f"{new} is not like the data of champion, version 1"
    brightness, look = told["text"].splitlines()
    assert brightness.startswith("brightness: 4")
    assert look.endswith(" % of the samples are elsewhere")
    assert told["facts"]["page"] == "reports/drift.html"


def test_equal_data_has_an_equal_digest_and_changed_pictures_another(tmp_path):
    new = write_data(tmp_path / "new", seed=1)
    digest = drift.check(new).digest
    assert drift.check(new).digest == digest
    for path in new.glob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert drift.check(new).digest != digest


def test_too_few_samples_have_an_exit_code_of_their_own(tmp_path, capsys):
    new = write_data(tmp_path / "new", seed=1)
    lines = (new / "train.jsonl").read_text().splitlines(keepends=True)
    (new / "train.jsonl").write_text("".join(lines[:30]))
    assert main(["drift", str(new)]) == 4
    assert "too few samples: each side needs 100 independent ones" in capsys.readouterr().out


def test_annotations_are_compared_with_other_data_and_with_a_profile(tmp_path, capsys):
    new = write_data(tmp_path / "new", seed=1, thinking=0.0)
    (new / "train.jsonl").rename(new / "all.jsonl")
    with (new / "all.jsonl").open("a") as file:
        file.write('{"id": "no sample"}\n')
    elsewhere = tmp_path / "annotations.jsonl"
    (new / "all.jsonl").rename(elsewhere)
    profile = tmp_path / "profile.json"
    drift.profile_of(EXTRACTED).write_compact(profile)
    arguments = ["--media", str(new), "--json", str(tmp_path / "d.json")]
    arguments += ["--html", str(tmp_path / "d.html")]
    reports = []
    for against in (str(EXTRACTED), str(profile)):
        assert main(["drift", str(elsewhere), "--against", against, *arguments]) == 3
        reports.append(json.loads((tmp_path / "d.json").read_text()))
        assert capsys.readouterr().out.endswith("\ndrift: thinking\n")
    assert reports[0]["digest"] == reports[1]["digest"]
    assert not DRIFT_REPORT.exists()


def test_records_that_are_no_samples_are_counted(tmp_path, caplog):
    path = tmp_path / "all.jsonl"
    path.write_text('{"id": "a", "conversations": [{"from": "human", "value": "?"}]}\n{"id": 1}\n')
    assert drift.profile_of(path).num_samples == 1
    assert "1 record(s) are no samples and were not measured" in caplog.text


def test_raw_data_are_read_as_params_yaml_says(tmp_path):
    write_data(tmp_path, seed=1)
    (tmp_path / "train.jsonl").rename(tmp_path / "mine.jsonl")
    params = Path("params.yaml").read_text()
    values = yaml.safe_load(params)
    values["validate"] |= {"annotations": "mine.jsonl"}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    try:
        assert drift.profile_of(tmp_path).num_samples == NUM_SAMPLES
    finally:
        Path("params.yaml").write_text(params)


def test_validated_data_finds_its_pictures_in_the_raw_data(tmp_path):
    raw = write_data(tmp_path / "raw", seed=1)
    validated = tmp_path / "validated"
    validated.mkdir()
    (raw / "train.jsonl").rename(validated / "train.jsonl")
    for name in ("media.jsonl", "manifest.json"):
        (validated / name).touch()
    params = Path("params.yaml").read_text()
    values = yaml.safe_load(params)
    values["validate"] |= {"raw_data": str(raw)}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    try:
        assert drift.profile_of(validated).num_unreadable == 0
    finally:
        Path("params.yaml").write_text(params)


def test_false_alarms_are_counted_on_halves_of_the_data(capsys):
    assert main(["drift", str(EXTRACTED), "--false-alarms", "10"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("data/extracted: of 10 random splits into halves, 0 (0.0%) were called")
    assert main(["drift", str(EXTRACTED), "--false-alarms", "0"]) == 2
    assert "--false-alarms 0: halve it at least once" in capsys.readouterr().err


# ---- the trigger ----------------------------------------------------------------------------


def write_raw(folder, **how):
    """Write samples as raw data whose annotations the params.yaml of the project names."""
    write_data(folder, **how)
    lines = (folder / "train.jsonl").read_text().splitlines()
    write_annotations(folder, [json.loads(line) for line in lines])
    for name in ("train.jsonl", "holdout.jsonl", "manifest.json"):
        (folder / name).unlink()
    return folder


def look_on(raw, now, times=(0, 60, 120, 180)):
    """Look for drift until data are stable, and again, as the watching deployment does."""
    config = TriggersConfig(stable_minutes=1)
    looks = []
    for seconds in times:
        with remembering() as (memory, remember):
            looks.append(look_for_drift(memory, remember, raw, config, now + seconds))
            remember(looks[-1].memory)
    return looks


def test_looks_at_the_same_drifted_data_start_one_retrain(tmp_path):
    DRIFT_HTML.parent.mkdir(exist_ok=True)
    DRIFT_HTML.write_text("of what a person asked for", encoding="utf-8")
    looks = look_on(write_raw(tmp_path / "raw", seed=1, brighter=50), now=1e9)
    assert DRIFT_HTML.read_text(encoding="utf-8") == "of what a person asked for"
    assert "brightness" in DRIFT_OF_RAW.with_suffix(".html").read_text(encoding="utf-8")
    assert [one.due for one in looks] == [False, True, False, False]
    assert looks[1].reason.startswith("drift, data ")
    assert len(notifications()) == 1
    TRIGGERS.unlink()


def test_looks_at_new_data_like_the_old_start_none_and_measure_once(tmp_path):
    raw = write_raw(tmp_path / "raw", seed=1)
    DRIFT_OF_RAW.parent.mkdir(exist_ok=True)
    DRIFT_OF_RAW.write_text('{"drifted": ["brightness"]}')  # of data that were there before
    looks = look_on(raw, now=1e9)
    assert [one.due for one in looks] == [False] * 4
    assert [one.says for one in looks[1:]] == ["no drift"] * 3
    measured = DRIFT_OF_RAW.stat().st_mtime_ns
    look_on(raw, now=2e9)
    assert DRIFT_OF_RAW.stat().st_mtime_ns == measured
    TRIGGERS.unlink()


def test_without_a_champion_nothing_is_measured_until_there_is_one(tmp_path):
    registry = MlflowRegistry("ovis2_5")
    raw = write_raw(tmp_path / "raw", seed=1, brighter=50)
    registry.move_alias("champion", None)
    try:
        looks = look_on(raw, now=1e9)
    finally:
        registry.move_alias("champion", 1)
    assert not any(one.due for one in looks)
    assert looks[-1].says.startswith("drift was not measured: there is no champion")
    assert look_on(raw, now=2e9)[0].due
    TRIGGERS.unlink()


def test_data_that_cannot_be_measured_is_an_error_once(tmp_path):
    raw = write_raw(tmp_path / "raw", seed=1)
    for picture in raw.glob("*.png"):
        picture.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture below"):
        look_on(raw, now=1e9)
    says = [one.says for one in look_on(raw, now=2e9)]
    assert says == ["there is no .ovis/drift.json yet; `ovis drift`"] * 4
    TRIGGERS.unlink()


def test_data_that_changed_meanwhile_are_measured_at_the_next_look(tmp_path):
    raw = write_raw(tmp_path / "raw", seed=1, brighter=50)
    link = raw / "written_meanwhile.json"
    link.symlink_to(DRIFT_OF_RAW.absolute())  # is there once the report is
    with pytest.raises(DataError, match="was written to while it was read: written_meanwhile"):
        look_on(raw, now=1e9)
    assert Memory.read().measured is None
    link.unlink()
    assert look_on(raw, now=2e9)[0].due
    TRIGGERS.unlink()


def test_a_registry_that_is_away_leaves_the_version_to_the_next_look(tmp_path, monkeypatch):
    raw = write_raw(tmp_path / "raw", seed=1, brighter=50)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = look_on(raw, now=1e9, times=(0, 60))[-1]
    assert found.says.startswith("drift was not measured: ")
    assert not found.due
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert look_on(raw, now=1e9, times=(120,))[0].due
    TRIGGERS.unlink()


def test_raw_data_may_have_a_file_with_the_name_of_a_steps(tmp_path, capsys):
    raw = write_raw(tmp_path / "raw", seed=1)
    (raw / "train.jsonl").write_text('{"text": "no sample"}\n', encoding="utf-8")
    assert main(["drift", str(raw)]) == 0
    assert "200 of 200" in capsys.readouterr().out


# ---- profiles in the registry ---------------------------------------------------------------


def test_a_profile_is_kept_once_and_only_with_the_version_of_that_data(home):
    registry = MlflowRegistry("ovis2_5")
    before = registry.tags_of(1)
    drift.keep_profile(registry, 1, EXTRACTED)
    assert registry.tags_of(1) == before
    drift.keep_profile(registry, 2, EXTRACTED)
    assert DRIFT_PROFILE not in registry.tags_of(2)


def test_a_version_without_a_profile_says_what_to_do(tmp_path, capsys):
    assert main(["drift", str(EXTRACTED), "--against", "2"]) == 1
    said = capsys.readouterr().err
    assert "version 2 has no profile of its training data" in said
    assert "run `make register`, or name data with --against" in said


def test_a_profile_that_was_changed_is_not_believed(capsys):
    registry = MlflowRegistry("ovis2_5")
    before = registry.tags_of(1)[DRIFT_PROFILE]
    registry.set_tags(1, {DRIFT_PROFILE: "0" * 64})
    try:
        assert main(["drift", str(EXTRACTED)]) == 1
    finally:
        registry.set_tags(1, {DRIFT_PROFILE: before})
    assert "is not the one that was written (its sha256 differs)" in capsys.readouterr().err


def test_without_a_champion_data_has_to_be_named(capsys):
    registry = MlflowRegistry("ovis2_5")
    registry.move_alias("champion", None)
    try:
        assert main(["drift", str(EXTRACTED)]) == 1
    finally:
        registry.move_alias("champion", 1)
    assert "there is no champion whose training data" in capsys.readouterr().err
