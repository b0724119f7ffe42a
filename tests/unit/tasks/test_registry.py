"""Promotions in a real MLflow store; making its schema takes seconds, so there is one."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from ovis_model.errors import PromotionError
from ovis_model.model_folder import verify_model_folder
from ovis_model.promotion import promote, recover
from ovis_model.registry import (
    BASE_DIGEST,
    DATA_DIGEST,
    INPUTS_DIGEST,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    VERDICT,
    VERDICT_KEY,
)
from ovis_model.reports import sha256_of_file
from tasks._account import account
from tasks._mlflow import run_of
from tasks._registry import MlflowRegistry
from tasks.artifacts import KEPT_MODELS, NOTIFICATIONS
from tasks.cli import main
from tasks.commands.lineage import keep_sample_list
from tests.support.registry import write_model
from tests.support.training_world import text_sample, write_extracted

ROOT = Path(__file__).parents[3]
PROMOTERS = 32


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working tree whose registry has three versions: 2 passed against 1, 3 was refused."""
    folder = tmp_path_factory.mktemp("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copy(ROOT / "params.yaml", folder)
        add_versions("ovis2_5", ("passed", 0), ("passed", 1), ("refused", 1))
    return folder


@pytest.fixture(autouse=True)
def _in_a_working_tree(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("GITHUB_ACTOR", "octavia")


def add_versions(name, *verdicts):
    """Enter versions as `register` leaves them, but without what makes them answer."""
    registry = MlflowRegistry(name)
    registry._create()
    for number, (verdict, against) in enumerate(verdicts, start=1):
        model = write_model(Path("model"), f"{name} {number}".encode())
        digest = verify_model_folder(model)
        shutil.copytree(model, KEPT_MODELS / name / digest, dirs_exist_ok=True)
        tags = {MODEL_DIGEST: digest, INPUTS_DIGEST: "1" * 64, VERDICT: verdict}
        tags |= {JUDGED_AGAINST: str(against), VERDICT_KEY: "k" * 64}
        run = run_of(registry._client, tags[INPUTS_DIGEST])
        registry._client.create_model_version(
            name, f"s3://models/{digest}", tags=tags, run_id=run.info.run_id
        )
    return registry


def aliases(registry):
    return {a: registry.version_at(a) for a in ("champion", "previous")}


def test_a_name_without_versions_is_empty():
    registry = MlflowRegistry("nothing-here")
    assert registry.find_version("ovis.model_digest", "d") is None
    assert registry.version_at("champion") is None
    assert registry.fetch_log() is None


def test_a_promotion_and_a_rollback_from_the_command_line(home, capsys):
    registry = MlflowRegistry("ovis2_5")
    assert main(["promote", "1"]) == 0
    assert main(["promote", "2", "--expect", "1", "--reason", "reads receipts"]) == 0
    said = capsys.readouterr().out
    assert "octavia  promote: previous nowhere -> 1, champion 1 -> 2\n" in said
    assert "    reads receipts (verdict kkkkkkkkkkkk)\n" in said
    assert main(["promote", "2"]) == 0
    assert "version 2 is the champion already" in capsys.readouterr().out
    assert main(["rollback", "--reason", "too slow"]) == 0
    assert "rollback: champion 2 -> 1, previous 1 -> nowhere" in capsys.readouterr().out
    assert aliases(registry) == {"champion": 1, "previous": None}

    assert main(["promote", "3"]) == 1
    assert "ovis promote: version 3 was refused by the gate" in capsys.readouterr().err
    assert main(["promote", "3", "--force"]) == 2
    assert "--force needs a reason" in capsys.readouterr().err
    assert main(["promote", "3", "--force", "--reason", "a drill"]) == 0
    assert "promote by force: previous nowhere -> 1, champion 1 -> 3" in capsys.readouterr().out
    assert registry.tags_of(3)["ovis.forced"] == "a drill"
    assert registry.versions_with("ovis.forced") == [3]
    assert main(["promote", "99"]) == 1
    assert "ovis2_5 has no version 99; `make ui`" in capsys.readouterr().err

    assert main(["promotions"]) == 0
    said = capsys.readouterr().out
    assert said.count("octavia") == 4
    assert "8 lines in " in said
    told = [json.loads(line) for line in (home / NOTIFICATIONS).read_text("utf-8").splitlines()]
    assert [line["kind"] for line in told] == ["promoted", "promoted", "rolled_back", "promoted"]
    assert told[-1]["facts"]["forced"] is True
    assert said.endswith("none changed\nchallenger nowhere, champion 3, previous 1\n")

    registry.move_alias("champion", 2)  # as one does on MLflow's pages
    assert main(["promotions"]) == 1
    assert "champion is at 2, but the log left it at 3" in capsys.readouterr().err

    log = home / ".mlflow" / "promotions" / "ovis2_5.jsonl"
    log.write_bytes(log.read_bytes().replace(b"a drill", b"a whim!"))
    assert main(["promotions"]) == 1
    assert f"{log}, line 7, was edited" in capsys.readouterr().err
    assert main(["rollback"]) == 1
    assert "Put the file back from a copy" in capsys.readouterr().err
    assert main(["promotions", "--restart", "--reason", "edited by mistake"]) == 0
    assert "restart: no alias moved" in capsys.readouterr().out
    assert main(["rollback"]) == 0


def test_32_promoters_at_once_lose_nothing():
    registry = add_versions("contested", *[("passed", 0)] * PROMOTERS)
    files, versions = KEPT_MODELS / "contested", range(1, PROMOTERS + 1)

    def first(version):
        """Promote it if there is no champion yet, and return what was said to that."""
        try:
            promote(MlflowRegistry("contested"), version, files=files, expected=0)
        except PromotionError as error:
            return str(error)
        return None

    def force(version):
        promote(
            MlflowRegistry("contested"), version, files=files, force=True, reason=f"race {version}"
        )

    with ThreadPoolExecutor(PROMOTERS) as pool:
        said = list(pool.map(first, versions))
        assert said.count(None) == 1
        winner = said.index(None) + 1
        complaint = f"the champion is version {winner}, not no version as expected: somebody else"
        assert sum(complaint in (one or "") for one in said) == PROMOTERS - 1
        list(pool.map(force, [version for version in versions if version != winner]))
    with registry.lock():
        done = [entry for entry in recover(registry) if entry.event == "done"]
    champions = [(move.before, move.after) for entry in done for move in entry.moves[-1:]]
    assert sorted(after for _, after in champions) == list(versions)
    assert [before for before, _ in champions] == [None, *(after for _, after in champions[:-1])]
    assert aliases(registry) == {"champion": champions[-1][1], "previous": champions[-1][0]}


def test_the_account_is_the_one_a_ci_job_runs_for(monkeypatch):
    monkeypatch.delenv("GITHUB_ACTOR")
    assert account()
    monkeypatch.setenv("GITLAB_USER_LOGIN", "gil")
    assert account() == "gil"


@pytest.fixture
def extracted(home):
    """Data as the extract step leaves it: samples `a` and `b` to learn from, `c` held out."""
    folder = home / "data" / "extracted"

    def write(*train):
        named = [[{**text_sample(0), "id": one} for one in ids] for ids in (train, ("c",))]
        write_extracted(folder, *named)
        return sha256_of_file(folder / "manifest.json")

    return write


def test_lineage_is_told_of_a_version_and_of_a_sample(extracted, home, capsys, caplog):
    registry = MlflowRegistry("ovis2_5")
    extracted_folder = home / "data" / "extracted"
    registry.set_tags(1, {DATA_DIGEST: extracted("a", "b")})
    keep_sample_list(registry, 1, extracted_folder)
    before = registry.tags_of(1)
    keep_sample_list(registry, 1, extracted_folder)
    assert registry.tags_of(1) == before
    parent = registry.tags_of(1)[MODEL_DIGEST]
    registry.set_tags(2, {DATA_DIGEST: extracted("a"), BASE_DIGEST: parent})
    keep_sample_list(registry, 2, extracted_folder)
    keep_sample_list(registry, 3, extracted_folder)
    assert "version 3 was not trained on" in caplog.text
    shutil.rmtree(extracted_folder)  # the working tree moves on

    assert main(["lineage", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("ovis2_5 version 2")
    for line in (
        f"  model digest      {registry.tags_of(2)[MODEL_DIGEST]}",
        "  samples           1; asked for one by one: `ovis lineage --sample ID`",
        "  parent            version 1",
        "  gate              passed against version 1",
        "  files             lineage/",
    ):
        assert f"{line}\n" in said
    assert main(["lineage", "--sample", "b"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("version 1")
    assert said.endswith("not known of version 3: no list of samples was kept\n")
    assert "version 2" not in said
    assert main(["lineage", "--sample", "c"]) == 0
    assert "no version is known to have learned from 'c'" in capsys.readouterr().out
    assert main(["lineage"]) == 2
    assert "name a version (`ovis lineage 3`) or a sample" in capsys.readouterr().err


def test_a_forgotten_sample_is_taken_out_and_its_models_are_named(extracted, home, capsys):
    registry = add_versions("forgetful", ("passed", 0))
    registry.set_tags(1, {DATA_DIGEST: extracted("a", "b")})
    keep_sample_list(registry, 1, home / "data" / "extracted")
    raw = home / "raw"
    raw.mkdir()
    lines = [json.dumps({**text_sample(0), "id": one}) + "\n" for one in ("a", "b")]
    (raw / "all.jsonl").write_text("".join(lines), encoding="utf-8")
    text = (home / "params.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    values["validate"] |= {"raw_data": "raw", "annotations": "all.jsonl"}
    values["register"]["model_name"] = "forgetful"
    (home / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        assert main(["forget", "b"]) == 2
        assert "--reason is missing" in capsys.readouterr().err
        assert main(["forget", "z", "--reason", "asked to"]) == 1
        assert "no sample 'z' in raw/all.jsonl" in capsys.readouterr().err
        assert main(["forget", "b", "--reason", "asked to"]) == 0
    finally:
        (home / "params.yaml").write_text(text, encoding="utf-8")
    said = capsys.readouterr().out
    assert said.startswith("raw/all.jsonl: 1 record(s) taken out; see raw/forgotten.jsonl\n")
    assert said.endswith("To train again, because they learned from it:\n  version 1\n")
    assert (raw / "all.jsonl").read_text(encoding="utf-8") == lines[0]
    (entry,) = map(json.loads, (raw / "forgotten.jsonl").read_text("utf-8").splitlines())
    assert (entry["who"], entry["reason"], entry["file"]) == ("octavia", "asked to", "all.jsonl")
    assert entry["after"] == sha256_of_file(raw / "all.jsonl") != entry["before"]
    assert '"b"' not in json.dumps(entry)
