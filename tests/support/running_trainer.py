"""A trainer as `train` makes it, for tests that look inside while it runs or after."""

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import training_arguments
from ovis_model.training.destination import Destination
from ovis_model.training.environment import join_deepspeed, process_group
from ovis_model.training.inputs import read_extracted
from ovis_model.training.interruption import Interruption
from ovis_model.training.safeguards import Safeguards
from ovis_model.training.training import _prepare


@contextmanager
def about_to_prepare(config: dict[str, Any], data: Path) -> Iterator[Callable[[], Any]]:
    """Get everything ready that comes before the model; yields what makes the trainer."""
    parsed = TrainConfig.parse(config, where="test")
    with tempfile.TemporaryDirectory() as scratch, process_group():
        root = Path(scratch)
        where = Destination(root / "model", root / "resume", root / "log", root / "csv")
        inputs = read_extracted(data)
        arguments = training_arguments(parsed, resume=where.resume)
        if arguments.deepspeed is not None:
            join_deepspeed()
        processor = Ovis2_5Processor.from_pretrained(parsed.ovis_pretrained_path).with_settings(
            pixel_limits=parsed.pixel_limits, frame_sampling=inputs.frame_sampling
        )
        safeguards = Safeguards.of(parsed, arguments, Interruption())
        yield lambda: _prepare(parsed, arguments, inputs, processor, where, safeguards)[0]
    gc.collect()


@contextmanager
def prepared_trainer(config: dict[str, Any], data: Path) -> Iterator[Any]:
    """Prepare a training in a scratch folder; `trainer.train()` is the caller's to call.

    Do not keep the trainer: while a ZeRO-3 configuration is alive, transformers cuts every new
    model into pieces.
    """
    with about_to_prepare(config, data) as prepare:
        yield prepare()
