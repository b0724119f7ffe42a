"""Where a training writes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Destination:
    """Files and folders of one training.

    Attributes:
        output: The finished model folder; appears whole or not at all.
        resume: Checkpoints of exactly these inputs; removed after success.
        metrics_log: JSON lines, written while training runs.
        loss_csv: The loss curve, written at the end.
        metrics_before: File with the lines of earlier stages, which come first in the log.
        xray: Page that tells what was learned and what moved, written at the end.
        xray_tables: File that keeps its tables for a later stage, or None.
        xray_before: The file of the stage before.
        title: What the page calls this training.
        steps_before: Steps of earlier stages; the log counts on from there.
    """

    output: Path
    resume: Path
    metrics_log: Path
    loss_csv: Path
    metrics_before: Path | None = None
    steps_before: int = 0
    xray: Path | None = None
    xray_tables: Path | None = None
    xray_before: Path | None = None
    title: str = "training"


def samples_beside(metrics_log: Path) -> Path:
    """Return the file for what the model answers while it is trained."""
    return metrics_log.with_suffix(".samples.jsonl")
