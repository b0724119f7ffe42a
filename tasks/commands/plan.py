"""`ovis plan`: what a training will need and take, before anything is loaded.

ovis plan
ovis plan --processes 8 --device-memory-gb 80 --gpu H100
ovis plan --params other.yaml --json
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovis_model.config import FrameSampling
from ovis_model.errors import ConfigError, DataError
from ovis_model.train_config import TrainConfig
from tasks.artifacts import DEEPSPEED_CONFIGS, EXTRACTED, PARAMS, VALIDATED
from tasks.commands import plan_text
from tasks.params import Params

if TYPE_CHECKING:
    from ovis_model.planning.work import MeasuredData


def add_parser(commands: Any) -> None:
    """Add the command to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    text = "what training will need and take, and whether it fits"
    parser: argparse.ArgumentParser = commands.add_parser("plan", help=text, description=text)
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: %(default)s")
    parser.add_argument(
        "--data", type=Path, help=f"folder of samples (default: {EXTRACTED}, else {VALIDATED})"
    )
    parser.add_argument(
        "--processes", type=int, help="on all machines together (default: those of train)"
    )
    parser.add_argument(
        "--device-memory-gb", type=float, help="of each GPU, where it is not this machine's"
    )
    parser.add_argument("--gpu", help="its name, such as H100 or L40S, to tell hours")
    parser.add_argument("--json", action="store_true", help="one JSON object per stage, no tables")


def plan(options: argparse.Namespace) -> None:
    """Write the plan.

    Raises:
        ConfigError: If an argument or the configuration cannot be used.
        DataError: If the samples cannot be measured.
        CheckpointError: If there is no base model.
    """
    for name in ("processes", "device_memory_gb"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name.replace('_', '-')} must be above 0, not {value}")
    params = Params.read(options.params)
    # Imported here: torch takes seconds, which `ovis status` need not wait for.
    from ovis_model.flops import PEAK_FLOPS, peak_flops  # noqa: PLC0415
    from ovis_model.planning.plan import find_device, make_plan  # noqa: PLC0415

    if options.gpu is not None and peak_flops(options.gpu) is None:
        known = ", ".join(name for name, _ in PEAK_FLOPS)
        raise ConfigError(f"--gpu {options.gpu!r} is not known; choose one of {known}")
    configs = params.train.stage_configs()
    plans = [
        make_plan(
            config,
            _measure(params, config, options.data),
            device=find_device(memory_gb=options.device_memory_gb, gpu=options.gpu),
            processes=options.processes or config.num_processes,
            presets=DEEPSPEED_CONFIGS,
        )
        for config in configs
    ]
    for number, (found, changes) in enumerate(
        zip(plans, params.train.stages or ({},), strict=True), start=1
    ):
        if options.json:
            sys.stdout.write(found.model_dump_json() + "\n")
            continue
        if params.train.stages:
            sys.stdout.write(f"stage {number} of {len(plans)}: {changes}\n\n")
        sys.stdout.write(plan_text.as_text(found))


def _measure(params: Params, config: TrainConfig, given: Path | None) -> "MeasuredData | None":
    """Measure the samples that training would read, or those that validation passed.

    Raises:
        DataError: If a folder that was named has none.
    """
    from ovis_model.data.sample_file import SampleFile  # noqa: PLC0415
    from ovis_model.planning.work import MeasuredData  # noqa: PLC0415
    from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor  # noqa: PLC0415

    wanted = (EXTRACTED, VALIDATED) if given is None else (given,)
    folder = next((path for path in wanted if (path / "train.jsonl").is_file()), None)
    if folder is None:
        if given is not None:
            raise DataError(f"there is no {given}/train.jsonl; run `dvc repro extract`")
        return None
    # Validation leaves media where they are; its folder is known by its list of them.
    is_validated = (folder / "media.jsonl").is_file()
    processor = Ovis2_5Processor.from_pretrained(config.ovis_pretrained_path)
    sampling = FrameSampling(
        min_frames=params.extract.min_frames, max_frames=params.extract.max_frames
    )
    samples = SampleFile(folder / "train.jsonl")
    if not len(samples):
        raise DataError(f"{folder / 'train.jsonl'} holds no samples to train on")
    return MeasuredData.measure(
        samples,
        folder=folder,
        media=Path(params.validation.raw_data) if is_validated else folder,
        processor=processor.with_settings(
            pixel_limits=config.pixel_limits, frame_sampling=sampling
        ),
    )
