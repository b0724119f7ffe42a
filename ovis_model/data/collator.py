"""Examples of different lengths become one batch: padded on the right, or packed into one row.

batch       examples of one micro-batch
seq         the longest of them, or all of them packed; text and visual positions together
patches     of all their images and frames, one after another
num_media   images of all of them, a video counting as one
"""

from collections.abc import Sequence
from typing import Any

import torch

from ovis_model.data.dataset import Example
from ovis_model.data.loss_groups import LossGroups, group_tokens
from ovis_model.flops import BatchShape
from ovis_model.processing.processing_ovis2_5 import EncodedSample, join_media, pad_batch
from ovis_model.tokens import IGNORE_ID

#: Entries of a batch that describe it and are not arguments of the model.
SAMPLE_IDS = "sample_ids"
NUM_TOKENS = "num_tokens"
NUM_SUPERVISED = "num_supervised_tokens"
SHAPE = "shape"
LOSS_GROUPS = "loss_groups"
#: All of them.
DESCRIPTION = (SAMPLE_IDS, NUM_TOKENS, NUM_SUPERVISED, SHAPE, LOSS_GROUPS)


class DataCollatorForMultimodalDataset:
    """Pads and concatenates; what it counts saves the trainer a wait for the GPU."""

    def __init__(self, *, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Make one batch.

        Returns:
            input_ids int64 [batch, seq], attention_mask bool [batch, seq], labels int64
            [batch, seq], and, if any example shows something, pixel_values uint8 [patches, 768],
            which the model normalises, and grid_thws int64 [num_media, 3]; besides them
            `sample_ids`, `num_tokens` without padding, `num_supervised_tokens`, `shape`, a
            `BatchShape` that says how much work the batch is, and `loss_groups`.
        """
        encoded = [example.encoded for example in examples]
        padded = pad_batch(encoded, pad_id=self.pad_id, side="right")
        batch: dict[str, Any] = {
            name: tensor for name, tensor in padded.items() if tensor is not None
        }
        batch[SAMPLE_IDS] = [example.sample_id for example in examples]
        batch[NUM_TOKENS] = sum(len(one.input_ids) for one in encoded)
        batch[NUM_SUPERVISED] = int((batch["labels"] != IGNORE_ID).sum())
        batch[SHAPE] = shape_of(encoded, batch[NUM_SUPERVISED])
        batch[LOSS_GROUPS] = _groups_of(examples)
        return batch


class PackingCollator:
    """Puts the samples of one row behind each other; nothing is padded."""

    def __call__(self, rows: Sequence[Sequence[Example]]) -> dict[str, Any]:
        """Make one batch.

        Args:
            rows: The samples of exactly one row.

        Returns:
            input_ids and labels int64 [1, seq], `sequence_lengths` with the positions of each
            sample, and otherwise what `DataCollatorForMultimodalDataset` returns, save the
            attention mask.  A sample's first position has no label: nothing precedes it.

        Raises:
            ValueError: If there is another number of rows, or the row is empty.
        """
        if len(rows) != 1 or not rows[0]:
            raise ValueError(f"a packed batch is one row of samples, got {len(rows)} row(s)")
        encoded = [example.encoded for example in rows[0]]
        labels = torch.cat([one.labels for one in encoded if one.labels is not None])
        lengths = [len(one.input_ids) for one in encoded]
        begins = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        labels[begins] = IGNORE_ID
        batch: dict[str, Any] = {
            "input_ids": torch.cat([one.input_ids for one in encoded])[None],
            "labels": labels[None],
            "sequence_lengths": lengths,
            SAMPLE_IDS: [example.sample_id for example in rows[0]],
            NUM_TOKENS: sum(lengths),
            NUM_SUPERVISED: int((labels != IGNORE_ID).sum()),
        }
        batch[SHAPE] = shape_of(encoded, batch[NUM_SUPERVISED])
        batch[LOSS_GROUPS] = _groups_of(rows[0])
        patches = [one.pixel_values for one in encoded if one.pixel_values is not None]
        grids = [one.grid_thws for one in encoded if one.grid_thws is not None]
        if patches:
            batch["pixel_values"], batch["grid_thws"] = join_media(patches), join_media(grids)
        return batch


def _groups_of(examples: Sequence[Example]) -> LossGroups:
    return group_tokens(
        [example.encoded.labels for example in examples],
        [example.source for example in examples],
        [example.thinking for example in examples],
    )


def shape_of(encoded: Sequence[EncodedSample], num_supervised: int) -> BatchShape:
    """Describe encoded samples to whoever counts their work; read before they are on a GPU."""
    grids = [one.grid_thws.tolist() for one in encoded if one.grid_thws is not None]
    return BatchShape(
        sequences=tuple(len(one.input_ids) for one in encoded),
        grids=tuple((t, h, w) for media in grids for t, h, w in media),
        num_supervised=num_supervised,
    )
