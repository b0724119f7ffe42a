"""A Prefect server is used where there is one, and one that was started here ends here."""

import json
import os
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows import server as servers
from flows.server import is_healthy, server
from ovis_model.errors import ConfigError, UnavailableError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "PREFECT_HOME", tmp_path)
    monkeypatch.setattr(servers, "RECORD", tmp_path / "server.json")
    monkeypatch.setattr(servers, "LOG", tmp_path / "server.log")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def test_a_server_of_the_users_that_does_not_answer_is_named_and_not_replaced(monkeypatch, place):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    expected = "the Prefect server http://127.0.0.1:9/api, which PREFECT_API_URL names, does not"
    with pytest.raises(UnavailableError, match=expected), server():
        pass
    assert list(place.iterdir()) == []


@contextmanager
def one_that_says(status):
    """A server that answers every question with a status; gives its address."""

    class Says(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Says) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/api"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_a_server_that_wants_a_login_is_used(monkeypatch, status):
    with one_that_says(status) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        with server() as given:
            assert given == url


def test_a_proxy_without_its_server_does_not_answer(monkeypatch):
    with one_that_says(502) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(UnavailableError, match="does not answer"), server():
            pass


@pytest.mark.parametrize(
    "url", ["localhost:4200/api", "http://", "http://here:port/api", "http://a b/api", "api"]
)
def test_what_is_no_address_is_a_mistake_in_the_configuration(monkeypatch, url):
    monkeypatch.setenv("PREFECT_API_URL", url)
    expected = "is no address of a server; one is http"
    with pytest.raises(ConfigError, match=expected) as refused, server():
        pass
    assert not isinstance(refused.value, UnavailableError)


def test_a_started_server_answers_is_found_by_others_and_ends(place):
    with server() as url:
        assert os.environ["PREFECT_API_URL"] == url
        with urllib.request.urlopen(f"{url}/health") as answer:
            assert answer.status == 200
        with server() as given:
            assert given == url
        assert os.environ.pop("PREFECT_API_URL") == url  # as another process sees it
        with server() as reused:
            assert reused == url
        assert is_healthy(url)
    assert not is_healthy(url)
    assert not (place / "server.json").exists()
    assert "PREFECT_API_URL" not in os.environ


@pytest.mark.parametrize("record", ["", "{}", json.dumps({"url": "http://127.0.0.1:9/api"})])
def test_the_record_of_a_server_that_is_gone_is_not_believed(place, record):
    (place / "server.json").write_text(record, encoding="utf-8")
    assert servers._running() is None
