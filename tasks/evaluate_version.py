"""Score a version that is registered already, on the benchmarks of now."""

import sys

from prefect import task
from prefect.logging import get_run_logger

from ovis_model.errors import PromotionError
from ovis_model.evaluation.run_summary import RunSummary
from tasks import _processes
from tasks._dvc import Lines
from tasks.commands.evaluations import RUNS, SUMMARY
from tasks.commands.promotions import open_registry
from tasks.masking import masked
from tasks.operations import Operations


@task(name="evaluate-version")
def evaluate_version(name: str) -> RunSummary:
    """Ask a version the benchmarks, into a folder of its own and onto the run that trained it.

    The reports of the pipeline stay as they are.  Questions that were answered before, by the
    same version and with the same settings, are not asked again.

    Args:
        name: A version's number, or an alias.

    Raises:
        ConfigError: If there is no such version here.
        PromotionError: If there is no such version at all.
        StageError: If it cannot be evaluated.
    """
    # Imported here: mlflow takes seconds.
    from tasks._mlflow import INPUTS_DIGEST  # noqa: PLC0415
    from tasks.tracking.runs import log_results  # noqa: PLC0415

    registry, _ = open_registry()
    version = int(name) if name.isdigit() else registry.version_at(name)
    if version is None:
        raise PromotionError(f"no version is the {name}; `ovis promotions` says where they are")
    out = RUNS / f"version-{version}"
    log = get_run_logger()
    lines = Lines(lambda line: log.info("%s", masked(line)))
    # A process of its own, which ends with this one: a flow has no use for torch.
    _processes.run(
        [sys.executable, "-m", "tasks.cli", "eval", "run", str(version), "--out", str(out)],
        on_output=lines.feed,
        limit_seconds=Operations.read().timeouts.evaluate * 3600,
    )
    lines.flush()
    summary = RunSummary.read(out / SUMMARY)
    scores = {f"version.{name}": one.score for name, one in summary.benchmarks.items()}
    inputs = registry.tags_of(version)[INPUTS_DIGEST]
    log_results(inputs, scores, (out,))
    return summary
