"""A registry that other machines share: MLflow on PostgreSQL and S3, all three real servers.

Another machine is another working folder here, without the files that were registered.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import mlflow
import pytest
import yaml

from ovis_model.config import RegisterConfig
from ovis_model.errors import CheckpointError, ConfigError, PromotionError
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.model_folder import verify_model_folder
from ovis_model.promotion import promote, recover, rollback
from ovis_model.promotion_log import Change
from ovis_model.registration import register
from ovis_model.registry import MODEL_DIGEST
from tasks import _mlflow, evaluate
from tasks._mlflow import StoreUnavailable
from tasks._registry import CARD, EXAMPLE, MAX_DESCRIPTION, MlflowRegistry
from tasks._serving import read_image
from tasks._store import SETUP_LOCK, database_lock
from tasks._version_files import UPLOADED_BYTES
from tasks.artifacts import KEPT_MODELS
from tasks.masking import is_secret_name
from tasks.params import Params
from tests.support.registry import write_evaluation, write_manifest, write_model
from tests.support.stores import (
    BUCKET,
    COMPOSE,
    PASSWORD,
    S3_LOGIN,
    mlflow_on_postgresql_and_s3,
    plain,
    run_tool,
)
from tests.support.tiny_model import build_tiny_checkpoint

ROOT = Path(__file__).parents[3]
NAME = "ovis2_5"
FILES = KEPT_MODELS / NAME
PROMOTERS = 8
#: One of the promoters at once: they agree on when by waiting for a file.
PROMOTER = """
import sys, threading, time
from pathlib import Path
from ovis_model.promotion import promote
from tasks._registry import MlflowRegistry
registries = [MlflowRegistry("ovis2_5") for _ in range({count})]
Path("ready").touch()
while not Path("../go").exists():
    time.sleep(0.01)
threads = [
    threading.Thread(target=promote, args=(registry, version), kwargs=dict(
        files=Path("../kept"), force=True, reason="race"))
    for version, registry in enumerate(registries, start={first})
]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with mlflow_on_postgresql_and_s3(tmp_path_factory.mktemp("stores")) as running:
        yield running


def test_the_containers_answer_this_machine_only_and_hold_no_secret():
    containers = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    services = containers["services"]
    assert [port for one in services.values() for port in one.get("ports", ())] == [
        "127.0.0.1:5000:5000"
    ]
    variables = [pair for one in services.values() for pair in one["environment"].items()]
    secret = [value for name, value in variables if is_secret_name(name)]
    assert len(secret) == 2
    assert "://mlflow:${POSTGRES_PASSWORD:?" in dict(variables)["MLFLOW_BACKEND_STORE_URI"]
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for value in secret)
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    installed = re.findall(r"\S+==\S+", services["mlflow"]["command"][-1])
    assert len(installed) == 3
    assert set(installed) <= set(locked)
    used = {volume.partition(":")[0] for volume in services["database"]["volumes"]}
    assert used == set(containers["volumes"])


def register_a_model(folder, seed, tuned):
    """Run the register step on a tiny model."""
    shutil.rmtree("model", ignore_errors=True)
    build_tiny_checkpoint(Path("model"), seed=seed)
    lineage = {"inputs_digest": str(seed) * 64}
    Path("model/lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    model, registry = write_manifest(Path("model")), MlflowRegistry(NAME)
    champion = registry.version_at("champion")
    rival = champion and (registry.tags_of(champion)[MODEL_DIGEST], {"ocr": 50})
    write_evaluation(Path(), model, champion=rival, ocr=tuned)
    return register(
        RegisterConfig(model_name=NAME),
        model=model,
        evaluation=Path("evaluate.json"),
        predictions=Path("predictions"),
        training=Path("train.json"),
        kept_models=KEPT_MODELS,
        card=Path("card.md"),
        judgement=Path("gate.json"),
        registry=registry,
    )


@pytest.fixture(scope="module")
def trained_here(stores, tmp_path_factory):
    """The machine that trained both versions; 2 is champion, 1 is previous."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", stores.server)
        for seed, tuned in ((1, 90), (2, 95)):
            report = register_a_model(folder, seed, tuned)
            assert (report.version, report.champion) == (seed, seed)
    return folder


@pytest.fixture
def elsewhere(trained_here, stores, tmp_path, monkeypatch):
    """Another machine, which has the address of the server and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.server)
    registry = MlflowRegistry(NAME)
    if (registry.version_at("champion"), registry.version_at("previous")) != (2, 1):
        for version in (1, 2):  # what a test before has left
            promote(registry, version, files=FILES, force=True, reason="as it was")
    return registry


def test_another_machine_loads_the_champion_and_it_answers_as_it_did(
    elsewhere, trained_here, stores
):
    question = {**EXAMPLE[0], "max_new_tokens": 4}
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    assert loaded.metadata.signature.inputs is not None
    (answer,) = loaded.predict([question])
    here = Ovis25Inference(trained_here / "model", device="cpu", local_files_only=True)
    direct = here.single_image_inference(
        read_image(question["image"]),
        question["question"],
        do_sample=False,
        enable_thinking=False,
        max_new_tokens=4,
    )
    assert answer == {"answer": direct.answer, "thinking": direct.thinking}
    assert direct.answer
    tags = elsewhere.tags_of(2)
    kept = f"artifacts/{tags[MODEL_DIGEST]}/model.safetensors"
    assert stores.bucket.keys(kept)
    assert int(tags[UPLOADED_BYTES]) > len(stores.bucket.read(stores.bucket.keys(kept)[0]))
    assert not stores.bucket.keys(".pkl")


def test_another_machine_promotes_and_rolls_back_without_the_files(elsewhere):
    assert not FILES.exists()
    rollback(elsewhere, files=FILES, reason="answers too long", expected=2)
    assert elsewhere.version_at("champion") == 1
    promote(elsewhere, 2, files=FILES, force=True, reason="a drill", expected=1)
    assert (elsewhere.version_at("champion"), elsewhere.version_at("previous")) == (2, 1)
    with elsewhere.lock():
        done = [entry.action for entry in recover(elsewhere) if entry.event == "done"]
    assert done[:2] == ["register", "register"]
    assert done[-2:] == ["rollback", "promote"]


@pytest.fixture
def kept(elsewhere, stores):
    """Objects of version 1 in the bucket, by file name; put right again afterwards."""
    digest = elsewhere.tags_of(1)[MODEL_DIGEST]
    before = {key: stores.bucket.read(key) for key in stores.bucket.keys() if digest in key}  # noqa: SIM118 - no mapping
    yield {key.rpartition("/")[2]: key for key in before}
    for key in stores.bucket.keys():  # noqa: SIM118 - no mapping
        if digest in key and key not in before:
            stores.bucket.client.delete_object(Bucket=BUCKET, Key=key)
    for key, data in before.items():
        stores.bucket.write(key, data)


def test_a_flipped_byte_in_the_store_is_found_when_the_version_is_loaded(kept, stores):
    key = kept["model.safetensors"]
    whole = stores.bucket.read(key)
    stores.bucket.write(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"changed: model\.safetensors"):
        mlflow.pyfunc.load_model(f"models:/{NAME}/1")


def test_another_machine_brings_the_champion_s_files_to_ask_it(elsewhere):
    found = evaluate.find_models(Params.read(ROOT / "params.yaml"))
    assert found.champion == FILES / elsewhere.tags_of(2)[MODEL_DIGEST]
    assert verify_model_folder(found.champion) == found.champion.name
    assert [path.name for path in FILES.iterdir()] == [found.champion.name]


def test_files_that_changed_in_the_store_are_not_brought(kept, stores, elsewhere):
    stores.bucket.write(kept["model.safetensors"], b"cut")
    with pytest.raises(PromotionError, match=r"1 cannot be brought here: .* changed: model\.safe"):
        elsewhere.files_of(1)
    assert list(FILES.iterdir()) == []


def test_a_pickle_that_was_smuggled_into_the_store_is_neither_loaded_nor_promoted(
    kept, stores, elsewhere
):
    stores.bucket.write(kept["model.safetensors"].replace("model.safetensors", "x.pkl"), b"\x80")
    with pytest.raises(CheckpointError, match=r"unlisted: x\.pkl; runs code .*: x\.pkl"):
        mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    complaint = r"cannot be the champion: the store has, and nobody registered, x\.pkl\. Delete"
    with pytest.raises(PromotionError, match=complaint):
        rollback(elsewhere, files=FILES)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        pytest.param(("tokenizer.json", None), r"has not tokenizer\.json", id="missing"),
        pytest.param(("model.safetensors", b"cut"), r"bytes of it, and [\d,]+ were", id="cut"),
        pytest.param(("manifest.json", None), "has no manifest", id="no manifest"),
        pytest.param(("manifest.json", b"{"), "cannot be read", id="cut manifest"),
        pytest.param(("manifest.json", b'{"files": {"a": "b"}}'), "another model", id="another's"),
    ],
)
def test_a_version_whose_upload_is_not_whole_does_not_become_champion(
    kept, stores, elsewhere, damage, complaint
):
    name, data = damage
    if data is None:
        stores.bucket.client.delete_object(Bucket=BUCKET, Key=kept[name])
    else:
        stores.bucket.write(kept[name], data)
    with pytest.raises(PromotionError, match=f"version 1 cannot be the champion: .*{complaint}"):
        promote(elsewhere, 1, files=FILES, force=True, reason="a drill")
    assert elsewhere.version_at("champion") == 2


def test_a_long_card_is_cut_in_the_description_and_whole_in_the_version_s_file(elsewhere):
    text = "a long card, " * 1000
    elsewhere.describe(1, text)
    shown = elsewhere._client.get_model_version(NAME, "1").description
    assert len(shown) == MAX_DESCRIPTION
    assert shown.endswith(f"(the rest is in the version's file {CARD})")
    whole = mlflow.artifacts.download_artifacts(f"models:/{NAME}/1/{CARD}")
    assert Path(whole).read_text(encoding="utf-8") == text


def test_eight_promoters_at_once_through_the_server_lose_nothing(elsewhere):
    def swap(_):
        registry = MlflowRegistry(NAME)
        version = 3 - registry.version_at("champion")
        promote(registry, version, files=FILES, force=True, reason="race")

    with ThreadPoolExecutor(PROMOTERS) as pool:
        list(pool.map(swap, range(PROMOTERS)))
    with elsewhere.lock():
        check_that_nothing_was_lost(recover(elsewhere), elsewhere)


def check_that_nothing_was_lost(entries, registry):
    """Every change begins where the one before it ended, and the last one is what is so."""
    done = [entry for entry in entries if entry.event == "done"]
    assert len(done) == len(entries) / 2
    moves = [move for entry in done for move in entry.moves if move.alias == "champion"]
    assert all(one.after == two.before for one, two in pairwise(moves))
    assert registry.version_at("champion") == moves[-1].after
    return moves


def start_promoters(tree, first):
    """Start a machine whose promoters make themselves ready and wait for the file `go`."""
    tree.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", PROMOTER.format(count=PROMOTERS // 2, first=first)],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def _on_the_database_itself(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.direct)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", f"s3://{BUCKET}/direct")
    for name, value in stores.bucket.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_on_the_database_itself")
def test_two_machines_that_use_the_database_itself_wait_for_each_other(stores, tmp_path):
    """Also in making its tables, which MLflow alone does not survive."""
    halves = (1, 1 + PROMOTERS // 2)
    machines = [start_promoters(tmp_path / f"machine-{first}", first) for first in halves]
    registry = MlflowRegistry(NAME)
    registry._create()
    digest = verify_model_folder(write_model(Path("model")))
    shutil.copytree("model", Path("kept", digest))
    for version in range(1, PROMOTERS + 1):
        registry._client.create_model_version(
            NAME, f"s3://{BUCKET}/{version}", tags={MODEL_DIGEST: digest}
        )
    (tmp_path / "go").touch()
    said = "".join(machine.communicate(timeout=120)[0] for machine in machines)
    assert [machine.returncode for machine in machines] == [0, 0], said
    with registry.lock():
        moves = check_that_nothing_was_lost(recover(registry), registry)
    assert sorted(move.after for move in moves) == list(range(1, PROMOTERS + 1))
    assert PASSWORD not in said + run_tool("pg_dump", "--dbname", plain(stores.direct))


@pytest.mark.usefixtures("trained_here")
def test_no_login_is_in_what_the_stores_keep(stores):
    kept = [run_tool("pg_dump", "--dbname", plain(stores.database))]
    kept += [stores.bucket.read(key).decode(errors="replace") for key in stores.bucket.keys()]  # noqa: SIM118 - no mapping
    assert MODEL_DIGEST in kept[0]
    for secret in (PASSWORD, S3_LOGIN["AWS_SECRET_ACCESS_KEY"]):
        assert not [text for text in kept if secret in text]


def test_a_database_that_refuses_is_named_without_the_login(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = stores.direct.replace(PASSWORD, "wrong-made-up-secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
    with pytest.raises(ConfigError, match=r"store postgresql\+psycopg2://\*\*\*@127") as error:
        _mlflow.setup()
    said = "".join(traceback.format_exception(error.value))
    assert "password authentication failed" in said
    assert "wrong-made-up-secret" not in said


def test_a_store_is_made_ready_while_another_machine_registers(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.direct)
    monkeypatch.setattr(_mlflow, "SETUP_SECONDS", 0.2)
    with database_lock(stores.direct):
        _mlflow.setup()
    with (
        database_lock(stores.direct, SETUP_LOCK),
        pytest.raises(StoreUnavailable, match="lock timeout"),
    ):
        _mlflow.setup()


def test_two_machines_at_one_server_in_the_same_moment_are_noticed(
    elsewhere, tmp_path, monkeypatch
):
    """A server keeps no lock for all: the later one hears of it from the log."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    other = MlflowRegistry(NAME)
    with other.lock():
        recover(other)
    other.promotions.append("done", Change("promote", (), None, "forked"))
    monkeypatch.chdir(tmp_path)
    promote(elsewhere, 1, files=FILES, force=True, reason="meanwhile")
    monkeypatch.chdir(tmp_path / "other")
    with other.lock(), pytest.raises(PromotionError, match=r"differ from line \d+ on: two places"):
        recover(other)
