"""The one place that imports mlflow, and what tracks runs; the registry is in _registry.py.

A training run is found by the digest of its inputs, never by a run id kept in a file, so an
interrupted run is continued instead of doubled and DVC never depends on an id.  By default
everything lives under `.mlflow/` next to params.yaml; `MLFLOW_TRACKING_URI` moves it.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunStatus
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from ovis_model.errors import ConfigError, UnavailableError
from tasks._store import database_lock
from tasks.artifacts import MLFLOW_HOME, TRIGGER_VARIABLE
from tasks.masking import masked

# What begins with a capital or is MLflow's is for _registry.py and _serving.py.
__all__ = [
    "MlflowClient",
    "MlflowException",
    "ModelVersion",
    "PythonModel",
    "PythonModelContext",
    "RegisteredModel",
    "Run",
    "RunLogger",
    "close_runs",
    "find_run_id",
    "flatten",
    "log_results",
    "mlflow",
    "set_model",
    "setup",
    "start_or_find_run",
]

EXPERIMENT = "ovis2_5"
INPUTS_DIGEST = "ovis.inputs_digest"
DATABASE = "mlflow.db"
#: sha256 of `git diff HEAD --binary`, stripped, where tracked files differ from the commit.
GIT_DIFF = "ovis.git_diff"
#: Why the flow ran that trained: a schedule, new data, drift, or what a person said.
TRIGGER = "ovis.trigger"
TRACKING_URI = "MLFLOW_TRACKING_URI"
#: MLflow's own name, too: where the files of runs and versions are, if no server decides.
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
#: MLflow refuses longer dataset digests; the whole one goes into a tag of the input.
DATASET_DIGEST_LENGTH = 36
MAX_PER_BATCH = 100
#: Characters of a metric's name that are sure to be taken; MLflow takes 250.
MAX_METRIC_NAME = 200

logger = logging.getLogger(__name__)


@contextmanager
def locked(name: str, folder: Path = MLFLOW_HOME) -> Iterator[None]:
    """Hold an exclusive lock among the processes that use a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def setup() -> str:
    """Make the tracking store ready and return its URI.

    MLflow's schema migration crashes when two processes meet on a fresh database, and leaves a
    half-made one behind when it is killed.  So the database is made under a lock, beside its
    place, and renamed into it.

    Raises:
        ConfigError: If the store that MLFLOW_TRACKING_URI names cannot be used; an
            `UnavailableError` if it is a server.
    """
    local = f"sqlite:///{(MLFLOW_HOME / DATABASE).resolve()}"
    uri = os.environ.get(TRACKING_URI) or local
    with locked("setup"), database_lock(uri):
        if uri == local and not (MLFLOW_HOME / DATABASE).exists():
            _create_database()
        try:
            client = MlflowClient(tracking_uri=uri)
            if client.get_experiment_by_name(EXPERIMENT) is None:
                client.create_experiment(EXPERIMENT, _artifact_location(uri))
        except MlflowException as error:
            kind = ConfigError if uri.startswith("sqlite") else UnavailableError
            raise kind(
                masked(f"the MLflow store {uri} cannot be used: {error}")
                + f". Start it, or unset {TRACKING_URI} to use the one in {MLFLOW_HOME}/"
            ) from None  # the cause may show who logs in, and how
    return uri


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
    run = _find_run(MlflowClient(tracking_uri=setup()), inputs_digest)
    return run.info.run_id if run else None


def _find_run(client: MlflowClient, inputs_digest: str) -> Run | None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None, "setup() creates the experiment"
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{INPUTS_DIGEST}` = '{inputs_digest}'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return found[0] if found else None


@contextmanager
def start_or_find_run(
    inputs_digest: str, *, params: Mapping[str, Any] | None = None, name: str = "train"
) -> Iterator["RunLogger"]:
    """Open the run of these inputs: continue an interrupted one, else start one.

    Leaving the block normally marks the run FINISHED; an exception marks it FAILED and Ctrl+C
    KILLED, so that the next attempt continues it.  A finished run stays as it is: training the
    same inputs again on purpose (`dvc repro --force`) makes a second, newer one.

    Args:
        inputs_digest: sha256 of everything the run is computed from.
        params: Logged at once, nested keys joined by dots.
        name: What a person sees in the list of runs.
    """
    client = MlflowClient(tracking_uri=setup())
    with locked("runs"):
        run = _find_run(client, inputs_digest)
        if run is None or run.info.status == RunStatus.to_string(RunStatus.FINISHED):
            run = _create_run_of(client, inputs_digest, name)
        else:
            client.update_run(run.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            logger.info("continuing the interrupted MLflow run %s", run.info.run_id)
    log = RunLogger(client, run)
    status = RunStatus.FAILED
    try:
        log.log_params(params or {})
        yield log
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        client.set_terminated(run.info.run_id, RunStatus.to_string(status))


def create_run(client: MlflowClient, name: str, tags: Mapping[str, str]) -> Run:
    """Start a run of this project's experiment that knows its commit."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None, "setup() creates the experiment"
    trigger = os.environ.get(TRIGGER_VARIABLE)
    tags = {**tags, **_git_tags(), **({TRIGGER: trigger} if trigger else {})}
    return client.create_run(experiment.experiment_id, tags=tags, run_name=name)


def _create_run_of(client: MlflowClient, inputs_digest: str, name: str) -> Run:
    return create_run(client, f"{name}-{inputs_digest[:8]}", {INPUTS_DIGEST: inputs_digest})


def _git_tags() -> dict[str, str]:
    """Say which commit runs, and whether tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"ovis.git_dirty": "unknown"}
    tags = {"mlflow.source.git.commit": commit, "ovis.git_dirty": "false"}
    if _git("status", "--porcelain", "--untracked-files=no"):
        difference = _git("diff", "HEAD", "--binary", "--no-ext-diff") or ""
        digest = hashlib.sha256(difference.encode()).hexdigest()
        tags |= {"ovis.git_dirty": "true", GIT_DIFF: digest}
    return tags


def _git(*arguments: str) -> str | None:
    """Run git here; None where there is no git, no repository or no commit yet."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def close_runs(run_ids: Iterable[str]) -> None:
    """Mark runs as KILLED whose process is gone, unless they have ended after all.

    Raises:
        ConfigError: If the store cannot be used.
        MlflowException: If it does not answer.
    """
    client = MlflowClient(tracking_uri=setup())
    for run_id in run_ids:
        if client.get_run(run_id).info.status == RunStatus.to_string(RunStatus.RUNNING):
            client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))


class RunLogger:
    """Writes to one MLflow run; what an interrupted attempt already wrote is not repeated."""

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self.run_id: str = run.info.run_id
        self._client = client
        self._params: dict[str, str] = dict(run.data.params)
        self._last_steps = {
            key: max(point.step for point in client.get_metric_history(self.run_id, key))
            for key in run.data.metrics
        }

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step, leaving out those already there from before a resume."""
        fresh = {k: v for k, v in metrics.items() if self._last_steps.get(k, -1) < step}
        _log_metrics(self._client, self.run_id, fresh, step)
        self._last_steps.update(dict.fromkeys(fresh, step))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; MLflow keeps the first value, a later one becomes a tag.

        A setting can change between two attempts only where it does not change the result (the
        number of workers, say), or it would have changed the digest the run is found by.
        """
        flat = flatten(params)
        fresh = [Param(key, value) for key, value in flat.items() if key not in self._params]
        for start in range(0, len(fresh), MAX_PER_BATCH):
            self._client.log_batch(self.run_id, params=fresh[start : start + MAX_PER_BATCH])
        for key, value in flat.items():
            if self._params.setdefault(key, value) != value:
                self.set_tag(f"ovis.resumed_with.{key}", value)

    def log_dataset_digest(self, name: str, digest: str, *, source: Path | None = None) -> None:
        """Record which data went in, by digest; the data itself is DVC's to keep."""
        place = str((source or Path(name)).resolve())
        dataset = Dataset(
            name=name,
            digest=digest[:DATASET_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": place}),
        )
        tags = [InputTag("mlflow.data.context", name), InputTag("ovis.sha256", digest)]
        entry = DatasetInput(dataset, tags=tags)
        self._client.log_inputs(self.run_id, [entry])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or the files of a directory, onto the run."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def set_tag(self, key: str, value: str) -> None:
        """Set or replace a tag."""
        self._client.set_tag(self.run_id, key, value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Join nested keys by dots and turn values into text, as MLflow wants its parameters.

    Example:
        >>> flatten({"gate": {"margin": 1.0}, "seed": 0, "names": ["a", "b"]})
        {'gate.margin': '1.0', 'seed': '0', 'names': '["a", "b"]'}
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple | dict):
            flat[f"{prefix}{key}"] = json.dumps(value)
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def log_results(inputs_digest: str, metrics: Mapping[str, float], reports: Iterable[Path]) -> None:
    """Put results on the run of the model's training, the newest one if there are many.

    Doing so again replaces what was left before: the last value of a metric is the one MLflow
    shows.

    Args:
        inputs_digest: From the model folder's lineage.json.
        metrics: Numbers under flat names.
        reports: Files and folders to attach.
    """
    client = MlflowClient(tracking_uri=setup())
    run = run_of(client, inputs_digest)
    _log_metrics(client, run.info.run_id, metrics, step=0)
    log = RunLogger(client, run)
    for path in reports:
        log.log_artifact(path)


def _log_metrics(
    client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int
) -> None:
    now = time.time_ns() // 1_000_000  # ms
    points = [
        Metric(metric_name(name), float(value), now, step) for name, value in metrics.items()
    ]
    for start in range(0, len(points), MAX_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + MAX_PER_BATCH])


def metric_name(name: str) -> str:
    """Write a name as MLflow takes it: data call their sources what they like.

    A changed name ends with a digest of the right one, so that two names stay two.

    Example:
        >>> metric_name("loss/web-pages"), metric_name("loss/web+pages")
        ('loss/web-pages', 'loss/web_pages-793d8b48')
    """
    parts = [re.sub(r"[^\w. :-]", "_", part) for part in name.split("/")]
    taken = "/".join("_" if part in ("", ".", "..") else part for part in parts)
    if taken == name and len(name) <= MAX_METRIC_NAME:
        return name
    return f"{taken[:MAX_METRIC_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def run_of(client: MlflowClient, inputs_digest: str) -> Run:
    """Find the run of a training; where it ran elsewhere, a finished one takes its place."""
    run = _find_run(client, inputs_digest)
    if run is None:
        run = _create_run_of(client, inputs_digest, "trained-elsewhere")
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
