"""A Prefect server for flows started here: the user's, one that runs already, or a new one.

Imports no Prefect: the address must be in the environment before Prefect reads it.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from ovis_model.errors import ConfigError, StageError, UnavailableError
from ovis_model.reports import write_text
from tasks import _processes
from tasks._launch import free_port
from tasks._nodes import LOOPBACK
from tasks.artifacts import PREFECT_HOME

#: Where a server started here says how to reach it.
RECORD = PREFECT_HOME / "server.json"
LOG = PREFECT_HOME / "server.log"
START_SECONDS = 90.0
PROBE_SECONDS = 2.0
#: How often a server that the user names is asked before it counts as down.
PROBES = 3


@contextmanager
def server() -> Iterator[str]:
    """Provide a server's address, in PREFECT_API_URL too; a server started here ends here.

    Raises:
        ConfigError: If PREFECT_API_URL is no address.
        UnavailableError: If PREFECT_API_URL names a server that does not answer.
        StageError: If a server cannot be started.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        _check(named)
    if named and not any(map(is_there, [named] * PROBES)):
        raise UnavailableError(
            f"the Prefect server {named}, which PREFECT_API_URL names, does not answer. Start it, "
            "or unset PREFECT_API_URL to use one of this working tree; `dvc repro` runs the "
            "same pipeline without Prefect"
        )
    given = named or _running()
    if given:
        os.environ["PREFECT_API_URL"] = given
        yield given
        return
    with _started() as url:
        os.environ["PREFECT_API_URL"] = url
        try:
            yield url
        finally:
            del os.environ["PREFECT_API_URL"]


def _running() -> str | None:
    """Return the address of the server that was started here and still answers."""
    try:
        url = str(json.loads(RECORD.read_text(encoding="utf-8"))["url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return url if is_healthy(url) else None


def _check(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        good = False
    if not good or any(map(str.isspace, url)):
        raise ConfigError(
            f"PREFECT_API_URL={url!r} is no address of a server; one is http://127.0.0.1:4200/api"
        )


def is_healthy(url: str) -> bool:
    """Ask a server without a login whether it is ready."""
    return _status_of(url) == 200


def is_there(url: str) -> bool:
    """Ask whether a server answers at all: one that wants a login first says no to us, and lives.

    What it wants is between Prefect and it (PREFECT_API_KEY).  From 500 on, it is a proxy that
    speaks, or a server that cannot work.
    """
    status = _status_of(url)
    return status is not None and status < 500


def _status_of(url: str) -> int | None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=PROBE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException):
        return None


@contextmanager
def _started() -> Iterator[str]:
    PREFECT_HOME.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://{LOOPBACK}:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", LOOPBACK, "--port", str(port), "--analytics-off"]
    with (
        LOG.open("wb") as log,
        subprocess.Popen(
            _processes.tied(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait_until_ready(process, url)
            write_text(RECORD, json.dumps({"url": url, "pid": process.pid}) + "\n")
            yield url
        finally:
            RECORD.unlink(missing_ok=True)
            _processes.end_group(process)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(url):
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            how = "is not ready" if code is None else _processes.describe_exit(code)
            tail = _processes.last_lines([LOG.read_bytes()])
            raise StageError(f"the local Prefect server {how}. Its last lines:\n{tail}")
        time.sleep(_processes.POLL_SECONDS)
