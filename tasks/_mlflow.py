"""The one place that imports mlflow: the store, its runs, and what is wrong with it.

What is written to runs is in tasks/tracking, the registry in _registry.py.  By default
everything lives under `.mlflow/` next to params.yaml; `MLFLOW_TRACKING_URI` moves it.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

# Read when mlflow is imported.  MLflow compares DO_NOT_TRACK with the word "true".
os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["DO_NOT_TRACK"] = os.environ.get("DO_NOT_TRACK", "true")
# Files are copied where a person reads a sentence, not a bar.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Not the user's to choose: nothing that is registered here executes code when it is read.
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunStatus, RunTag
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from sqlalchemy.exc import SQLAlchemyError

from ovis_model.errors import ConfigError, UnavailableError
from tasks._store import REGISTRY_LOCK, SETUP_LOCK, database_lock
from tasks.artifacts import MLFLOW_HOME
from tasks.masking import masked
from tasks.tracking.facts import git_tags

# What begins with a capital or is MLflow's is for other files of this package.
__all__ = [
    "BaseMetricsMonitor",
    "CPUMonitor",
    "Dataset",
    "DatasetInput",
    "DiskMonitor",
    "GPUMonitor",
    "InputTag",
    "Metric",
    "MlflowClient",
    "MlflowException",
    "ModelVersion",
    "NetworkMonitor",
    "Param",
    "PythonModel",
    "PythonModelContext",
    "RegisteredModel",
    "Run",
    "RunStatus",
    "RunTag",
    "find_run_id",
    "mlflow",
    "set_model",
    "setup",
]

EXPERIMENT = "ovis2_5"
INPUTS_DIGEST = "ovis.inputs_digest"
DATABASE = "mlflow.db"
TRACKING_URI = "MLFLOW_TRACKING_URI"
#: MLflow's own name, too: where the files of runs and versions are, if no server decides.
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
#: A server that does not take a connection within this time is down.
CONNECT_SECONDS = 5.0
#: How long to wait for others that make a database ready.
SETUP_SECONDS = 30.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
#: MLflow's own settings: how long a request may take, in seconds, and how often it is repeated.
IMPATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
#: What a store says that may say something else a moment later.
PASSING = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL_ERROR",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
}
#: What it says of one request that it will never take.
REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "MALFORMED_REQUEST",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
DAMAGED = "It is damaged. Put a copy back, or move it away to begin a new one; nothing was deleted"
#: What a database says that waiting does not cure, and what does.
DAMAGE = {
    "malformed": DAMAGED,
    "not a database": DAMAGED,
    "readonly database": "It cannot be written to: see to the rights of file and folder",
    "unable to open database": "See to the rights of its folder",
    "out-of-date database schema": "Another version of MLflow wrote it. If that was an older one, "
    "make a copy and run `mlflow db upgrade` on it; if a newer one, install that",
    "password authentication failed": f"Correct the login in {TRACKING_URI}",
    "Can't locate revision": "A newer version of MLflow wrote it: install that",
}

_patience = threading.RLock()
logger = logging.getLogger(__name__)
# It logs a traceback of what it also raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class StoreUnavailable(UnavailableError):  # noqa: N818 - a state, which may pass
    """The store does not answer now; it may do so later."""


@contextmanager
def locked(name: str, folder: Path = MLFLOW_HOME) -> Iterator[None]:
    """Hold an exclusive lock among the processes that use a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def store_uri() -> str:
    """Return the address of the store: the user's, or the file in this working tree."""
    return os.environ.get(TRACKING_URI) or f"sqlite:///{(MLFLOW_HOME / DATABASE).resolve()}"


def setup(*, wait_seconds: float = 0.0) -> str:
    """Make the tracking store ready and return its URI.

    MLflow's schema migration crashes when two processes meet on a fresh database, and leaves a
    half-made one behind when it is killed.  So the database is made under a lock, beside its
    place, and renamed into it.

    Args:
        wait_seconds: How long to try again while the store does not answer.

    Raises:
        StoreUnavailable: If the store does not answer.
        ConfigError: If the store that MLFLOW_TRACKING_URI names cannot be used.
    """
    uri = store_uri()
    deadline = time.monotonic() + wait_seconds
    pause = 1.0
    while True:
        try:
            with told(uri):
                _reach(uri)
            with locked("setup"), store_lock(uri, SETUP_LOCK, wait_seconds=SETUP_SECONDS):
                _prepare(uri)
        except StoreUnavailable as error:
            if time.monotonic() + pause > deadline:
                raise
            logger.warning("%s. Trying again in %.0f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)
        else:
            return uri


def _prepare(uri: str) -> None:
    default = uri == f"sqlite:///{(MLFLOW_HOME / DATABASE).resolve()}"
    if default and not (MLFLOW_HOME / DATABASE).exists():
        _create_database()
    with told(uri):
        client = MlflowClient(tracking_uri=uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            client.create_experiment(EXPERIMENT, _artifact_location(uri))


def _reach(uri: str) -> None:
    """Knock at a server's port: MLflow itself tries a database for an hour.

    Raises:
        OSError: If nobody answers.
        ConfigError: If the address cannot be read.
    """
    try:
        place = urlsplit(uri)
        port = place.port or PORTS.get(place.scheme.partition("+")[0])
    except ValueError:
        raise ConfigError(
            f"{TRACKING_URI} is no address. In a user name or password, write # as %23, / as "
            "%2F, ? as %3F, @ as %40 and : as %3A"
        ) from None  # it shows a part of the password
    if place.hostname and port:
        socket.create_connection((place.hostname, port), timeout=CONNECT_SECONDS).close()


@contextmanager
def store_lock(
    uri: str, key: int = REGISTRY_LOCK, *, wait_seconds: float | None = None
) -> Iterator[None]:
    """Hold a lock of the store's database: see `database_lock`.

    Raises:
        StoreUnavailable: If the database does not answer, or the wait was in vain.
        ConfigError: If it cannot be used.
    """
    with ExitStack() as stack:
        with told(uri):  # not what is wrong inside the block
            stack.enter_context(database_lock(uri, key, wait_seconds=wait_seconds))
        yield


@contextmanager
def patient() -> Iterator[None]:
    """Give requests of this thread the time they need, whatever other threads send meanwhile."""
    with _patience:
        yield


@contextmanager
def impatient() -> Iterator[None]:
    """Let requests fail soon and once, as long as the block; what the user exported wins.

    MLflow waits two minutes and tries seven times, also to create a run: if only the answers
    were lost, seven would be there.  What is sent from the spool is tried again from there.
    """
    with _patience:  # MLflow reads the environment, which all threads share
        ours = {name: value for name, value in IMPATIENCE.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                os.environ.pop(name, None)


@contextmanager
def told(uri: str | None = None) -> Iterator[None]:
    """Say in words of ours what the store says is wrong.

    Raises:
        StoreUnavailable: If that may pass.
        ConfigError: If it will not.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise explain(error, uri or store_uri()) from None  # it may show who logs in


def explain(error: Exception, uri: str) -> ConfigError:
    """Say what is wrong with a store, whether that may pass, and what to do."""
    what = masked(f"the MLflow store {uri} cannot be used: {_first_line(error)}")
    for words, advice in DAMAGE.items():
        if words in str(error):
            return ConfigError(f"{what}. {advice}")
    if "database is locked" in str(error):
        return StoreUnavailable(
            f"{what}. Another process holds it; `fuser {uri.removeprefix('sqlite:///')}` names it"
        )
    what += f". Start it, or unset {TRACKING_URI} to use the one in {MLFLOW_HOME}/"
    return StoreUnavailable(what) if may_pass(error, uri) else ConfigError(what)


def may_pass(error: Exception, uri: str) -> bool:
    """Say whether waiting may help."""
    if not isinstance(error, MlflowException):
        return True  # no connection, or none to the database
    if uri.startswith("sqlite"):
        return bool(error.error_code == "TEMPORARILY_UNAVAILABLE")
    return error.error_code in PASSING


def _first_line(error: Exception) -> str:
    """Return what an error says, without the SQL and the advice to programmers around it."""
    lines = str(error).strip().splitlines()
    return next((line for line in lines if not line.startswith("(raised as a result")), "")


def _artifact_location(uri: str) -> str | None:
    """Return where a new experiment keeps its files; a server decides for itself."""
    if uri.startswith(("http://", "https://")):
        return None
    if os.environ.get(ARTIFACT_ROOT):
        return os.environ[ARTIFACT_ROOT]
    return (MLFLOW_HOME / "artifacts").resolve().as_uri()


def _create_database() -> None:
    partial = MLFLOW_HOME / f"{DATABASE}.partial"
    partial.unlink(missing_ok=True)
    uri = f"sqlite:///{partial.resolve()}"
    MlflowClient(tracking_uri=uri).create_experiment(EXPERIMENT, _artifact_location(uri))
    partial.replace(MLFLOW_HOME / DATABASE)


def find_run_id(inputs_digest: str) -> str | None:
    """Return the newest run of these inputs, or None if this store has not seen them."""
    run = find_run(MlflowClient(tracking_uri=setup()), inputs_digest)
    return run.info.run_id if run else None


def experiment_id(client: MlflowClient) -> str:
    """Return the id of this project's experiment."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None, "setup() creates the experiment"
    return str(experiment.experiment_id)


def find_run(client: MlflowClient, value: str, *, tag: str = INPUTS_DIGEST) -> Run | None:
    """Return the newest run with a tag, by default the one of these inputs."""
    found = client.search_runs(
        [experiment_id(client)],
        f"tags.`{tag}` = '{value}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return found[0] if found else None


def create_run(client: MlflowClient, name: str, tags: Mapping[str, str]) -> Run:
    """Start a run of this project's experiment that knows its commit."""
    return client.create_run(experiment_id(client), tags={**git_tags(), **tags}, run_name=name)


def run_of(client: MlflowClient, inputs_digest: str) -> Run:
    """Find the run of a training; where it ran elsewhere, a finished one takes its place."""
    with locked("runs"):
        run = find_run(client, inputs_digest)
        if run is None:
            name = f"trained-elsewhere-{inputs_digest[:8]}"
            run = create_run(client, name, {INPUTS_DIGEST: inputs_digest})
            client.set_terminated(run.info.run_id)
    return run


@contextmanager
def as_default_store(uri: str) -> Iterator[None]:
    """Make a store the default one for a while.

    MLflow also writes its default into the environment, where it would pass for the user's wish.
    """
    exported = os.environ.get(TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # its way to forget
        if exported is not None:
            os.environ[TRACKING_URI] = exported
