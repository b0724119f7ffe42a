"""`python -m ovis_model.training FILE.json`, also under torchrun, accelerate and deepspeed.

FILE.json is a job written by the train step, or a train_config.json as the seed has it, with
`data_path`, `image_folder` and `output_dir`.  Two options may stand before it:

    --dump-config   say every value that would be used and which keys decide nothing; no training
    --dry-run       read and encode all data, load the model, make one step, save nothing
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from ovis_model.errors import ConfigError, OutOfMemoryError, OvisError, TrainingStopped
from ovis_model.train_config import TrainConfig
from ovis_model.training import exit_codes
from ovis_model.training.report import TrainJob, TrainReport

USAGE = (
    "usage: python -m ovis_model.training [--dump-config | --dry-run] FILE.json "
    "(a job, or a train_config.json)"
)
DUMP, DRY_RUN = "--dump-config", "--dry-run"


def main(arguments: list[str]) -> int:
    """Train and return the exit code, one of `exit_codes`."""
    # The deepspeed launcher adds --local_rank=N; its environment says the same.
    files = [argument for argument in arguments if not argument.startswith("--local_rank")]
    option = files.pop(0) if files and files[0] in {DUMP, DRY_RUN} else None
    if len(files) != 1 or files[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return exit_codes.MISUSED
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s")
    # torch tells DeepSpeed of new names for its collectives, once per process and step's part.
    for name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
        warnings.filterwarnings("ignore", message=f".*{name}.*", category=FutureWarning)
    try:
        _run(option, read_json_object(Path(files[0])), where=files[0])
    except OvisError as error:
        return _tell(error, arguments)
    except RuntimeError as error:
        return _tell_lost_connection(error)
    except KeyboardInterrupt:
        print("interrupted; run it again to go on from the last checkpoint", file=sys.stderr)
        return exit_codes.INTERRUPTED
    return exit_codes.DONE


def _run(option: str | None, values: dict[str, Any], *, where: str) -> None:
    job = TrainJob.parse(values, where=where) if "config" in values else None
    if option is None and job is not None:
        run_job(job, where=where)
        return
    config = TrainConfig.parse(values if job is None else job.config, where=where)
    if option == DUMP:
        dump_config(config)
    elif option == DRY_RUN:
        run_dry(config, job, where=where)
    else:
        run_standalone(config, where=where)


def dump_config(config: TrainConfig) -> None:
    """Print every value that would be used, and the keys that decide nothing."""
    from ovis_model.training.arguments import check_keys  # noqa: PLC0415
    from ovis_model.training.effective_keys import without_effect  # noqa: PLC0415

    for stage in config.stage_configs():
        check_keys(stage.training_arguments)
    told = {"values": config.model_dump(mode="json"), "without_effect": without_effect(config)}
    print(json.dumps(told, indent=2))


def run_dry(config: TrainConfig, job: TrainJob | None, *, where: str) -> None:
    """Try everything up to the first step."""
    from ovis_model.training.dry_run import dry_run  # noqa: PLC0415
    from ovis_model.training.inputs import read_extracted  # noqa: PLC0415
    from ovis_model.training.standalone import read_inputs  # noqa: PLC0415

    inputs = read_inputs(config, where=where) if job is None else read_extracted(job.data)
    found = dry_run(config, inputs)
    if os.environ.get("RANK", "0") == "0":
        print(found, end="")


def run_job(job: TrainJob, *, where: str) -> None:
    """Train as the pipeline asks."""
    # Imported here: a wrong call is refused before torch is loaded.
    from ovis_model.training.training import train  # noqa: PLC0415

    report = train(
        TrainConfig.parse(job.config, where=f"{where}: config"),
        data=job.data,
        output=job.output,
        resume=job.resume,
        metrics_log=job.metrics_log,
        loss_csv=job.loss_csv,
        xray=job.xray,
        inputs_digest=job.inputs_digest,
    )
    _publish(report, job.report)


def run_standalone(config: TrainConfig, *, where: str) -> None:
    """Train on an annotation file, outside the pipeline."""
    from ovis_model.training.standalone import train_standalone  # noqa: PLC0415

    report, path = train_standalone(config, where=where)
    _publish(report, path)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the one argument.

    Raises:
        ConfigError: If there is no such file or it holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return values


def _publish(report: TrainReport, path: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        report.write(path)


def _tell(error: OvisError, arguments: list[str]) -> int:
    """Say what was raised on purpose and return the exit code; after want of memory start anew."""
    if isinstance(error, TrainingStopped):
        print(f"{_which_process()}{error}", file=sys.stderr)
        return exit_codes.STOPPED
    print(f"error: {_which_process()}{error}", file=sys.stderr)
    if isinstance(error, OutOfMemoryError) and "RANK" not in os.environ:
        # Nobody waits for this process, and only a new one has all of the memory.
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, "-m", "ovis_model.training", *arguments])
    return exit_codes.MISUSED if isinstance(error, ConfigError) else exit_codes.FAILED


def _tell_lost_connection(error: RuntimeError) -> int:
    """Say so if another process has ended, whose own words say why; any other error goes on."""
    from ovis_model.training.environment import lost_connection  # noqa: PLC0415

    if not lost_connection(error):
        raise error
    print(
        f"error: {_which_process()}the connection to another process broke; that one has ended, "
        "and what it or the launcher says tells why. Run it again to go on from the last "
        "checkpoint",
        file=sys.stderr,
    )
    return exit_codes.FAILED


def _which_process() -> str:
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return "" if alone else f"process {os.environ['RANK']}: "


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
