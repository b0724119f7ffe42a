"""Samples as the official trainer reads and pads them, in our words.

The annotations are one list in memory; a picture is opened with Pillow, resized by transformers'
SigLIP processor and cut into float32 patches; the text is tokenized piece by piece and as a whole,
and visual positions are put in by Python lists.  A batch is padded on the right; where nothing is
to be padded it gets one column of padding all the same.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from benchmarks.model.preprocessing import PATCH, stock_processor, with_stock_parts
from benchmarks.model.tokenization import piece_by_piece
from benchmarks.training.world import PIXEL_LIMITS, World
from ovis_model.modeling.tokenizer_files import load_tokenizer
from ovis_model.processing.image_processing_ovis2_5 import smart_resize
from ovis_model.tokens import IGNORE_ID, TokenIds

Item = dict[str, Tensor | None]
LIMITS = {
    "min_pixels": PIXEL_LIMITS["single_image_min_pixels"],
    "max_pixels": PIXEL_LIMITS["single_image_max_pixels"],
}


class ReferenceDataset(Dataset[Item]):
    """Reads pictures and encodes on access."""

    def __init__(self, world: World) -> None:
        self.root = world.root
        self.samples: list[dict[str, Any]] = json.loads(
            world.annotations.read_text(encoding="utf-8")
        )
        self.tokenizer: Any = load_tokenizer(world.base)
        self.processor = stock_processor()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Encode one sample."""
        sample = self.samples[index]
        pictures = [self._read(self.root / name) for name in sample.get("image", [])]
        grids = [grid for grid, _ in pictures]
        ids, labels = piece_by_piece(self.tokenizer, sample["conversations"], grids)
        return {
            "input_ids": ids,
            "labels": labels,
            "pixel_values": torch.cat([one for _, one in pictures]) if pictures else None,
            "grid_thws": torch.tensor(grids) if pictures else None,
        }

    def _read(self, path: Path) -> tuple[tuple[int, int, int], Tensor]:
        image = Image.open(path).convert("RGB")
        height, width = smart_resize(image.height, image.width, **LIMITS)
        patches = with_stock_parts(self.processor, image, LIMITS)
        return (1, height // PATCH, width // PATCH), patches


class ReferenceCollator:
    """Pads on the right."""

    def __init__(self, tokenizer: Any) -> None:
        self.pad_id = TokenIds.of(tokenizer).pad

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor | None]:
        """Make one batch."""
        ids = [item["input_ids"] for item in items]
        input_ids = pad_sequence(ids, batch_first=True, padding_value=self.pad_id)  # type: ignore[arg-type]
        labels = pad_sequence(
            [item["labels"] for item in items],  # type: ignore[misc]
            batch_first=True,
            padding_value=IGNORE_ID,
        )
        if min(len(one) for one in ids) == input_ids.shape[1]:  # type: ignore[arg-type]
            input_ids = torch.nn.functional.pad(input_ids, (0, 1), value=self.pad_id)
            labels = torch.nn.functional.pad(labels, (0, 1), value=IGNORE_ID)
        shown = [item for item in items if item["pixel_values"] is not None]
        batch: dict[str, Tensor | None] = {
            "input_ids": input_ids,
            "labels": labels,
            "attention_mask": input_ids != self.pad_id,
        }
        for name in ("pixel_values", "grid_thws"):
            batch[name] = torch.cat([item[name] for item in shown]) if shown else None  # type: ignore[misc]
        return batch
