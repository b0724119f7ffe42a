"""Several trainings behind each other, each starting from the model of the one before.

    stages:
      - {train_modules: "visual_tokenizer:1e-4"}
      - {train_modules: "visual_tokenizer|vte", learning_rate: 5e-5}
      - {train_modules: all, learning_rate: 2e-5}

A stage has the keys of the train section, some of them with another value.  What it leaves
stands beside the checkpoints until all stages are finished:

    <resume>/stage-1/checkpoints/   while it runs
    <resume>/stage-1/model/         the finished model, in the official layout
    <resume>/stage-1/train.json     its report, written last: from here on it is not run again
    <resume>/stage-1/xray.json      which weights moved in it
    <resume>/stage-1/metrics.jsonl  the metrics so far, its own and those of earlier stages
"""

import csv
import io
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovis_model.errors import ConfigError
from ovis_model.modeling.weight_files import find_tensors
from ovis_model.reports import write_text
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import check_keys
from ovis_model.training.destination import Destination
from ovis_model.training.environment import forget_last_training, is_main_process, wait_for_all
from ovis_model.training.report import StageReport, TrainReport
from ovis_model.training.train_modules import learning_rates

MODEL, REPORT, CURVE, METRICS = "model", "train.json", "train_loss.csv", "metrics.jsonl"
TABLES = "xray.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One training of a sequence, or the only one.

    Attributes:
        config: Its own values; the base model is what the stage before left.
        where: Where it writes.
        recorded: The configuration that is written beside its weights.
        lineage: What lineage.json says besides data and inputs.
    """

    config: TrainConfig
    where: Destination
    recorded: TrainConfig
    lineage: dict[str, Any]


def run_stages(
    config: TrainConfig, where: Destination, train_stage: Callable[[Stage], TrainReport]
) -> TrainReport:
    """Run the stages that are not finished yet; without any, train once.

    Args:
        config: The whole train section.
        where: Where the last stage writes; earlier ones write below its checkpoints.
        train_stage: Trains one stage; called in every process.

    Returns:
        The report of the last stage, with the steps of all and a list of them.

    Raises:
        ConfigError: If a stage, also a later one, cannot be used.
    """
    if not config.stages:
        lineage = {"base_model": config.ovis_pretrained_path}
        return train_stage(Stage(config, where, recorded=config, lineage=lineage))
    configs = config.stage_configs()
    _check(configs)
    folders = [where.resume / f"stage-{number}" for number in range(1, len(configs) + 1)]
    # All processes look before any of them trains, so that all of them agree.
    finished = [(folder / REPORT).is_file() for folder in folders]
    reports: list[TrainReport] = []
    for place, folder in enumerate(folders):
        told = f"stage {place + 1} of {len(folders)}, {config.stages[place]}"
        if finished[place]:
            log.info("%s: finished before", told)
            reports.append(TrainReport.read(folder / REPORT))
        else:
            log.info("%s: begins", told)
            steps = sum(report.steps for report in reports)
            stage = _stage(config, configs[place], where, folders[: place + 1], steps)
            reports.append(_run(stage, folder, train_stage))
    if is_main_process():
        write_text(where.loss_csv, _join_curves(folders, reports))
        shutil.rmtree(where.resume, ignore_errors=True)
    wait_for_all()
    return _join_reports(config, reports)


def _check(configs: Sequence[TrainConfig]) -> None:
    """Find out before the first stage what would stop a later one."""
    names = list(find_tensors(Path(configs[0].ovis_pretrained_path)))
    for number, config in enumerate(configs, start=1):
        try:
            check_keys(config.training_arguments)
            if not config.lora_r:  # adapters have names only once they are there
                learning_rates(names, config)
        except ConfigError as error:
            raise ConfigError(f"stage {number}: {error}") from error


def _stage(
    whole: TrainConfig,
    own: TrainConfig,
    where: Destination,
    folders: Sequence[Path],
    steps_before: int,
) -> Stage:
    """Describe the stage whose folder is the last one."""
    *earlier, folder = folders
    is_last = len(folders) == len(whole.stages)
    base = str(earlier[-1] / MODEL) if earlier else whole.ovis_pretrained_path
    config = own.model_copy(update={"ovis_pretrained_path": base, "model_path": None})
    lineage = {"base_model": whole.ovis_pretrained_path, "stages": whole.stages[: len(folders)]}
    return Stage(
        config,
        Destination(
            output=where.output if is_last else folder / MODEL,
            resume=folder / "checkpoints",
            metrics_log=where.metrics_log,
            loss_csv=folder / CURVE,
            metrics_before=earlier[-1] / METRICS if earlier else None,
            steps_before=steps_before,
            xray=where.xray if is_last else None,
            xray_tables=None if is_last else folder / TABLES,
            xray_before=earlier[-1] / TABLES if earlier else None,
            title=f"stage {len(folders)} of {len(whole.stages)}: {whole.stages[len(earlier)]}",
        ),
        recorded=whole if is_last else config,
        lineage=lineage,
    )


def _run(stage: Stage, folder: Path, train_stage: Callable[[Stage], TrainReport]) -> TrainReport:
    report = train_stage(stage)
    forget_last_training()
    if is_main_process():
        shutil.copyfile(stage.where.metrics_log, folder / METRICS)
        report.write(folder / REPORT)
    wait_for_all()
    return report


def _join_curves(folders: Sequence[Path], reports: Sequence[TrainReport]) -> str:
    """Put the curves behind each other; steps count on."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    before = 0
    for folder, report in zip(folders, reports, strict=True):
        with (folder / CURVE).open(encoding="utf-8", newline="") as file:
            header, *curve = csv.reader(file)
        if not before:
            rows.writerow(header)
        place = header.index("step")
        for row in curve:
            row[place] = str(int(row[place]) + before)
            rows.writerow(row)
        before += report.steps
    return table.getvalue()


def _join_reports(config: TrainConfig, reports: Sequence[TrainReport]) -> TrainReport:
    """Report the last stage, and in it all of them."""
    stages = [
        StageReport(
            changes=changes,
            steps=report.steps,
            epochs=report.epochs,
            first_loss=report.first_loss,
            final_loss=report.final_loss,
            holdout_loss=report.holdout_loss,
            trainable_parameters=report.trainable_parameters,
            modules=report.modules,
        )
        for changes, report in zip(config.stages, reports, strict=True)
    ]
    return reports[-1].model_copy(
        update={
            "steps": sum(stage.steps for stage in stages),
            "epochs": round(sum(stage.epochs for stage in stages), 4),
            "first_loss": stages[0].first_loss,
            "stages": stages,
            "micro_batch_reductions": tuple(
                reduction for report in reports for reduction in report.micro_batch_reductions
            ),
        }
    )
