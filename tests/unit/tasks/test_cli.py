"""The `ovis` command: sentences and exit codes."""

import socket

import pytest

from tasks.cli import main


def test_a_taken_port_is_named_with_the_way_to_choose_another(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 cannot be used" in message
    assert f"make ui PORT={port + 1}" in message


def test_a_tracking_server_is_opened_in_the_browser_instead(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["ui", "--port", "0"]) == 2
    assert "open http://127.0.0.1:9 in a browser" in capsys.readouterr().err


def test_status_before_the_first_run_is_a_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 0
    assert capsys.readouterr().out == (
        "nothing is running\n\n"
        "no last run: reports/train.json is missing: the pipeline has not run yet; `make run`\n"
    )


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "usage: ovis" in capsys.readouterr().err
