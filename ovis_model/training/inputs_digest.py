"""What a training is computed from, as one digest: its run and its checkpoints are found by it.

Free of torch, so that the step that starts a training stays quick.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ovis_model.reports import sha256_of_file
from ovis_model.train_config import TrainConfig

#: Keys that say how fast or where, not what: another value may resume the same training.
NOT_AN_INPUT = {
    "auto_micro_batch",
    "dataloader_num_workers",
    "hang_timeout_seconds",
    "logging_steps",
    "loss_spike_factor",
    "loss_spike_window",
    "master_addr",
    "master_port",
    "num_samples",
    "overwrite_output_dir",
    "sample_max_new_tokens",
    "sample_steps",
    "save_steps",
    "save_total_limit",
}


def inputs_digest(config: TrainConfig, datasets: Mapping[str, tuple[Path, str]]) -> str:
    """Digest everything a training is computed from.

    Args:
        config: The train section.
        datasets: Place and digest of what is read, by name.
    """
    # By content: an edited file must not resume the checkpoints of the one before.
    deepspeed = Path(config.deepspeed) if config.deepspeed else None
    known = deepspeed is not None and deepspeed.is_file()  # training refuses a missing one
    inputs = {
        "deepspeed": sha256_of_file(deepspeed) if deepspeed and known else None,
        "train": config.model_dump(mode="json", exclude=NOT_AN_INPUT),
        "datasets": {name: digest for name, (_, digest) in datasets.items()},
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
