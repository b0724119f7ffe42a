"""Sends records to the store, in their order; sending one twice does no harm.

A run is found by the digest of its inputs and by the record that opened it, a metric by name and
step, or by name, step and time.  So a store that took a record and whose answer was lost gets
the same record again, and nothing is there twice.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from tasks._mlflow import (
    INPUTS_DIGEST,
    REFUSALS,
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    MlflowClient,
    MlflowException,
    Param,
    Run,
    RunStatus,
    RunTag,
    experiment_id,
    find_run,
    locked,
    told,
)
from tasks.tracking.attachments import attach
from tasks.tracking.limits import MAX_PARAM, MAX_TAG, cut, taken_name
from tasks.tracking.spool import REFUSED, Record, Spool, keep_refused

#: The record that opened a run.
OPENED_BY = "ovis.opened_by"
PARENT = "mlflow.parentRunId"
#: MLflow refuses longer dataset digests; the whole one goes into a tag of the input.
DATASET_DIGEST_LENGTH = 36
MAX_PER_BATCH = 100
#: Metrics of several steps that travel in one request.
MAX_METRICS = 500

logger = logging.getLogger(__name__)


class Delivery:
    """Sends the records of one process to one store."""

    def __init__(self, client: MlflowClient, spool: Spool, uri: str) -> None:
        self._client = client
        self._spool = spool
        self._uri = uri
        self._steps: dict[str, dict[str, set[int]]] = {}
        self._params: dict[str, dict[str, str]] = {}
        self._points: list[dict[str, Any]] = []
        self._points_of = ""

    def advance(self) -> None:
        """Send what was not sent yet.

        Raises:
            StoreUnavailable: If the store does not answer; what it took is remembered.
            ConfigError: If it will not take anything.
        """
        # What is known of the store may be wrong after a failure.
        self._steps, self._params, self._points = {}, {}, []
        sent = None
        with told(self._uri):
            for end, record in self._spool.pending():
                if not self._joins(record):
                    self._flush(sent)
                self._guard(record, self._take)
                sent = end
                if not self._points:  # else its numbers wait for more
                    self._spool.mark_sent(end)
            self._flush(sent)

    def _joins(self, record: Record) -> bool:
        """Say whether a record travels with the metrics before it."""
        if not self._points:
            return True
        same_run = self._spool.runs.get(record.get("run", "")) == self._points_of
        return record["do"] == "metrics" and same_run and len(self._points) < MAX_METRICS

    def _flush(self, end: int | None) -> None:
        """Send the metrics that were collected."""
        points, self._points = self._points, []
        for start in range(0, len(points), MAX_METRICS):
            part = points[start : start + MAX_METRICS]
            self._guard(
                {"do": "points", "run_id": self._points_of, "points": part}, self._send_points
            )
        if points and end is not None:
            self._spool.mark_sent(end)

    def _send_points(self, record: Record) -> None:
        metrics = [Metric(**point) for point in record["points"]]
        self._client.log_batch(record["run_id"], metrics=metrics)

    def _guard(self, record: Record, action: Callable[[Record], None]) -> None:
        """Put a record aside that the store will never take: the others must not wait for it."""
        try:
            action(record)
        except MlflowException as error:
            # Databases report damage as a bad request.
            if error.error_code not in REFUSALS or "malformed" in str(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            logger.warning("MLflow does not take a record; it is kept in %s: %s", REFUSED, reason)
            if record["do"] == "file":
                record = {**record, "place": self._spool.rescue(record["place"])}
            keep_refused(record, reason)

    def _take(self, record: Record) -> None:
        actions: dict[str, Callable[[Record], None]] = {
            "open": self._open,
            "metrics": self._collect,
            "params": self._log_params,
            "tags": self._log_tags,
            "datasets": self._log_datasets,
            "file": self._log_file,
            "link": self._link,
            "close": self._close,
        }
        actions[record["do"]](record)

    def _open(self, record: Record) -> None:
        """Find the run to write to, or start it."""
        digest = record["run"]
        tags = {key: cut(value, MAX_TAG) for key, value in record["tags"].items()}
        if record["parent"]:
            tags[PARENT] = self._run_id({"run": record["parent"]})
        with locked("runs"):
            run = self._find(record)
            if run is None:
                tags |= {INPUTS_DIGEST: digest, OPENED_BY: record["key"]}
                run = self._client.create_run(
                    experiment_id(self._client),
                    start_time=record["at"],
                    tags=tags,
                    run_name=record["name"],
                )
            elif record["how"] != "attach":
                self._go_on(run, {**tags, OPENED_BY: record["key"]})
            if record["how"] == "attach":
                self._end_attached(run, record)
        self._spool.runs[digest] = run.info.run_id

    def _go_on(self, run: Run, tags: dict[str, str]) -> None:
        self._set_tags(run.info.run_id, tags)
        self._client.update_run(run.info.run_id, status=_name(RunStatus.RUNNING))
        if run.info.status != _name(RunStatus.FINISHED):
            logger.info("continuing the interrupted MLflow run %s", run.info.run_id)

    def _end_attached(self, run: Run, record: Record) -> None:
        """End a run that was made only to hold results, also if an earlier attempt made it."""
        running = run.info.status == _name(RunStatus.RUNNING)
        if running and run.data.tags.get(OPENED_BY) == record["key"]:
            self._client.set_terminated(run.info.run_id, end_time=record["at"])

    def _find(self, record: Record) -> Run | None:
        run = find_run(self._client, record["key"], tag=OPENED_BY)
        if run is None:
            run = find_run(self._client, record["run"])
            finished = run and run.info.status == _name(RunStatus.FINISHED)
            if finished and record["how"] == "continue":
                return None
        return run

    def _collect(self, record: Record) -> None:
        run_id = self._run_id(record)
        self._points_of = run_id
        step, at = record["step"], record["at"]
        known = self._steps_of(run_id) if record["once"] else {}
        for name, value in record["metrics"].items():
            key = taken_name(name)
            if step in known.get(key, ()):
                continue
            if record["once"]:
                known.setdefault(key, set()).add(step)
            self._points.append({"key": key, "value": value, "timestamp": at, "step": step})

    def _steps_of(self, run_id: str) -> dict[str, set[int]]:
        """Return the steps that the store has of each metric of a run."""
        if run_id not in self._steps:
            self._steps[run_id] = {
                key: {one.step for one in self._client.get_metric_history(run_id, key)}
                for key in self._client.get_run(run_id).data.metrics
            }
        return self._steps[run_id]

    def _log_params(self, record: Record) -> None:
        """Log settings; MLflow keeps the first value, a later one becomes a tag.

        A setting can change between two attempts only where it does not change the result (the
        number of workers, say), or it would have changed the digest the run is found by.
        """
        run_id = self._run_id(record)
        if run_id not in self._params:
            self._params[run_id] = dict(self._client.get_run(run_id).data.params)
        known = self._params[run_id]
        flat = {taken_name(key): cut(text, MAX_PARAM) for key, text in record["params"].items()}
        fresh = [Param(key, value) for key, value in flat.items() if key not in known]
        for start in range(0, len(fresh), MAX_PER_BATCH):
            self._client.log_batch(run_id, params=fresh[start : start + MAX_PER_BATCH])
        changed = {key: text for key, text in flat.items() if known.setdefault(key, text) != text}
        self._set_tags(run_id, {f"ovis.resumed_with.{key}": text for key, text in changed.items()})

    def _log_tags(self, record: Record) -> None:
        self._set_tags(self._run_id(record), record["tags"])

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        if tags:
            entries = [RunTag(key, cut(text, MAX_TAG)) for key, text in tags.items()]
            self._client.log_batch(run_id, tags=entries)

    def _log_datasets(self, record: Record) -> None:
        entries = []
        for name, (place, digest) in record["datasets"].items():
            dataset = Dataset(
                name=name,
                digest=digest[:DATASET_DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": place}),
            )
            tags = [InputTag("mlflow.data.context", name), InputTag("ovis.sha256", digest)]
            entries.append(DatasetInput(dataset, tags=tags))
        self._client.log_inputs(self._run_id(record), entries)

    def _log_file(self, record: Record) -> None:
        path = self._spool.folder / record["place"]
        attach(self._client, self._run_id(record), path, record["folder"])

    def _link(self, record: Record) -> None:
        """Put the id of one run on another."""
        self._set_tags(self._run_id(record), {record["tag"]: self._run_id({"run": record["to"]})})

    def _close(self, record: Record) -> None:
        run_id = self._run_id(record)
        self._client.set_terminated(run_id, record["status"], end_time=record["at"])

    def kill_open_runs(self) -> None:
        """Mark as killed what a dead process left open, unless another one goes on with it."""
        opened: dict[str, Record] = {}
        last = 0
        for record in self._spool.all():
            last = record["at"]
            if record["do"] == "open" and record["how"] != "attach":
                opened[record["run"]] = record
            elif record["do"] == "close":
                opened.pop(record["run"], None)
        with told(self._uri):
            for record in opened.values():
                killed = {"status": _name(RunStatus.KILLED), "at": last}
                self._guard({**record, **killed, "do": "kill"}, self._kill)

    def _kill(self, record: Record) -> None:
        run = self._client.get_run(self._run_id(record))
        if run.data.tags.get(OPENED_BY) == record["key"]:
            self._client.set_terminated(run.info.run_id, record["status"], end_time=record["at"])

    def _run_id(self, record: Record) -> str:
        run_id = self._spool.runs.get(record["run"])
        if run_id is None:
            raise MlflowException.invalid_parameter_value("the run it belongs to was not taken")
        return run_id


def _name(status: int) -> str:
    return str(RunStatus.to_string(status))
