import json
import os
import subprocess
import sys
from contextlib import contextmanager

import httpx
import mlflow
import pytest

from ovis_model.config import RegisterConfig
from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.model_folder import listed_digest
from ovis_model.registration import register
from ovis_model.registry import MODEL_DIGEST
from tasks import _mlflow
from tasks._launch import free_port
from tasks._registry import EXAMPLE, SERVING, MlflowRegistry
from tasks._serving import read_image
from tests.support.registry import (
    MemoryRegistry,
    write_evaluation,
    write_manifest,
    write_model,
)
from tests.support.stores import serving
from tests.support.tiny_model import build_tiny_checkpoint


class PowerCutError(Exception):
    """What happens to a machine in the middle of a step."""


class FailingRegistry(MemoryRegistry):
    """Loses power at one of its writes, before or after that took effect."""

    def __init__(self, healthy, *, at, after):
        super().__init__(healthy.promotions.path)
        mine = self.promotions
        self.__dict__.update(healthy.__dict__)
        self.promotions, self._append = mine, mine.append
        mine.append = self._append_a_line
        self._healthy = healthy
        self._writes_left = at
        self._after = after

    def _write(self, method, *args, **kwargs):
        self._writes_left -= 1
        dying = self._writes_left == 0
        if dying and not self._after:
            raise PowerCutError
        result = method(*args, **kwargs)
        if dying:
            raise PowerCutError
        return result

    def _append_a_line(self, *args, **kwargs):
        return self._write(self._append, *args, **kwargs)

    def add_version(self, *args):
        return self._write(super().add_version, *args)

    def move_alias(self, *args):
        return self._write(super().move_alias, *args)

    def set_tags(self, *args):
        return self._write(super().set_tags, *args)

    def describe(self, *args):
        return self._write(super().describe, *args)

    def publish_log(self, head):
        self._write(self._healthy.publish_log, head)
        self.head = head


def step(folder, registry, name="ovis2_5"):
    """Run the register step on what is in a folder."""
    return register(
        RegisterConfig(model_name=name),
        model=folder / "model",
        evaluation=folder / "evaluate.json",
        predictions=folder / "predictions",
        training=folder / "train.json",
        kept_models=folder / "kept",
        card=folder / "card.md",
        judgement=folder / "gate.json",
        registry=registry,
    )


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("at", range(1, 12), ids=lambda at: f"write {at}")
def test_power_lost_at_any_write_leaves_nothing_that_the_next_run_does_not_finish(
    tmp_path, at, after
):
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    undisturbed = MemoryRegistry(tmp_path / "undisturbed.jsonl")
    first = listed_digest(write_model(tmp_path / "model", b"one"))
    write_evaluation(tmp_path, tmp_path / "model", ocr=80)
    step(tmp_path, registry)
    step(tmp_path, undisturbed)
    model = write_model(tmp_path / "model", b"two")
    write_evaluation(tmp_path, model, champion=(first, {"ocr": 80}), ocr=95)
    step(tmp_path, undisturbed)

    with pytest.raises(PowerCutError):
        step(tmp_path, FailingRegistry(registry, at=at, after=after))
    assert registry.version_at("champion") in (1, 2)
    assert all(registry.places[version].exists() for version in registry.aliases.values())
    step(tmp_path, registry)
    assert registry.versions == undisturbed.versions
    assert (
        registry.aliases == undisturbed.aliases == {"challenger": 2, "champion": 2, "previous": 1}
    )
    entries = registry.promotions.read()
    assert [(one.event, one.change) for one in entries] == [
        ("intent", 1),
        ("done", 1),
        ("intent", 3),
        ("done", 3),
    ]
    assert entries[-1].sha256 == registry.head


def test_a_model_folder_with_a_file_nobody_listed_is_refused(tmp_path):
    write_model(tmp_path / "model")
    write_evaluation(tmp_path, tmp_path / "model", ocr=95)
    (tmp_path / "model" / "modeling_evil.py").write_text("import os", encoding="utf-8")
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    with pytest.raises(CheckpointError, match=r"unlisted: modeling_evil\.py"):
        step(tmp_path, registry)
    assert registry.versions == {}


def test_a_pickle_is_refused_also_where_the_manifest_lists_it(tmp_path):
    (write_model(tmp_path / "model") / "training_args.bin").write_bytes(b"\x80\x04.")
    write_evaluation(tmp_path, write_manifest(tmp_path / "model"), ocr=95)
    with pytest.raises(CheckpointError, match=r"runs code when it is read: training_args\.bin"):
        step(tmp_path, MemoryRegistry(tmp_path / "promotions.jsonl"))


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "changed"])
def test_a_model_folder_with_damaged_weights_is_refused(tmp_path, lost):
    weights = write_model(tmp_path / "model") / "model.safetensors"
    write_evaluation(tmp_path, tmp_path / "model", ocr=95)
    if lost:
        weights.unlink()
    else:
        weights.write_bytes(b"Weights")
    with pytest.raises(CheckpointError, match=r"(missing|changed): model\.safetensors"):
        step(tmp_path, MemoryRegistry(tmp_path / "promotions.jsonl"))


def test_a_manifest_cut_short_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    write_evaluation(tmp_path, model, ocr=95)
    (model / "manifest.json").write_text('{"files": {', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not JSON"):
        step(tmp_path, MemoryRegistry(tmp_path / "promotions.jsonl"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working tree with a real registry that holds a tiny model as champion."""
    folder = tmp_path_factory.mktemp("tree")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        build_tiny_checkpoint(folder / "model")
        lineage = json.dumps({"inputs_digest": "1" * 64})
        (folder / "model" / "lineage.json").write_text(lineage, encoding="utf-8")
        write_manifest(folder / "model")
        write_evaluation(folder, folder / "model", ocr=95)
        step(folder, MlflowRegistry("ovis2_5"))
    return folder


@pytest.fixture
def in_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/.mlflow/mlflow.db")
    return home


def test_the_champion_loads_from_the_registry_and_answers_about_an_image(in_home):
    model = mlflow.pyfunc.load_model("models:/ovis2_5@champion")
    question = {**EXAMPLE[0], "question": "Which digit is this?", "max_new_tokens": 4}
    (answer,) = model.predict([question])
    assert set(answer) == {"answer", "thinking"}
    assert model.predict([question]) == [answer]


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        pytest.param({"image": "x.png"}, "question", id="no question"),
        pytest.param({"question": "?", "imagee": "x.png"}, "imagee", id="unknown field"),
        pytest.param({"question": "?", "image": "absent.png"}, "absent.png", id="no image"),
        pytest.param(
            {"question": "?", "image": "data:image/png;base64,!"}, "not base64", id="no base64"
        ),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(in_home, question, complaint):
    model = mlflow.pyfunc.load_model("models:/ovis2_5@champion")
    with pytest.raises(Exception, match=complaint):
        model.predict([question])


@pytest.fixture(scope="module")
def served(home):
    """The address at which `mlflow models serve` answers with the champion."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", "models:/ovis2_5@champion", "--port", str(port)]
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/.mlflow/mlflow.db",
        "PYTHONPATH": str(SERVING.parents[1]),
    }
    address = f"http://127.0.0.1:{port}"
    with serving(command, home / "serve.log", f"{address}/health", **variables):
        yield address


def ask(address, content):
    return httpx.post(f"{address}/invocations", json=content, timeout=60, trust_env=False)


def test_a_served_champion_answers_as_the_model_itself_does(served, home):
    question = {**EXAMPLE[0], "question": "Which digit is this?", "max_new_tokens": 4}
    reply = ask(served, {"inputs": [question, {"question": "Hello?", "max_new_tokens": 4}]})
    assert reply.status_code == 200
    ovis = Ovis25Inference(home / "model", device="cpu", local_files_only=True)
    direct = ovis.single_image_inference(
        read_image(question["image"]),
        "Which digit is this?",
        do_sample=False,
        enable_thinking=False,
        max_new_tokens=4,
    )
    first, second = reply.json()["predictions"]
    assert first == {"answer": direct.answer, "thinking": direct.thinking}
    assert set(second) == {"answer", "thinking"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param({"inputs": [{"image": "x"}]}, "question", id="no question"),
        pytest.param({"inputs": [{"question": "?", "imagee": "x"}]}, "imagee", id="unknown field"),
        pytest.param({"questions": []}, "inputs", id="no inputs"),
        pytest.param(
            {"inputs": [{"question": "?", "image": "data:image/png;base64,!"}]},
            "not base64",
            id="no base64",
        ),
        pytest.param(
            {"inputs": [{"question": "?", "image": "/etc/hostname"}]},
            "a served model opens no files of its machine; send the image as data:",
            id="a path",
        ),
        pytest.param(
            {"inputs": [{"question": "?", "thinking_budget": 9, "max_new_tokens": 9}]},
            "no room for an answer",
            id="no room",
        ),
    ],
)
def test_a_malformed_request_gets_400_and_is_told_why(served, content, complaint):
    reply = ask(served, content)
    assert reply.status_code == 400
    assert complaint in reply.json()["message"]
    assert "Traceback" not in reply.text


def test_registering_twice_in_mlflow_adds_nothing(in_home):
    registry = MlflowRegistry("ovis2_5")
    before = registry.tags_of(1)
    assert step(in_home, registry).aliases == ["challenger", "champion"]
    assert registry.tags_of(1) == before
    assert registry.find_version(MODEL_DIGEST, before[MODEL_DIGEST]) == 1
    client = _mlflow.MlflowClient()
    assert len(client.search_model_versions("name = 'ovis2_5'")) == 1
    card = (in_home / "card.md").read_text(encoding="utf-8")
    assert client.get_model_version("ovis2_5", "1").description == card


def test_weights_that_changed_after_registration_are_not_loaded(in_home, home):
    (kept,) = (home / "kept" / "ovis2_5").iterdir()
    weights = kept / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(CheckpointError, match=r"changed: model\.safetensors"):
            mlflow.pyfunc.load_model("models:/ovis2_5@champion")
    finally:
        weights.write_bytes(whole)


def test_a_version_whose_files_are_gone_says_how_to_get_them_back(in_home, home):
    kept = home / "kept" / "ovis2_5"
    away = kept.rename(home / "away")
    try:
        with pytest.raises(CheckpointError, match="`dvc checkout` and `dvc repro register`"):
            mlflow.pyfunc.load_model("models:/ovis2_5@champion")
    finally:
        away.rename(kept)


@contextmanager
def another_process(code):
    """Run code beside the block; yields what the process printed, once the block is over."""
    printed = []
    environment = {**os.environ, "PYTHONPATH": str(SERVING.parents[1])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield printed
        printed.append(process.communicate()[0].strip())


def test_two_processes_that_register_the_same_model_add_one_version(in_home):
    with another_process(
        "from pathlib import Path\n"
        "from tasks._registry import MlflowRegistry\n"
        "from tests.faults.test_registry_faults import step\n"
        "print(step(Path(), MlflowRegistry('contested'), 'contested').version)\n"
    ) as printed:
        report = step(in_home, MlflowRegistry("contested"), "contested")
    assert (report.version, printed) == (1, ["1"])


def test_first_runs_that_meet_make_one_schema(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".mlflow").mkdir()
    # As a first run leaves it that was killed.
    (tmp_path / ".mlflow" / "mlflow.db.partial").write_bytes(b"half a database")
    with another_process("from tasks import _mlflow; print(_mlflow.find_run_id('a'))") as printed:
        assert _mlflow.find_run_id("a") is None
    assert printed == ["None"]
    assert [path.name for path in (tmp_path / ".mlflow").glob("*.db*")] == ["mlflow.db"]


def test_a_tracking_server_that_is_down_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"store http://\*\*\*@127\.0\.0\.1:9 cannot") as error:
        _mlflow.setup()
    assert "unset MLFLOW_TRACKING_URI" in str(error.value)
