"""One two-process training after another, and libraries loaded only once: they cost the most.

    RANK=... WORLD_SIZE=2 ... python -m tests.support.preset_runs RUNS.json

RUNS.json maps a name to a train section and to the port where its processes meet; each run's model
folder is <folder of RUNS>/<name>/model and its report <folder of RUNS>/<name>/train.json.  Every
run has a process of its own, forked: DeepSpeed holds on to the group of its first one.
"""

import json
import multiprocessing
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import deepspeed
import torch
from transformers import Trainer

from ovis_model.train_config import TrainConfig
from ovis_model.training.training import train

#: Loaded before the first fork, for transformers loads them late.
LOADED = (deepspeed, Trainer)


def run(settings: dict[str, Any], data: Path, folder: Path) -> None:
    """Train once."""
    report = train(
        TrainConfig.parse(settings, where=folder.name),
        data=data,
        output=folder / "model",
        resume=folder / "resume",
        metrics_log=folder / "metrics.jsonl",
        loss_csv=folder / "loss.csv",
    )
    if os.environ["RANK"] == "0":
        report.write(folder / "train.json")


def main(runs: Path) -> int:
    """Train as often as the file says; stop with the first run that fails."""
    content = json.loads(runs.read_text(encoding="utf-8"))
    for name, one in content["runs"].items():
        os.environ["MASTER_PORT"] = str(one["port"])
        arguments = (one["config"], Path(content["data"]), runs.parent / name)
        child = multiprocessing.get_context("fork").Process(target=run, args=arguments)
        child.start()
        child.join()
        if child.exitcode:
            return 1
    return 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.exit(main(Path(sys.argv[1])))
