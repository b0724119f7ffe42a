"""Real stores for tests: PostgreSQL, an S3 server, an MLflow server on both.

Each is a process of this machine on a free port of the loopback interface, and ends with its
block.  The PostgreSQL server refuses to run as root, so there it runs as `postgres` or `nobody`.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml

from tasks._launch import free_port

COMPOSE = Path(__file__).parents[2] / "config/compose.yaml"
BUCKET = "models"
#: What the S3 server takes for a login; made up here.
S3_LOGIN = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "s3-made-up-secret"}
#: Of the database; a test looks for it everywhere else.
PASSWORD = "pg-made-up-secret"
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Bucket:
    """An S3 server and what a client needs to use it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What boto3, DVC and MLflow read."""
        address = {"AWS_ENDPOINT_URL": self.endpoint, "MLFLOW_S3_ENDPOINT_URL": self.endpoint}
        return {**S3_LOGIN, **address, "AWS_DEFAULT_REGION": "us-east-1"}

    @property
    def client(self):
        """A client of the S3 server itself, past everything that is tested."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=S3_LOGIN["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_LOGIN["AWS_SECRET_ACCESS_KEY"],
        )

    def keys(self, end: str = "") -> list[str]:
        """Return the keys of the objects, those that end so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return [key for key in found if key.endswith(end)]

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        """Replace an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)


@contextmanager
def serving(command: list[str], log: Path, url: str, **variables: str) -> Iterator[None]:
    """Keep a server running as long as the block, which begins when the address answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(url, process, log)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, f"{url} does not answer:\n{log.read_text(errors='replace')[-3000:]}"
            time.sleep(0.1)


@contextmanager
def s3_server(folder: Path) -> Iterator[Bucket]:
    """Run an S3 server with one empty bucket."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    bucket = Bucket(f"http://127.0.0.1:{port}")
    with serving(command, folder / "s3.log", f"{bucket.endpoint}/moto-api/"):
        bucket.client.create_bucket(Bucket=BUCKET)
        yield bucket


def postgresql_programs() -> Path:
    """Return the folder with the server's programs; skips the test where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file():
            return folder
    on_path = shutil.which("initdb")
    if on_path is None:
        pytest.skip("no PostgreSQL server is installed here (initdb is missing)")
    return Path(on_path).resolve().parent


def unprivileged() -> int | None:
    """Return the user id to run as, None to stay as one is; skips where neither is possible."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no account postgres or nobody")


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server, and yield its address with the login, but for the database."""
    programs, user = postgresql_programs(), unprivileged()
    # Another user has to get there, and pytest's folders are its own user's only.
    home = Path(tempfile.mkdtemp(prefix="postgresql-"))
    port = free_port()
    try:
        secret = home / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if user is not None:
            for path in (home, secret):
                os.chown(path, user, -1)
        data = home / "data"
        make = [programs / "initdb", "-D", data, "-U", "mlflow", f"--pwfile={secret}"]
        make += ["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(make, user=user, check=True, capture_output=True, cwd=home)
        options = ("fsync=off", "listen_addresses=127.0.0.1", f"port={port}")
        options = (*options, f"unix_socket_directories={home}")
        serve = [str(programs / "postgres"), "-D", str(data)]
        serve += [word for option in options for word in ("-c", option)]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(serve, user=user, cwd=home, stdout=log, stderr=log)
        try:
            _wait_for_postgresql(programs, port)
            yield f"postgresql+psycopg2://mlflow:{PASSWORD}@127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)  # disconnects clients, then ends
            process.wait(30)
    finally:
        shutil.rmtree(home)


def _wait_for_postgresql(programs: Path, port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    ask = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ask, check=False).returncode != 0:
        assert time.monotonic() < deadline, "PostgreSQL does not answer"
        time.sleep(0.1)


@dataclass(frozen=True)
class Stores:
    """An MLflow server that keeps its records in PostgreSQL and its files in a bucket.

    `direct` is the address of another database, which is empty.
    """

    server: str
    database: str
    direct: str
    bucket: Bucket


def run_tool(name: str, *arguments: str) -> str:
    """Run one of PostgreSQL's own programs, and return what it prints."""
    command = [postgresql_programs() / name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def plain(address: str) -> str:
    """Return a database's address as PostgreSQL's own programs take it."""
    return address.replace("+psycopg2", "")


def variables_of(service: str, **values: str) -> dict[str, str]:
    """Return what a service of config/compose.yaml runs with, once its blanks are filled in."""
    declared = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][service]
    return {
        name: re.sub(r"\$\{(\w+):\?[^}]+\}", lambda found: values[found[1]], value)
        for name, value in declared["environment"].items()
    }


@contextmanager
def mlflow_on_postgresql_and_s3(folder: Path) -> Iterator[Stores]:
    """Run all three, the server with what config/compose.yaml gives it."""
    with ExitStack() as stack:
        address = stack.enter_context(postgresql())
        bucket = stack.enter_context(s3_server(folder))
        for name in ("mlflow", "direct"):
            run_tool("createdb", f"--maintenance-db={plain(address)}/postgres", name)
        given = {"POSTGRES_PASSWORD": PASSWORD, "BUCKET": BUCKET, **bucket.environment}
        variables = variables_of("mlflow", **given)
        # Names of containers and all interfaces are for containers.
        place = address.rpartition("@")[2]
        database = variables["MLFLOW_BACKEND_STORE_URI"].replace("@database", f"@{place}")
        variables |= {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_HOST": "127.0.0.1"}
        port = free_port()
        server = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        log = folder / "mlflow.log"
        stack.enter_context(serving(command, log, f"{server}/health", **variables))
        yield Stores(server, database, f"{address}/direct", bucket)
