"""The run of a training, and what is put on it later; tasks/tracking/steps.py has the others."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.artifacts import GIT_DIFF_PATCH
from tasks.tracking.facts import git_state
from tasks.tracking.meter import metered
from tasks.tracking.session import RunLogger, Session, closing, current, session

#: On a pipeline run: the id of the training that its model comes from.
TRAINING_RUN = "ovis.training_run"


@contextmanager
def start_or_find_run(
    inputs_digest: str, *, params: Mapping[str, Any] | None = None, name: str = "train"
) -> Iterator[RunLogger]:
    """Open the run of a training: continue an interrupted one, else start one.

    Leaving the block normally marks the run FINISHED; an exception marks it FAILED and Ctrl+C
    KILLED, so that the next attempt continues it.  A finished run stays as it is: training the
    same inputs again on purpose (`dvc repro --force`) makes a second, newer one.

    Args:
        inputs_digest: sha256 of everything the run is computed from.
        params: Logged at once, nested keys joined by dots.
        name: What a person sees in the list of runs.
    """
    with _session(name) as now:
        title = f"{name}-{inputs_digest[:8]}"
        run = now.open(inputs_digest, name=title, how="continue", parent=now.parent)
        run.log_params(params or {})
        log_git_difference(run)
        if now.parent:
            now.parent.link(TRAINING_RUN, run)
        now.start()
        with closing(run), metered(run):
            yield run


def log_results(inputs_digest: str, metrics: Mapping[str, float], reports: Iterable[Path]) -> None:
    """Put results on the run of the model's training, the newest one if there are many.

    Doing so again replaces what was left before: the last value of a metric is the one MLflow
    shows.  A model that was trained elsewhere gets a run for it.

    Args:
        inputs_digest: From the model folder's lineage.json.
        metrics: Numbers under flat names; they go onto the pipeline run too.
        reports: Files and folders to attach.
    """
    with _session("results") as now:
        title = f"trained-elsewhere-{inputs_digest[:8]}"
        run = now.open(inputs_digest, name=title, how="attach")
        run.log_metrics(metrics, once=False)
        for path in reports:
            run.log_artifact(path)
        if now.parent:
            now.parent.log_metrics(metrics, once=False)
            now.parent.link(TRAINING_RUN, run)
        now.start()


@contextmanager
def _session(what: str) -> Iterator[Session]:
    """Give the session of the step that runs, or one for the block."""
    present = current()
    if present:
        yield present
    else:
        with session(what) as new:
            yield new


def log_git_difference(run: RunLogger) -> None:
    """Keep what the working tree has that its commit has not.

    The tags of it are set again: after an edit since the session began they would be of another.
    """
    tags, difference = git_state()
    run.set_tags(tags)
    if difference:
        run.log_text(difference, GIT_DIFF_PATCH)
