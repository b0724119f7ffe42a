"""What a processor remembers beside its tokenizer, as files of a checkpoint folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.errors import CheckpointError
from ovis_model.processing.frame_sampling import SAMPLER_NAME
from ovis_model.reports import write_text

CHAT_TEMPLATE_FILE = "chat_template.json"
#: Ours, beside the official files: what they do not record.
SETTINGS_FILE = "ovis_processor.json"


@dataclass(frozen=True)
class ProcessorSettings:
    """How prompts are worded, images resized and frames chosen."""

    chat_template: str
    pixel_limits: PixelLimits
    frame_sampling: FrameSampling

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the settings of a checkpoint folder.

        An official checkpoint has no file of ours: the defaults are its own.

        Raises:
            CheckpointError: If a file is missing, unreadable, or of another release.
            ConfigError: If a value cannot be used.
        """
        template = _read_json(folder / CHAT_TEMPLATE_FILE).get("chat_template")
        if not isinstance(template, str):
            raise CheckpointError(
                f"{folder / CHAT_TEMPLATE_FILE} holds no text under 'chat_template'; copy the "
                "file from the base checkpoint"
            )
        path = folder / SETTINGS_FILE
        values = _read_json(path) if path.is_file() else {}
        limits, sampling = values.get("pixel_limits", {}), dict(values.get("frame_sampling", {}))
        name = sampling.pop("name", SAMPLER_NAME)
        if name != SAMPLER_NAME:
            raise CheckpointError(
                f"{path} asks for the frame sampler {name!r}; this release has only "
                f"{SAMPLER_NAME!r}"
            )
        return cls(
            chat_template=template,
            pixel_limits=PixelLimits.parse(limits, where=f"{path}, pixel_limits"),
            frame_sampling=FrameSampling.parse(sampling, where=f"{path}, frame_sampling"),
        )

    def write(self, folder: Path) -> None:
        """Write both files into a folder."""
        template = {"chat_template": self.chat_template}
        write_text(folder / CHAT_TEMPLATE_FILE, json.dumps(template, indent=2))
        values = {
            "pixel_limits": self.pixel_limits.model_dump(),
            "frame_sampling": {"name": SAMPLER_NAME, **self.frame_sampling.model_dump()},
        }
        write_text(folder / SETTINGS_FILE, json.dumps(values, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}; copy it from the base checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); copy it from the base checkpoint"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; copy it from the base checkpoint")
    return values
