"""A folder as the extract step writes it, with coloured squares to learn from.

world = build_training_world(tmp_path)      samples of every kind, media, manifest
world.job(train_modules="llm")              a job file's content over a tiny base model
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ovis_model.data.schema import Sample, write_samples
from ovis_model.reports import sha256_of_file
from tests.support.tiny_model import TINY_FRAMES, TINY_PIXELS, build_tiny_checkpoint

COLOURS = ("red", "green", "blue", "white")
QUESTION = "Which colour is this?"


def image_sample(number: int) -> dict[str, Any]:
    """One picture, answered after a thought."""
    colour = COLOURS[number % len(COLOURS)]
    answer = f"<think>\nI see {colour}.\n</think>\n\n{colour}"
    return {
        "id": f"image_{number}",
        "image": [f"media/{colour}.png"],
        "conversations": [
            {"from": "human", "value": f"<image>\n{QUESTION}"},
            {"from": "gpt", "value": answer},
        ],
    }


def video_sample(number: int) -> dict[str, Any]:
    """Two frames."""
    return {
        "id": f"video_{number}",
        "video": ["media/red.png", "media/blue.png"],
        "conversations": [
            {"from": "human", "value": "<video>\nWhich colours follow each other?"},
            {"from": "gpt", "value": "red, blue"},
        ],
    }


def text_sample(number: int) -> dict[str, Any]:
    """No picture at all."""
    return {
        "id": f"text_{number}",
        "conversations": [
            {"from": "system", "value": "Answer in one word."},
            {"from": "human", "value": "Say red."},
            {"from": "gpt", "value": "red"},
        ],
    }


def mixed_samples() -> list[dict[str, Any]]:
    """One of each kind; what to say of the text is more than all the others have."""
    several = image_sample(1)
    several |= {"id": "several_1", "image": ["media/green.png", "media/white.png"]}
    several["conversations"][0]["value"] = "<image>\n<image>\nWhich colours are these?"
    text = text_sample(0)
    text["conversations"][-1]["value"] = "red " * 50
    return [image_sample(0), several, video_sample(0), text]


@dataclass(frozen=True)
class TrainingWorld:
    """Paths of one prepared training."""

    root: Path
    data: Path
    base: Path

    @property
    def output(self) -> Path:
        """The model folder."""
        return self.root / "models" / "finetuned"

    @property
    def resume(self) -> Path:
        """The checkpoints' folder."""
        return self.root / "models" / ".resume" / "digest"

    @property
    def metrics(self) -> Path:
        """The live metrics."""
        return self.root / "metrics.jsonl"

    def config(self, **overrides: Any) -> dict[str, Any]:
        """Return a train section: twelve quick steps."""
        return {
            "ovis_pretrained_path": str(self.base),
            **TINY_PIXELS.model_dump(),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_steps": 12,
            "learning_rate": 5e-3,
            "logging_steps": 2,
            "save_steps": 5,
            "cache_encoded_samples": True,
            **overrides,
        }

    def paths(self) -> dict[str, Path]:
        """Return the path arguments of `train`."""
        return {
            "data": self.data,
            "output": self.output,
            "resume": self.resume,
            "metrics_log": self.metrics,
            "loss_csv": self.root / "loss.csv",
        }

    def start_over(self) -> None:
        """Delete what trainings have written."""
        shutil.rmtree(self.root / "models", ignore_errors=True)
        self.metrics.unlink(missing_ok=True)

    def write_job(self, **overrides: Any) -> Path:
        """Write a job file and return its path."""
        job = {
            "config": self.config(**overrides),
            **{name: str(path) for name, path in self.paths().items()},
            "report": str(self.root / "train.json"),
            "inputs_digest": "digest",
        }
        path = self.root / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        return path

    def deepspeed(self, stage: int, **settings: Any) -> str:
        """Write a DeepSpeed configuration of one ZeRO stage and return its path."""
        path = self.root / f"zero{stage}.json"
        content = {"zero_optimization": {"stage": stage}, **settings}
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)


def build_training_world(
    root: Path, *, samples: Sequence[dict[str, Any]] | None = None, base: Path | None = None
) -> TrainingWorld:
    """Write data and base model below `root`."""
    data = root / "extracted"
    (data / "media").mkdir(parents=True)
    for colour in COLOURS:
        Image.new("RGB", (40, 36), colour).save(data / "media" / f"{colour}.png")
    if samples is None:
        samples = [
            *(image_sample(number) for number in range(12)),
            *(video_sample(number) for number in range(4)),
            *(text_sample(number) for number in range(4)),
        ]
    write_extracted(data, samples, [image_sample(0), text_sample(0)])
    return TrainingWorld(root, data, base or build_tiny_checkpoint(root / "base"))


def write_extracted(
    data: Path, train: Sequence[dict[str, Any]], holdout: Sequence[dict[str, Any]]
) -> None:
    """Write samples and manifest as the extract step does; the media are not its business."""
    files = {"train.jsonl": train, "holdout.jsonl": holdout}
    for name, content in files.items():
        write_samples(data / name, (Sample.model_validate(one) for one in content))
    manifest = {
        "frame_sampling": {"name": "uniform_midpoint", **TINY_FRAMES.model_dump()},
        "files": {name: {"sha256": sha256_of_file(data / name)} for name in files},
    }
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
