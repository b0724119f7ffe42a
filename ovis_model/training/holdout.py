"""The loss on samples that are not trained on, while training runs and when it is done."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from ovis_model.data.collator import (
    DESCRIPTION,
    LOSS_GROUPS,
    DataCollatorForMultimodalDataset,
    PackingCollator,
)
from ovis_model.data.dataset import ConversationDataset, Example
from ovis_model.train_config import TrainConfig
from ovis_model.training.group_losses import GroupLosses


class Holdout:
    """Measures the loss per supervised token of all samples, whoever computes which of them.

    Args:
        dataset: The samples; there may be none.
        config: The train section; with packing, samples share rows here, too.
        arguments: Say on which device, and how many samples make a batch.
    """

    def __init__(
        self, dataset: ConversationDataset, config: TrainConfig, arguments: TrainingArguments
    ) -> None:
        self.dataset = dataset
        self._args = arguments
        self._size = config.training_arguments.get(
            "per_device_eval_batch_size", config.per_device_train_batch_size
        )
        self._room = config.pack_length or config.multimodal_max_length if config.packing else None
        self._batches: list[list[int]] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @torch.no_grad()
    def measure(
        self,
        model: nn.Module,
        prefix: str = "eval_loss",
        *,
        on_batch: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Measure, teacher forced; every process must call it, and computes its share.

        Args:
            model: As it is trained, wrapped.
            prefix: What the names of the losses begin with.
            on_batch: Called before each batch.

        Returns:
            What `GroupLosses.means` returns; empty without samples.
        """
        model.eval()  # returns nothing under DeepSpeed
        losses = GroupLosses()
        for batch, is_own in self._share():
            if on_batch is not None:
                on_batch()
            groups = batch[LOSS_GROUPS]
            inputs = {
                name: value.to(self._args.device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
                if name not in DESCRIPTION
            }
            outputs = model(**inputs, num_items_in_batch=1, use_cache=False, logits_to_keep=1)
            if is_own:
                losses.add(outputs.token_losses, groups)
        return losses.means(prefix)

    def _share(self) -> Iterator[tuple[dict[str, Any], bool]]:
        """Make this process's batches, and say which of them count.

        Processes make equally many, for ZeRO-3 gathers weights together: one that has no batch
        left computes one of another's and throws the result away.
        """
        batches = self._batches = self._plan() if self._batches is None else self._batches
        rank, world_size = self._args.process_index, self._args.world_size
        for first in range(0, len(batches), world_size):
            is_own = first + rank < len(batches)
            batch = batches[first + rank if is_own else first]
            yield self._collate([self.dataset[index] for index in batch]), is_own

    def _collate(self, examples: list[Example]) -> dict[str, Any]:
        if self._room is not None:
            return PackingCollator()([examples])
        pad_id = self.dataset.processor.token_ids.pad
        return DataCollatorForMultimodalDataset(pad_id=pad_id)(examples)

    def _plan(self) -> list[list[int]]:
        """Put samples of similar length together, as many as a batch or a row takes."""
        lengths = [extent.num_tokens for extent in self.dataset.extents()]
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        if self._room is None:
            return [order[i : i + self._size] for i in range(0, len(order), self._size)]
        return _rows(order, lengths.__getitem__, self._room)


def _rows(order: Sequence[int], length: Callable[[int], int], room: int) -> list[list[int]]:
    """Fill one row after the other; a sample that is longer than a row has one to itself."""
    rows: list[list[int]] = []
    left = 0
    for index in order:
        if not rows or length(index) > left:
            rows.append([])
            left = room
        rows[-1].append(index)
        left -= length(index)
    return rows
