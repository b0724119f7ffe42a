"""What one process says of its runs: written to the spool, and sent while the work goes on."""

import json
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ovis_model.errors import ConfigError, StageStopped
from tasks._mlflow import (
    MlflowClient,
    StoreUnavailable,
    impatient,
    setup,
    store_uri,
)
from tasks._process_identity import process_identity
from tasks.masking import masked, masked_value
from tasks.tracking.delivery import Delivery
from tasks.tracking.facts import PROCESS, environment_tags, git_tags
from tasks.tracking.limits import MAX_PARAM, flatten
from tasks.tracking.replay import reconcile, replay
from tasks.tracking.spool import SPOOL, Spool

#: How often records are sent, and how long a store that does not answer is left alone at first
#: and at most.
SEND_SECONDS, FIRST_PAUSE, LONGEST_PAUSE = 1.0, 2.0, 30.0
SETTINGS = "settings.json"

#: What may go wrong while work that is done is sent; its record stays.
UNSENT = (ConfigError, OSError)

How = Literal["continue", "same", "attach"]

logger = logging.getLogger(__name__)


class Session:
    """The runs that a process writes to, and the thread that sends what it writes."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.parent: RunLogger | None = None
        self._code = git_tags()
        self._environment = {**environment_tags(), PROCESS: process_identity() or ""}
        self._delivery: Delivery | None = None
        self._done, self._sending = threading.Event(), threading.Lock()
        self._sender = threading.Thread(target=self._send, name="tracking", daemon=True)

    def open(
        self,
        digest: str,
        *,
        name: str,
        how: How,
        parent: "RunLogger | None" = None,
        tags: Mapping[str, str] | None = None,
    ) -> "RunLogger":
        """Say which run is written to.

        Args:
            digest: Of its inputs: it is found by it.
            name: What a person sees in the list of runs, if it is new.
            how: Go on with one that was not finished ("continue"), or with one of any kind
                ("same"), else start one; or only find it ("attach"), whatever becomes of it.
            parent: The run that it is listed under.
            tags: In addition to commit, environment and process.
        """
        run = RunLogger(self, digest)
        facts = self._code if how == "attach" else {**self._code, **self._environment}
        self.spool.append(
            {
                "do": "open",
                "run": digest,
                "name": name,
                "how": how,
                "parent": parent.digest if parent else None,
                "tags": _masked({**facts, **(tags or {})}),
                "key": uuid.uuid4().hex,
                "store": masked(store_uri()),
            }
        )
        return run

    def start(self, *, wait_seconds: float = 0.0) -> None:
        """Send what was said so far and what earlier processes left, then go on in a thread.

        Called again, it sends what was said since.

        Args:
            wait_seconds: How long to wait for a store that is needed; 0 is for one that is not.

        Raises:
            ConfigError: If the store cannot be used, or was waited for in vain.
        """
        if self._sender.ident is not None:
            self._send_now()
            return
        try:
            self._deliver(wait_seconds)
        except StoreUnavailable as error:
            if wait_seconds:
                self.spool.remove()
                raise
            logger.warning("%s. Work goes on; its record waits in %s", error, SPOOL)
        except ConfigError:
            self.spool.remove()
            raise
        self._sender.start()

    def _deliver(self, wait_seconds: float = 0.0) -> None:
        with impatient(), self._sending:
            if self._delivery is None:
                uri = setup(wait_seconds=wait_seconds)
                client = MlflowClient(tracking_uri=uri)
                try:
                    replay(client, uri)
                    reconcile(client)
                except UNSENT as error:  # what is wrong with the store, `advance` hears too
                    logger.warning("not all that earlier processes left is sent: %s", error)
                self._delivery = Delivery(client, self.spool, uri)
            self._delivery.advance()

    def _send_now(self) -> bool:
        try:
            self._deliver()
        except UNSENT as error:
            logger.debug("not sent: %s", error)
            return False
        return True

    def _send(self) -> None:
        pause = SEND_SECONDS
        while not self._done.wait(pause):
            sent = self._send_now()
            pause = SEND_SECONDS if sent else min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)

    def finish(self) -> None:
        """Send the rest, once; what the store does not take now stays here."""
        if self._sender.ident is None:
            return  # the work never began
        self._done.set()
        self._sender.join()
        try:
            self._deliver()
        except UNSENT as error:
            logger.warning(
                "%s. %d records wait in %s: the next step sends them, or `ovis sync`",
                error,
                self.spool.count(),
                SPOOL,
            )
            return
        try:
            self.spool.remove()
        except OSError as error:
            logger.warning("%s was sent, but cannot be removed: %s", self.spool.folder, error)


class RunLogger:
    """Writes to one MLflow run; what an interrupted attempt already wrote is not repeated."""

    def __init__(self, session: Session, digest: str) -> None:
        self.digest = digest
        self._session = session

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None as long as the store has not heard of it."""
        return self._session.spool.runs.get(self.digest)

    def _say(self, do: str, **what: Any) -> None:
        self._session.spool.append({"do": do, "run": self.digest, **what})

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, *, once: bool = True
    ) -> None:
        """Log numbers at a step.

        Args:
            metrics: By name.
            step: Where they belong.
            once: Leave out those that are already there, from before a resume; else the newer
                one is shown.
        """
        numbers = {name: float(value) for name, value in metrics.items()}
        self._say("metrics", metrics=numbers, step=step, once=once)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings; of one that is too long the whole is in the file settings.json."""
        flat = {key: masked_value(key, text) for key, text in flatten(params).items()}
        self._say("params", params=flat)
        if any(len(text) > MAX_PARAM for text in flat.values()):
            self.log_text(json.dumps(flat, indent=2) + "\n", SETTINGS)

    def log_dataset_digest(self, name: str, digest: str, *, source: Path | None = None) -> None:
        """Record which data went in, by digest; the data itself is DVC's to keep."""
        place = str((source or Path(name)).resolve())
        self._say("datasets", datasets={name: (place, digest)})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or the files of a directory, onto the run."""
        self._say("file", place=self._session.spool.keep(path), folder=folder)

    def log_text(self, text: str | bytes, name: str) -> None:
        """Put a text onto the run as a file."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            self.log_artifact(path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        self._say("tags", tags=_masked(tags))

    def link(self, tag: str, to: "RunLogger") -> None:
        """Let a tag hold the id of another run."""
        self._say("link", tag=tag, to=to.digest)

    def close(self, status: str) -> None:
        """Say how it ended: FINISHED, FAILED or KILLED."""
        self._say("close", status=status)


def _masked(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: masked(value) for name, value in tags.items()}


_current: ContextVar[Session | None] = ContextVar("session", default=None)


def current() -> Session | None:
    """Return the session of this process, or None outside a step."""
    return _current.get()


@contextmanager
def session(what: str) -> Iterator[Session]:
    """Make a session that is `current()` in the block and ends with it; the caller starts it.

    Args:
        what: Goes into the name of its folder.
    """
    with Spool.begin(what) as spool:
        new = Session(spool)
        token = _current.set(new)
        try:
            yield new
        finally:
            _current.reset(token)
            new.finish()


@contextmanager
def closing(run: RunLogger) -> Iterator[None]:
    """Say how the block ended: an interrupted run is continued by the next attempt."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, StageStopped):
        status = "KILLED"
        raise
    finally:
        run.close(status)
