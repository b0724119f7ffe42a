"""Planted damage is found, named, and answered with what to do; a healthy tree is left be."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tasks import _dvc_record
from tasks.cli import main
from tasks.commands import doctor
from tests.support.registry import write_model

ROOT = Path(__file__).parents[4]
DVC = """
stages:
  a:
    cmd: echo
    deps: [code.py]
    outs:
      - data
      - report.json: {cache: false}
    metrics:
      - numbers.json: {cache: false}
"""
LISTING = "fedcba9876543210fedcba9876543210.dir"
FILE = "5d41402abc4b2a76b9719d911017c592"  # of b"hello"
LOCK = f"""schema: '2.0'
stages:
  a:
    cmd: echo
    deps:
    - path: code.py
      hash: md5
      md5: {FILE}
      size: 5
    outs:
    - path: data
      hash: md5
      md5: {LISTING}
      size: 5
      nfiles: 1
    - path: numbers.json
      hash: md5
      md5: {FILE}
      size: 5
    - path: report.json
      hash: md5
      md5: {FILE}
      size: 5
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A tree with the record of one stage, whose folder `data` with one file is in the cache."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(DVC)
    Path("dvc.lock").write_text(LOCK)
    listing = json.dumps([{"md5": FILE, "relpath": "one.txt"}]).encode()
    for digest, content in ((LISTING, listing), (FILE, b"hello")):
        place = tmp_path / "cache/files/md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
    return tmp_path / "cache"


def the_only(findings):
    (one,) = findings
    return one


# ---- DVC's record ---------------------------------------------------------------------------


def test_a_record_as_dvc_writes_it_is_fine(cache):
    assert list(_dvc_record.check_lock_files(Path())) == []
    assert list(_dvc_record.check_cache(Path(), cache, deep=False)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOCK.replace("    cmd", "<<<<<<< ours\n    cmd", 1), "the marks of a merge that was not"),
        (LOCK[: LOCK.index("md5: fedc") + 12], "'fedcba9' in it is no digest"),
        (LOCK[: LOCK.index("    - path: report.json")], "stage a has no report.json in it, as if"),
        (LOCK[: LOCK.index("ges:\n")], "it cannot be read ("),
        ("", "it cannot be read (TypeError), as if it was cut off"),
        (LOCK.replace("outs:", "outs: 'x"), "it cannot be read (ScannerError), as if"),
        (LOCK.replace(FILE, "edited by hand"), "'edited by hand' in it is no digest"),
    ],
    ids=["merge", "in a digest", "between outs", "at the top", "empty", "no YAML", "by hand"],
)
def test_a_damaged_lock_file_is_named_with_the_way_back(text, said, cache):
    Path("dvc.lock").write_text(text)
    one = the_only(_dvc_record.check_lock_files(Path()))
    assert said in one.what
    assert one.where == Path("dvc.lock")
    assert one.now.startswith("`git checkout dvc.lock` brings the committed one back; or delete")
    assert list(_dvc_record.check_cache(Path(), cache, deep=True)) == []  # nothing to go by


def test_a_stage_that_never_ran_and_a_tree_that_never_ran_are_fine(cache):
    Path("dvc.yaml").write_text(DVC + "  b:\n    cmd: echo\n    outs: [more]\n")
    assert list(_dvc_record.check_lock_files(Path())) == []
    Path("dvc.lock").unlink()
    assert list(_dvc_record.check_lock_files(Path())) == []
    assert list(_dvc_record.check_cache(Path(), cache, deep=True)) == []


def test_what_the_cache_has_lost_is_named_by_file(cache):
    lost = cache / "files/md5" / FILE[:2] / FILE[2:]
    lost.unlink()
    one = the_only(_dvc_record.check_cache(Path(), cache, deep=False))
    assert one.what == "the cache does not have data/one.txt, from stage a"
    assert one.where == lost
    assert one.now.startswith("`dvc fetch`, if a remote has it; else run its stage again")


def test_a_flipped_bit_in_the_cache_is_found_by_reading(cache):
    damaged = cache / "files/md5" / FILE[:2] / FILE[2:]
    damaged.write_bytes(b"hellp")
    assert list(_dvc_record.check_cache(Path(), cache, deep=False)) == []
    listing, one = _dvc_record.check_cache(Path(), cache, deep=True)
    assert listing.what.startswith("data, from stage a, is damaged")  # its name is made up here
    assert one.what.startswith("data/one.txt, from stage a, is damaged in the cache; DVC would")
    assert one.now.startswith(f"`rm -f {damaged}`, then `dvc fetch`")


def test_a_torn_listing_hides_no_error(cache):
    place = cache / "files/md5" / LISTING[:2] / LISTING[2:]
    place.write_bytes(b'[{"md5": ')
    assert the_only(_dvc_record.check_cache(Path(), cache, deep=True)).where == place


# ---- locks ----------------------------------------------------------------------------------


def rwlock(tmp_path, content):
    (tmp_path / "rwlock").write_text(content)
    return list(doctor.check_rwlock(tmp_path))


def entry(pid):
    info = {"pid": pid, "cmd": "dvc repro"}
    return json.dumps({"/tree/data": {"write": info, "read": [info]}})


def ended_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_torn_rwlock_may_be_deleted_when_no_dvc_runs(tmp_path):
    one = the_only(rwlock(tmp_path, entry(1)[:-9]))
    assert one.what.startswith('DVC wrote it only in part: every command fails with "RWLock-file')
    assert one.now == f"`rm {tmp_path / 'rwlock'}`; no DVC runs here"


def test_a_torn_rwlock_is_waited_for_while_dvc_runs(tmp_path):
    with (tmp_path / "lock").open("w"):
        one = the_only(rwlock(tmp_path, "[]"))
    assert one.now.startswith(f"wait for process {os.getpid()}, which runs DVC here; then `rm ")


def test_processes_in_the_rwlock_are_told_apart_by_whether_they_live(tmp_path):
    gone = the_only(rwlock(tmp_path, entry(pid := ended_process())))
    assert gone.what == f"it names processes that are gone: {pid} (dvc repro)"
    assert gone.now.startswith("nothing, DVC removes them itself")
    alive = the_only(rwlock(tmp_path, entry(os.getpid())))
    assert alive.what == f"DVC runs here: {os.getpid()} (dvc repro); others have to wait"
    assert rwlock(tmp_path, "{}") == []
    (tmp_path / "rwlock").unlink()
    assert list(doctor.check_rwlock(tmp_path)) == []


def test_whoever_holds_the_lock_of_a_training_is_named(tmp_path):
    """An orphan inherits the lock, so the process that is written in it may be long gone."""
    lock = tmp_path / "train.lock"
    lock.write_text("process 1 (gone)")
    assert list(doctor.check_training_locks(tmp_path)) == []
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one = the_only(doctor.check_training_locks(tmp_path))
    assert one.what.startswith(f"a training writes here: process {os.getpid()} (")
    assert one.now.endswith(f"end it: `kill {os.getpid()}`")


# ---- the rest -------------------------------------------------------------------------------


def test_a_damaged_model_is_found_with_the_words_of_its_check(tmp_path):
    model = write_model(tmp_path / "model")
    assert list(doctor.check_model(model)) == []
    (model / "model.safetensors").write_bytes(b"flipped")
    one = the_only(doctor.check_model(model))
    assert one.what.endswith("its manifest.json describes; changed: model.safetensors")
    assert one.now.startswith("Remove it, then restore it with `dvc checkout")


def test_a_damaged_store_is_never_to_be_deleted(tmp_path):
    database = tmp_path / "mlflow.db"
    assert list(doctor.check_store(database)) == []
    with closing(sqlite3.connect(database)) as store:
        store.execute("create table runs (name)")
        store.commit()
    assert list(doctor.check_store(database)) == []
    database.write_bytes(b"no database at all" * 100)
    one = the_only(doctor.check_store(database))
    assert one.what == "sqlite says of it: file is not a database"
    assert "do not delete it" in one.now


def test_packages_that_are_not_as_locked_and_the_trap_of_prefect_are_named(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    assert list(doctor.check_packages(lock)) == []
    lock.write_text("pydantic==0.1\n")
    one = the_only(doctor.check_packages(lock))
    assert one.what.startswith("1 package(s) are not as locked: pydantic ")
    # A later fastapi, as the package's own record would have it.
    record = tmp_path / "site/fastapi-0.151.2.dist-info/METADATA"
    record.parent.mkdir(parents=True)
    record.write_text("Metadata-Version: 2.1\nName: fastapi\nVersion: 0.151.2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    trap = list(doctor.check_packages(lock))[1]
    assert trap.what.startswith("fastapi 0.151.2: the server of Prefect 3.8 fails with it")


def test_a_tree_without_a_commit_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "no model could be traced" in the_only(doctor.check_git()).what
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install git" in the_only(doctor.check_git()).now


def test_too_little_room_for_a_training_is_found(tmp_path):
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(params.replace("data/sample/tiny-ovis2_5", "base"))
    Path("base").mkdir()
    assert list(doctor.check_disk(tmp_path)) == []
    with Path("base/model.safetensors").open("wb") as file:
        file.truncate(2**40)  # takes no room itself
    one = the_only(doctor.check_disk(tmp_path))
    assert one.what.endswith("GB are free; a training of base may need 10995.1 GB")
    assert "docs/operations.md, `Disk is full`" in one.now


def test_the_command_tells_and_its_exit_code_says_whether_something_was_found(capsys):
    Path("dvc.lock").write_text("")
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{Path.cwd()}\n  this is not a git repository with a commit, so no")
    assert (
        "dvc.lock\n  it cannot be read (TypeError), as if it was cut off; DVC would stop" in said
    )
    assert "`dvc cache dir` failed: " in said
    assert "params.yaml is missing; run from the repository root\n  now: correct it" in said
    assert said.endswith("4 finding(s); `--deep` also reads the files of the cache\n")
