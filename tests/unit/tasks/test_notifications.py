"""Everybody who wants to know is told the same, and no address can hold up or break the sender."""

import json
import logging
from pathlib import Path

import pytest

from tasks.artifacts import NOTIFICATIONS
from tasks.cli import main
from tasks.environment import FLOW_RUN
from tasks.notifications import MAX_TEXT, notify
from tests.support.message_sink import SECRET_PATH, receiving


@pytest.fixture
def sink(tmp_path, monkeypatch):
    """An address that both channels post to, from a working tree of its own."""
    monkeypatch.chdir(tmp_path)
    configure()
    with receiving() as sink:
        monkeypatch.setenv("OVIS_WEBHOOK", sink.address)
        yield sink


def configure(**notify):
    settings = {"project": "digits", "seconds": 20, **notify}
    Path("operations.yaml").write_text(json.dumps({"notify": settings}), encoding="utf-8")


def lines_of_the_file():
    return [json.loads(line) for line in NOTIFICATIONS.read_text("utf-8").splitlines()]


def test_log_file_webhook_and_slack_say_the_same(sink, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OVIS_SLACK_WEBHOOK", sink.address)
    monkeypatch.setenv("GITHUB_ACTOR", "octavia")
    notify("promoted", "version 3 is the champion", "the gate let it pass", {"version": 3})
    (line,) = lines_of_the_file()
    assert line["kind"] == "promoted"
    assert line["project"] == "digits"
    assert line["facts"]["version"] == 3
    assert line["facts"]["who"] == "octavia"
    assert line["facts"]["where"]
    assert line["time"].endswith("+00:00")
    bodies = [body for _, body in sink.received]
    assert line in bodies
    (slack,) = [body["text"] for body in bodies if body != line]
    assert len(bodies) == 2
    for said in (slack, caplog.text):
        for part in ("promoted", "version 3 is the champion", "the gate let it pass", "octavia"):
            assert part in said


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("error", "127.0.0.1 answered 500"),
        ("web_page", "127.0.0.1 answered with a web page"),
        ("redirect", "127.0.0.1 answered 302"),
        ("silent", "127.0.0.1: no answer within 0.2 s"),
    ],
)
def test_an_address_that_misbehaves_is_harmless_and_named_by_its_host(
    sink, behaviour, problem, caplog
):
    configure(seconds=0.2 if behaviour == "silent" else 20)
    sink.behaviour = behaviour
    notify("failure", "train failed", "out of memory")
    told, undelivered = lines_of_the_file()
    assert told["title"] == "train failed"
    assert (undelivered["kind"], undelivered["text"]) == ("undelivered", problem)
    assert undelivered["facts"] == {"channel": "webhook"}
    assert f"webhook was not told of it: {problem}" in caplog.text
    assert [path for path, _ in sink.received] == [SECRET_PATH]
    seen = caplog.text + NOTIFICATIONS.read_text("utf-8")
    assert not [secret for secret in ("do-not-show", "pa55word", "the body") if secret in seen]


def test_an_answer_without_end_is_not_read(sink):
    sink.behaviour = "endless"
    notify("failure", "train failed")
    assert [line["kind"] for line in lines_of_the_file()] == ["failure"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:1/do-not-show", "127.0.0.1: ConnectError"),
        ("do-not-show", "what is no address: UnsupportedProtocol"),
        ("http://127.0.0.1:do-not-show", "127.0.0.1: InvalidURL"),
    ],
)
def test_an_address_that_leads_nowhere_is_harmless(sink, monkeypatch, caplog, address, problem):
    monkeypatch.setenv("OVIS_WEBHOOK", address)
    notify("failure", "train failed")
    assert lines_of_the_file()[1]["text"] == problem
    assert "do-not-show" not in caplog.text


def test_each_channel_tells_the_kinds_it_is_asked_to(sink, caplog):
    configure(webhook={"address": "OVIS_WEBHOOK", "kinds": ["drift"]}, file={"kinds": ["failure"]})
    notify("failure", "train failed")
    notify("drift", "the new pictures are darker")
    assert [line["kind"] for line in lines_of_the_file()] == ["failure"]
    assert [body["kind"] for _, body in sink.received] == ["drift"]


def test_secrets_are_masked_wherever_they_stand(sink, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "correct horse")
    secret = "hf_" + 34 * "x"
    notify("failure", f"no access with {secret}", "for correct horse", {"uri": "s3://k:v@host"})
    (line,) = lines_of_the_file()
    assert line["title"] == "no access with ***"
    assert line["text"] == "for ***"
    assert line["facts"]["uri"] == "s3://***@host"


def test_a_text_cannot_call_a_channel_of_slack(sink, monkeypatch):
    monkeypatch.delenv("OVIS_WEBHOOK")
    monkeypatch.setenv("OVIS_SLACK_WEBHOOK", sink.address)
    notify("failure", "<!channel> & all", "```<https://elsewhere.example|here>")
    ((_, body),) = sink.received
    assert "&lt;!channel&gt; &amp; all" in body["text"]
    assert "<" not in body["text"]
    assert body["text"].count("```") == 2


def test_a_long_text_keeps_its_beginning_and_its_end(sink):
    notify("failure", "train failed", "first " + 4 * MAX_TEXT * "x" + " last")
    text = lines_of_the_file()[0]["text"]
    assert text.startswith("first")
    assert text.endswith("last")
    assert len(text) < MAX_TEXT + 10


def test_any_fact_becomes_json(sink):
    notify("drift", "answers are longer", facts={"p": float("nan"), "where": Path("a"), "n": 1.5})
    facts = lines_of_the_file()[0]["facts"]
    assert (facts["p"], facts["where"], facts["n"]) == ("nan", "a", 1.5)


def test_a_message_of_a_flow_run_names_it(sink, monkeypatch):
    monkeypatch.setenv(FLOW_RUN, "run-7")
    notify("gate_refused", "version 4 was refused")
    assert lines_of_the_file()[0]["facts"]["flow_run"] == "run-7"


def test_settings_that_cannot_be_read_do_not_keep_anybody_from_being_told(sink, caplog):
    Path("operations.yaml").write_text("notify: {logg: {}}\n", encoding="utf-8")
    notify("failure", "train failed")
    assert [body["title"] for _, body in sink.received] == ["train failed"]
    assert "people are told as the defaults say: operations.yaml" in caplog.text


def test_a_file_that_cannot_be_written_is_said_and_harmless(sink, caplog):
    NOTIFICATIONS.parent.write_text("a file where a folder should be", encoding="utf-8")
    notify("failure", "train failed")
    assert "reports/notifications.jsonl was not written" in caplog.text
    assert len(sink.received) == 1


def test_a_try_says_of_each_address_what_became_of_the_message(sink, monkeypatch, capsys):
    assert main(["notify"]) == 0
    assert capsys.readouterr().out == ("webhook  told\nslack    OVIS_SLACK_WEBHOOK is not set\n")
    configure(webhook={"address": "OVIS_WEBHOOK", "kinds": ["drift"]})
    monkeypatch.setenv("OVIS_SLACK_WEBHOOK", sink.address)
    sink.behaviour = "error"
    assert main(["notify"]) == 1
    assert capsys.readouterr().out == (
        "webhook  is not to tell failure\nslack    127.0.0.1 answered 500\n"
    )
