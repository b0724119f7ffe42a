"""A version of the data is DVC's hash of their content, whatever the clock says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ovis_model.errors import DataError
from tasks._data_version import data_version, learned_version, unchanged
from tasks.artifacts import DATA_VERSION

RAW = Path("raw")


@pytest.fixture(autouse=True)
def raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Names that sort in another order as text than as paths.
    for name in ("b/deep/x.bin", "b-c/y.bin", "annotations.json", "\u00e9.txt"):
        (RAW / name).parent.mkdir(parents=True, exist_ok=True)
        (RAW / name).write_text(name, encoding="utf-8")
    return RAW


def test_a_version_is_what_dvc_writes_into_its_lock():
    (RAW / "half.partial").write_text("not data yet", encoding="utf-8")
    Path(".dvcignore").write_text("*.partial\n", encoding="utf-8")
    assert learned_version(RAW) is None
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], check=True)
    raw = ["raw", "raw/annotations.json"]
    made = {"validate": "data/validated", "extract": "data/extracted", "train": "models/finetuned"}
    read = {"validate": raw, "extract": [*raw, made["validate"]], "train": [made["extract"]]}
    stages = {
        name: {"cmd": f"mkdir -p {out}", "deps": read[name], "outs": [out]}
        for name, out in made.items()
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    subprocess.run([*dvc, "repro", "--quiet"], check=True)
    assert data_version(RAW) == learned_version(RAW)
    file = RAW / "annotations.json"
    assert data_version(file) == learned_version(file)
    assert learned_version(Path("elsewhere")) is None


def test_data_are_learned_once_training_has_run_on_them():
    def record(raw, validated, extracted, trained_on):
        """Write down what each stage ran on and made, as DVC does."""
        stages = {
            "validate": {"deps": [("raw", raw)], "outs": [("data/validated", validated)]},
            "extract": {
                "deps": [("data/validated", "v2"), ("raw", raw)],
                "outs": [("data/extracted", extracted)],
            },
            "train": {"deps": [("data/extracted", trained_on)], "outs": []},
        }
        lock = {
            name: {
                kind: [{"path": path, "md5": md5} for path, md5 in entries]
                for kind, entries in one.items()
            }
            for name, one in stages.items()
        }
        Path("dvc.lock").write_text(yaml.safe_dump({"stages": lock}), encoding="utf-8")
        return learned_version(RAW)

    assert record("new", "v2", "e2", "e2") == "new"
    assert record("new", "v2", "e2", "e1") is None  # training has died
    assert record("new", "v3", "e2", "e2") is None  # extraction has died


def test_content_makes_a_version_and_times_do_not():
    before = data_version(RAW)
    file = RAW / "b-c/y.bin"
    os.utime(file, (1, 1))
    assert data_version(RAW) == before
    stat = file.stat()
    file.write_text("Y" * stat.st_size, encoding="utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data_version(RAW) != before


def test_data_that_nobody_touched_are_not_read_again():
    version = data_version(RAW)
    known = json.loads(DATA_VERSION.read_text(encoding="utf-8"))
    DATA_VERSION.write_text(json.dumps({**known, "version": "as noted"}), encoding="utf-8")
    assert data_version(RAW) == "as noted"
    (RAW / "new.txt").write_text("new", encoding="utf-8")
    (RAW / "new.txt").unlink()
    (RAW / "b-c/y.bin").write_text("b-c/y.bin", encoding="utf-8")
    assert data_version(RAW) == version


def test_no_data_are_an_error_that_says_where_they_should_be():
    with pytest.raises(DataError, match="there are no raw data in gone; `make run` or `dvc pull`"):
        data_version(Path("gone"))


def test_what_was_read_while_somebody_wrote_is_refused():
    with unchanged(RAW):
        pass
    reading = unchanged(RAW)
    reading.__enter__()
    (RAW / "annotations.json").write_text("longer than before", encoding="utf-8")
    (RAW / "new.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"raw was written to while it was read: annotations\.js"):
        reading.__exit__(None, None, None)
