import os
from pathlib import Path

import pytest
import yaml

from tasks.params import Params
from tasks.tracking.inputs import digest_of, pipeline_inputs

PARAMS = Path(__file__).parents[4] / "params.yaml"


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """Return the digest of a pipeline run whose data are small folders here."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["validate"]["raw_data"] = "data/raw"
    values["train"]["ovis_pretrained_path"] = "base"
    values["evaluate"]["benchmarks"] = "data/exam"
    for folder in ("data/raw", "base", "data/exam"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "file").write_text("a", encoding="utf-8")

    def compute(**changes):
        for name, value in changes.items():
            section, key = name.split("__")
            values[section][key] = value
        Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return pipeline_inputs(Params.read())[0]

    return compute


def test_the_same_inputs_are_the_same_pipeline_run(digest):
    assert digest() == digest()


def test_how_fast_training_goes_does_not_make_another_run(digest):
    assert digest() == digest(train__save_steps=7)


@pytest.mark.parametrize(
    "change", [{"train__seed": 7}, {"register__model_name": "b"}, {"evaluate__thinking_budget": 9}]
)
def test_any_setting_makes_another_run(digest, change):
    assert digest() != digest(**change)


@pytest.mark.parametrize("folder", ["data/raw", "base", "data/exam"])
def test_other_data_make_another_run(digest, folder):
    first = digest()
    (Path(folder) / "more").write_text("b", encoding="utf-8")
    assert digest() != first


def test_of_data_that_dvc_knows_its_digest_is_taken_and_nothing_read(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "raw.dvc").write_text("outs:\n- md5: 0123.dir\n  path: raw\n", encoding="utf-8")
    assert digest_of(raw) == "0123.dir"
    assert digest_of(raw / "part") == "0123.dir"


def test_of_what_a_stage_made_the_digest_in_its_lock_is_taken(tmp_path):
    lock = "stages:\n  make:\n    outs:\n    - path: sub/made\n      md5: 4567.dir\n"
    (tmp_path / "dvc.lock").write_text(lock, encoding="utf-8")
    assert digest_of(tmp_path / "sub/made") == "4567.dir"
    assert digest_of(tmp_path / "sub/made/part") == "4567.dir"
    (tmp_path / "dvc.lock").write_text(lock.replace("4567", "89ab"), encoding="utf-8")
    os.utime(tmp_path / "dvc.lock", ns=(1, 1))
    assert digest_of(tmp_path / "sub/made") == "89ab.dir"
