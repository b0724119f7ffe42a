"""A flow asks a person; silence is no, and who typed a command meanwhile has decided."""

import contextvars
import shutil
import threading
import time

import httpx
import pytest
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)
from pydantic import ValidationError

from flows import approval
from flows import server as servers
from flows.approval import Answer, decide
from ovis_model.model_folder import verify_model_folder
from ovis_model.promotion import reject
from ovis_model.registry import (
    APPROVAL,
    JUDGED_AGAINST,
    MODEL_DIGEST,
    REJECTED,
    VERDICT,
    VERDICT_KEY,
    WAITING,
)
from tests.support.registry import MemoryRegistry, write_model


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry in which version 1 waits."""
    monkeypatch.chdir(tmp_path)
    registry = MemoryRegistry(tmp_path / "promotions.jsonl")
    files = tmp_path / "kept"
    folder = write_model(tmp_path / "model")
    digest = verify_model_folder(folder)
    shutil.move(folder, files / digest)
    tags = {MODEL_DIGEST: digest, VERDICT: "passed", JUDGED_AGAINST: "0", VERDICT_KEY: "key"}
    registry.add_version(files / digest, {**tags, APPROVAL: WAITING})
    monkeypatch.setattr(approval.promotions, "open_registry", lambda: (registry, files))
    return registry


def answer(approve, reason="because"):
    return Answer(approve=approve, name="Octavia", reason=reason)


def operations(hours):
    return f"approval: {{timeout_hours: {hours}}}\n"


def test_a_yes_promotes_and_the_log_says_who_and_why(registry, tmp_path):
    (tmp_path / "operations.yaml").write_text("{}\n", encoding="utf-8")
    said = decide(1, answer(approve=True), verdict="key")
    assert said == "version 1 was approved by Octavia: because"
    assert registry.aliases["champion"] == 1
    last = registry.promotions.read()[-1]
    assert (last.action, last.reason) == ("approve", "Octavia in Prefect's form: because")


def test_whoever_typed_a_command_meanwhile_has_decided(registry):
    reject(registry, 1, reason="it is rude")
    lines = len(registry.promotions.read())
    said = decide(1, answer(approve=True), verdict="key")
    assert said == "version 1 is rejected already; `ovis promotions` says by whom"
    assert (registry.aliases, len(registry.promotions.read())) == ({}, lines)


def test_an_answer_has_a_name_and_a_reason():
    with pytest.raises(ValidationError, match="name"):
        Answer(approve=True, name="", reason="because")
    with pytest.raises(ValidationError, match="reason"):
        answer(approve=True, reason=" ")


def test_an_answer_to_an_older_verdict_decides_nothing(registry):
    said = decide(1, answer(approve=True), verdict="older")
    assert said == (
        "version 1 was judged anew since it was asked for, and waits still; `ovis approve 1` or "
        "`ovis reject 1` decides"
    )
    assert (registry.aliases, registry.tags_of(1)[APPROVAL]) == ({}, WAITING)


@flow
def asks() -> str:
    return approval.ask(1, "**digits** 98.0 %\n")


def test_a_form_is_shown_an_answer_is_taken_and_silence_is_a_no(registry, tmp_path, monkeypatch):
    for name, place in (("PREFECT_HOME", "."), ("RECORD", "server.json"), ("LOG", "server.log")):
        monkeypatch.setattr(servers, name, tmp_path / place)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(approval, "POLL_SECONDS", 0.2)
    config = tmp_path / "operations.yaml"
    config.write_text(operations(0.05), encoding="utf-8")
    # Logs would be sent until this process ends, and the server does not live as long.
    settings = {PREFECT_LOGGING_TO_API_ENABLED: False}
    with servers.server() as url, temporary_settings({**settings, PREFECT_API_URL: url}):
        forms, asked_again, states = [], [], []

        def say_no():
            with httpx.Client(base_url=url, timeout=120) as browser:
                paused = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
                while not (runs := browser.post("/flow_runs/filter", json=paused).json()):
                    time.sleep(0.1)
                run = f"/flow_runs/{runs[0]['id']}"
                keys = runs[0]["state"]["state_details"]["run_input_keyset"]
                forms.append(browser.get(f"{run}/input/{keys['description']}").json())
                # A second run asks no second time, and spaces are no reason.
                asked_again.append(asks())
                blank = {"approve": True, "name": "Octavia", "reason": " "}
                browser.post(f"{run}/resume", json={"run_input": blank})
                states.append(browser.get(run).json()["state"]["type"])
                no = {"approve": False, "name": "Octavia", "reason": "it is rude"}
                browser.post(f"{run}/resume", json={"run_input": no}).raise_for_status()

        # In this context, which names the server.
        run = contextvars.copy_context().run
        person = threading.Thread(target=run, args=(say_no,), daemon=True)
        person.start()
        assert asks() == "version 1 was rejected by Octavia: it is rude"
        person.join()
        assert asked_again == ["version 1 waits still; an earlier run asks for it"]
        assert states == ["PAUSED"]
        assert "May version 1 become champion?" in forms[0]
        assert "**digits** 98.0 %" in forms[0]
        assert registry.tags_of(1)[APPROVAL] == REJECTED

        registry.set_tags(1, {APPROVAL: WAITING})
        config.write_text(operations(0.0003), encoding="utf-8")
        state = asks(return_state=True)
        assert state.is_completed()
        said = "version 1 was rejected by nobody: no answer within 0.0003 hours"
        assert state.result() == said
    assert registry.aliases == {}
    assert registry.promotions.read()[-1].reason.endswith("no answer within 0.0003 hours")
