import json
import shutil
from pathlib import Path

import pytest

from ovis_model.config import ExtractConfig
from ovis_model.data.extraction import extract
from ovis_model.registration import RegisterReport
from ovis_model.registry import EVIDENCE
from ovis_model.reports import sha256_of_file
from tasks import register
from tasks._registry import MlflowRegistry
from tasks.artifacts import (
    DATA_CARD,
    EXTRACTED,
    GATE_REPORT,
    KEPT_MODELS,
    MODEL,
    MODEL_CARD,
    NOTIFICATIONS,
    REGISTER_REPORT,
    REPORTS,
    TRAIN_REPORT,
    VALIDATE_REPORT,
)
from tasks.cli import main
from tasks.params import Params
from tests.support.raw_data import sample, write_annotations
from tests.support.registry import write_evaluation, write_manifest
from tests.support.tiny_model import build_tiny_checkpoint
from tests.support.validating import run_validation

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def working_tree(tmp_path, monkeypatch):
    """What the train and the evaluate step leave behind, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(PARAMS, "params.yaml")
    build_tiny_checkpoint(MODEL)
    (MODEL / "lineage.json").write_text(json.dumps({"inputs_digest": "1" * 64}), encoding="utf-8")
    write_manifest(MODEL)
    TRAIN_REPORT.parent.mkdir()
    TRAIN_REPORT.write_text(json.dumps({"samples": 1200}), encoding="utf-8")
    write_annotations(tmp_path / "raw", [sample("s", "Hi?", "Hello.")])
    run_validation(tmp_path).write(VALIDATE_REPORT)
    DATA_CARD.write_text("<title>Data card</title>", encoding="utf-8")
    extract(
        ExtractConfig(workers=1),
        validated=tmp_path / "validated",
        raw_data=tmp_path / "raw",
        output=EXTRACTED,
        store=tmp_path / "store",
    )
    return tmp_path


def told():
    lines = [json.loads(line) for line in NOTIFICATIONS.read_text("utf-8").splitlines()]
    return [(line["kind"], line["title"]) for line in lines]


def test_the_step_registers_once_and_a_refusal_is_no_failure(working_tree, caplog, capsys):
    caplog.set_level("INFO")
    params = Params.read()
    gate = params.register_.gate
    benchmarks = [*gate.min_score, *gate.margins]
    write_evaluation(REPORTS, MODEL, **dict.fromkeys(benchmarks, 20))

    register.run(params)
    refused = REGISTER_REPORT.read_bytes()
    report = RegisterReport.read(REGISTER_REPORT)
    assert (report.version, report.aliases, report.champion) == (1, ["challenger"], None)
    assert "digits_single: 20.0 is under" in report.objections[0]
    assert report.objections[0] in MODEL_CARD.read_text(encoding="utf-8")

    register.run(params)
    assert REGISTER_REPORT.read_bytes() == refused
    assert "nothing added" in caplog.text
    assert told() == [("gate_refused", "the gate refused ovis2_5 version 1")]

    write_evaluation(REPORTS, MODEL, **dict.fromkeys(benchmarks, 99))
    register.run(params)
    report = RegisterReport.read(REGISTER_REPORT)
    assert (report.version, report.promoted, report.champion) == (1, True, 1)
    assert told()[1:] == [("promoted", "ovis2_5 version 1 is the champion")]
    assert "\n1 samples in = 1 ok" in MODEL_CARD.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["gc", "--yes"]) == 0
    assert "kept: the files of version 1, challenger, champion" in capsys.readouterr().out
    assert (KEPT_MODELS / "ovis2_5" / report.model_digest / "model.safetensors").exists()

    registry = MlflowRegistry(params.register_.model_name)
    kept = registry.kept_file(1, GATE_REPORT.name, working_tree / "kept")
    assert kept.read_bytes() == GATE_REPORT.read_bytes()
    assert registry.tags_of(1)[EVIDENCE] == sha256_of_file(kept)
