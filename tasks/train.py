"""Step 3 of 5: fine-tune the base model on data/extracted, live in MLflow."""

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.errors import ConfigError, StageError
from ovis_model.model_folder import MANIFEST
from ovis_model.progress import Progress
from ovis_model.reports import sha256_of_file, sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training.destination import samples_beside
from ovis_model.training.inputs_digest import inputs_digest
from ovis_model.training.micro_batch import all_reductions
from ovis_model.training.report import TrainJob, TrainReport
from tasks import heartbeats
from tasks._dvc import reproduce
from tasks._launch import run_training
from tasks._nodes import Node, this_node
from tasks.artifacts import EXTRACTED, MODEL, RESUME, TRAIN_LOSS, TRAIN_REPORT, TRAIN_XRAY
from tasks.params import Params
from tasks.retries import RETRY

if TYPE_CHECKING:
    from tasks.tracking.session import RunLogger


def run(params: Params) -> None:
    """The step itself; DVC runs it as `python -m tasks train`, on the first machine.

    On every further one the same command helps: it starts processes and writes nothing.
    """
    config, node = params.train, this_node(params.train)
    datasets = dataset_digests(config)
    digest = inputs_digest(config, datasets)
    job = TrainJob(
        config=config.model_dump(mode="json"),
        data=EXTRACTED,
        output=MODEL,
        resume=RESUME / digest,
        # Beside the checkpoints, which training removes when it is done.
        metrics_log=RESUME / f"{digest}.metrics.jsonl",
        report=TRAIN_REPORT,
        loss_csv=TRAIN_LOSS,
        xray=TRAIN_XRAY,
        inputs_digest=digest,
    )
    if node.number:
        _help(job, config, node)
    else:
        sys.stdout.write(node.call_for_others())
        _train(job, config, datasets, node)


def _train(
    job: TrainJob, config: TrainConfig, datasets: dict[str, tuple[Path, str]], node: Node
) -> None:
    """Train, live in MLflow."""
    # Imported here: mlflow takes seconds, which the flow that imports this file need not wait.
    from tasks.tracking.runs import start_or_find_run  # noqa: PLC0415

    job_file = RESUME / f"{job.inputs_digest}.job.json"
    job.write(job_file)
    heartbeats.note_output(job.output)
    with start_or_find_run(job.inputs_digest, params=job.config) as tracked:
        for name, (source, dataset_digest) in datasets.items():
            tracked.log_dataset_digest(name, dataset_digest, source=source)
        until_it_fits(
            job.resume,
            lambda: run_training(
                job_file,
                nproc_per_node=config.nproc_per_node,
                metrics_log=job.metrics_log,
                on_metrics=lambda record: note_metrics(tracked, record),
                lock=RESUME / "train.lock",
                node=node,
            ),
        )
        report = TrainReport.read(TRAIN_REPORT)
        tracked.log_metrics(summary_metrics(report), step=report.steps)
        of_model = (MODEL / "train_config.json", MODEL / MANIFEST)
        for path in (TRAIN_REPORT, TRAIN_LOSS, TRAIN_XRAY, *of_model):
            tracked.log_artifact(path)
        samples = samples_beside(job.metrics_log)
        if samples.exists():
            tracked.log_artifact(samples, folder="samples")
    job_file.unlink()
    for path in (job.metrics_log, samples):
        path.unlink(missing_ok=True)


def note_metrics(tracked: "RunLogger", record: Mapping[str, float]) -> None:
    """Hand on what training says of a step: to the tracker, and to whoever asks what runs."""
    step, steps = int(record["step"]), int(record["steps"])
    metrics = {key: value for key, value in record.items() if key not in ("step", "steps")}
    heartbeats.note_progress(Progress("", step, steps, "step"), metrics)
    tracked.log_metrics(metrics, step=step)


def until_it_fits(resume: Path, attempt: Callable[[], None]) -> None:
    """Try again for as long as a lack of memory was answered with a smaller micro-batch.

    Raises:
        StageError: If an attempt fails for another reason.
    """
    while True:
        before = all_reductions(resume)
        try:
            attempt()
        except StageError:
            if (now := all_reductions(resume)) == before:
                raise
            sys.stdout.write(
                "training goes on from the last checkpoint with per_device_train_batch_size "
                f"{now[-1].per_device_train_batch_size}\n"
            )
        else:
            return


def _help(job: TrainJob, config: TrainConfig, node: Node) -> None:
    """Start this machine's processes; the first machine writes results and record."""
    name = f"{job.inputs_digest}.node{node.number}"
    job_file = RESUME / f"{name}.job.json"
    job.write(job_file)
    until_it_fits(
        job.resume,
        lambda: run_training(
            job_file,
            nproc_per_node=config.nproc_per_node,
            metrics_log=RESUME / f"{name}.metrics.jsonl",  # stays empty
            on_metrics=lambda _: None,
            lock=RESUME / f"train.node{node.number}.lock",
            node=node,
        ),
    )
    job_file.unlink()


def dataset_digests(config: TrainConfig) -> dict[str, tuple[Path, str]]:
    """Return place and sha256 of what a training reads: the samples and the base model.

    Raises:
        ConfigError: If the base model is not a folder here.
    """
    base = Path(config.ovis_pretrained_path)
    if not base.is_dir():
        raise ConfigError(
            f"train.ovis_pretrained_path: there is no folder {str(base)!r}; nothing is "
            "downloaded, so copy the base checkpoint there first"
        )
    return {
        "extracted": (EXTRACTED, sha256_of_file(EXTRACTED / "manifest.json")),
        "base_model": (base, sha256_of_folder(base)),
    }


def summary_metrics(report: TrainReport) -> dict[str, float]:
    """Pick the numbers of a report that are worth comparing between runs."""
    numbers = {
        "train.first_loss": report.first_loss,
        "train.final_loss": report.final_loss,
        "train.tokens": float(report.tokens),
    }
    if report.holdout_loss is not None:
        numbers["train.holdout_loss"] = report.holdout_loss
    return numbers


@task(name="train", **RETRY)
def train(*, force: bool = False, limit_hours: float = math.inf) -> TrainReport:
    """Bring DVC stage `train` up to date and return its report.

    Args:
        force: Whether to train, and do what comes before, even if nothing changed.
        limit_hours: After how long it is ended as one that hangs.
    """
    reproduce("train", get_run_logger(), force=force, limit_hours=limit_hours)
    return TrainReport.read(TRAIN_REPORT)
