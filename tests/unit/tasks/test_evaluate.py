"""The step as DVC runs it: reports on disk, and the same numbers on the model's MLflow run."""

import json
import shutil

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.evaluation.scores import EvaluationReport
from ovis_model.model_folder import read_inputs_digest
from tasks import evaluate
from tasks._mlflow import find_run_id, setup
from tasks._registry import MlflowRegistry
from tasks.artifacts import (
    EVALUATE_HTML,
    EVALUATE_REPORT,
    EVALUATE_SCORES,
    EXTRACTED,
    KEPT_MODELS,
    MODEL,
    PARAMS,
    PREDICTIONS,
)
from tasks.commands import evaluations
from tasks.params import Params
from tests.support.raw_data import sample
from tests.support.tiny_model import build_tiny_checkpoint

SECTIONS = {
    "validate": {"raw_data": "raw"},
    "extract": {},
    "train": {"ovis_pretrained_path": "base"},
    "evaluate": {"benchmarks": "benchmarks", "thinking_budget": 2, "max_new_tokens": 32},
    "register": {},
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A working tree with two checkpoints and a benchmark of one item."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    build_tiny_checkpoint(tmp_path / "base", seed=1)
    build_tiny_checkpoint(tmp_path / MODEL)
    (MODEL / "lineage.json").write_text('{"inputs_digest": "abc"}', encoding="utf-8")
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    item = {"id": "a", "image": ["a.png"], "question": "<image>\nWhich digit?", "answer": "7"}
    header = {"name": "digits", "version": 1, "items": "digits.jsonl", "metric": "exact"}
    (folder / "digits.jsonl").write_text(json.dumps(item), encoding="utf-8")
    (folder / "digits.yaml").write_text(yaml.safe_dump(header), encoding="utf-8")
    extracted = tmp_path / EXTRACTED
    extracted.mkdir(parents=True)
    learned = json.dumps(sample("s", "Which digit comes after 6?", "7"))
    (extracted / "train.jsonl").write_text(learned + "\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SECTIONS), encoding="utf-8")
    return tmp_path


def test_the_step_leaves_its_reports_and_tells_the_tracker(world):
    evaluate.run(Params.read())
    report = EvaluationReport.read(EVALUATE_REPORT)
    assert report.benchmarks["digits"].num_items == 1
    assert EVALUATE_HTML.is_file()
    written = sorted(
        path.relative_to(PREDICTIONS).as_posix() for path in PREDICTIONS.rglob("*.js*")
    )
    assert written == [
        "base/digits.jsonl",
        "base/run.json",
        "tuned/digits.jsonl",
        "tuned/run.json",
    ]
    assert find_run_id("abc") is not None
    table = EVALUATE_SCORES.read_text(encoding="utf-8").splitlines()
    assert table[0] == "name,score,interval_low,interval_high"
    assert [line.split(",")[0] for line in table[1:]] == ["digits base", "digits tuned"]


def test_the_champion_of_the_registry_is_asked_if_its_files_are_here(world, monkeypatch):
    kept = build_tiny_checkpoint(KEPT_MODELS / "ovis2_5" / "d1", seed=3)
    registry = MlflowRegistry("ovis2_5")
    (kept / "lineage.json").write_text('{"inputs_digest": "abc"}', encoding="utf-8")
    tags = {"ovis.model_digest": "d1", "ovis.inputs_digest": "abc"}
    client = MlflowClient(tracking_uri=setup())
    client.create_registered_model("ovis2_5")
    made = client.create_model_version("ovis2_5", kept.resolve().as_uri(), tags=tags)
    registry.move_alias("champion", int(made.version))
    found = evaluate.find_models(Params.read())
    assert found.champion == kept
    assert evaluations.find_model("champion", PARAMS) == kept
    with pytest.raises(ConfigError, match="no version of ovis2_5 is the previous"):
        evaluations.find_model("previous", PARAMS)
    shutil.rmtree(kept)
    with pytest.raises(ConfigError, match="the files of ovis2_5 version 1 are not in"):
        evaluations.find_model("champion", PARAMS)
    found = evaluate.find_models(Params.read())
    assert found.champion is None
    assert found.champion_note == f"the files of version 1 are not in {kept}"


def test_a_model_that_does_not_say_what_it_is_made_from_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"run `dvc repro train`"):
        read_inputs_digest(tmp_path)
