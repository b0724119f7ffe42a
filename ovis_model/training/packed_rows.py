"""Packed rows as the Trainer takes them: a dataset of rows, and their order in each epoch."""

import logging
from collections.abc import Iterator, Sequence

from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments

from ovis_model.data.dataset import ConversationDataset, Example, Extent
from ovis_model.data.packing import PackedRows, num_tokens, pack, sample_costs
from ovis_model.errors import DataError, list_examples
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.train_config import TrainConfig

log = logging.getLogger(__name__)


class PackedDataset(Dataset[list[Example]]):
    """One item per row: the examples it consists of."""

    def __init__(self, samples: ConversationDataset, rows: PackedRows) -> None:
        self.samples = samples
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> list[Example]:
        """Encode a row's samples.

        Raises:
            DataError: Naming the sample that cannot be read.
        """
        return [self.samples[index] for index in self.rows.row(number)]


class RowSampler(Sampler[int]):
    """The order of the rows; depends on seed and epoch only, as that of `EpochSampler` does."""

    def __init__(self, rows: PackedRows) -> None:
        self.rows = rows
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.order(self.epoch).tolist())


def pack_samples(
    dataset: ConversationDataset,
    extents: Sequence[Extent],
    config: TrainConfig,
    arguments: TrainingArguments,
    model: Ovis2_5Config,
) -> PackedRows | None:
    """Plan the rows of a training, if its samples are to be packed.

    Args:
        dataset: The samples.
        extents: Of each.
        config: The train section.
        arguments: Say how many processes there are.
        model: Tells what a sample costs.

    Raises:
        DataError: Naming samples that are longer than a row, or if there are too few samples for
            so many processes.
    """
    if not config.packing:
        return None
    capacity = config.row_capacity
    too_long = [
        f"{sample.id} ({extent.num_tokens} tokens)"
        for sample, extent in zip(dataset.samples, extents, strict=True)
        if extent.num_tokens > capacity
    ]
    if too_long:
        raise DataError(
            f"{len(too_long)} sample(s) are longer than a packed row of {capacity} tokens: "
            f"{list_examples(too_long)}. Raise train.pack_length to the longest sample"
        )
    rows = pack(
        num_tokens(extents),
        sample_costs(extents, model),
        capacity=capacity,
        num_ranks=arguments.world_size,
        seed=config.data_seed,
    )
    facts = (len(dataset), len(rows), capacity, 100 * rows.fill, rows.imbalance())
    log.info("packing: %d samples in %d rows of %d tokens, %.1f %% full, imbalance %.3f", *facts)
    return rows
