"""Training outside the pipeline, on an annotation file: the seed's way.

Beside the finished model, `output_dir`, stands `<output_dir>.training`: report, loss curve,
metrics, and in `resume-<inputs digest>` the checkpoints, until the model is finished.
"""

import hashlib
import json
from pathlib import Path

from ovis_model.config import FrameSampling
from ovis_model.errors import ConfigError
from ovis_model.reports import sha256_of_file
from ovis_model.train_config import TrainConfig
from ovis_model.training.checkpoints import MANIFEST
from ovis_model.training.destination import Destination
from ovis_model.training.inputs import TrainingInputs, read_annotations
from ovis_model.training.inputs_digest import inputs_digest
from ovis_model.training.report import TrainReport
from ovis_model.training.training import train_on

#: What a configuration must say when there is no pipeline to say it.
STANDALONE_KEYS = ("data_path", "image_folder", "output_dir")


def train_standalone(config: TrainConfig, *, where: str) -> tuple[TrainReport, Path]:
    """Train on an annotation file.

    Returns:
        The report, and where it belongs.

    Raises:
        ConfigError: If the configuration does not say what to read and where to write, or a
            finished model is there already and must not be replaced.
    """
    inputs = read_inputs(config, where=where)
    output = Path(str(config.output_dir))
    if (output / MANIFEST).exists() and not config.overwrite_output_dir:
        raise ConfigError(
            f"{where}: output_dir {str(output)!r} holds a finished model; give another folder, or "
            '"overwrite_output_dir": true to have it replaced when the new one is finished'
        )
    beside = output.with_name(output.name + ".training")
    digest = standalone_digest(config, inputs)
    report = train_on(
        config,
        inputs,
        where=Destination(
            output=output,
            resume=beside / f"resume-{digest[:16]}",
            metrics_log=beside / "metrics.jsonl",
            loss_csv=beside / "train_loss.csv",
            xray=beside / "train_xray.html",
        ),
        inputs_digest=digest,
    )
    return report, beside / "train.json"


def read_inputs(config: TrainConfig, *, where: str) -> TrainingInputs:
    """Read the samples that a configuration names.

    Raises:
        ConfigError: If it does not name them, or the numbers of frames contradict each other.
        DataError: If they cannot be read.
    """
    missing = [key for key in STANDALONE_KEYS if getattr(config, key) is None]
    if missing:
        raise ConfigError(f"{where}: outside the pipeline it must also give {', '.join(missing)}")
    frames = {"min_frames": config.min_frames, "max_frames": config.max_frames}
    sampling = FrameSampling.parse(
        {key: value for key, value in frames.items() if value is not None}, where=where
    )
    holdout = config.eval_data_path
    return read_annotations(
        Path(str(config.data_path)),
        Path(str(config.image_folder)),
        holdout=None if holdout is None else Path(holdout),
        frame_sampling=sampling,
    )


def standalone_digest(config: TrainConfig, inputs: TrainingInputs) -> str:
    """Digest the inputs of a training outside the pipeline.

    Of the base model, names and sizes of its files: every process asks, and 18 GB take a while.
    Pictures are not looked at: the annotations name them.
    """
    base = Path(config.ovis_pretrained_path)
    files = sorted(
        (path.relative_to(base).as_posix(), path.stat().st_size)
        for path in base.rglob("*")
        if path.is_file()
    )
    described = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    read = {"annotations": (inputs.media_root, inputs.digest), "base_model": (base, described)}
    if config.eval_data_path is not None:
        holdout = Path(config.eval_data_path)
        read["holdout"] = (holdout, sha256_of_file(holdout))
    return inputs_digest(config, read)
