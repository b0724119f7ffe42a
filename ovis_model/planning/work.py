"""How much there is to learn from, and how much work that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovis_model.data.dataset import ConversationDataset, Extent, find_misfits
from ovis_model.data.schema import Sample
from ovis_model.flops import BatchShape, FlopCounter, count_patches
from ovis_model.planning.activations import PaddedBatch
from ovis_model.planning.memory import Outline
from ovis_model.planning.report import DataPlan, WorkPlan
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.processing.visual_tokens import HIDDEN_STRIDE, NUM_INDICATORS
from ovis_model.train_config import TrainConfig

#: Share of a GPU's peak that hours are told for; well-made trainings of such models reach
#: 30 to 50 %.
ASSUMED_SHARE = 0.4
SECONDS_PER_HOUR = 3600.0
#: Pixels of one visual token, and bytes of its four patches.
TOKEN_PIXELS, TOKEN_BYTES = 32 * 32, 4 * 768
#: Bytes of one position of an encoded sample: id and label.
POSITION_BYTES = 16


@dataclass(frozen=True)
class MeasuredData:
    """Samples and what each of them comes to, with their own limits applied (`Sample.fit`)."""

    folder: str
    samples: Sequence[Sample]
    extents: Sequence[Extent]

    @classmethod
    def measure(
        cls, samples: Sequence[Sample], *, folder: Path, media: Path, processor: Ovis2_5Processor
    ) -> "MeasuredData":
        """Measure samples by the headers of their media; only video files are decoded.

        Args:
            samples: To be trained on.
            folder: Where they are from, for people.
            media: Folder that their paths start from.
            processor: Of the base model, with the settings of training.

        Raises:
            DataError: Naming the sample, if a file cannot be read or text and media disagree.
        """
        dataset = ConversationDataset(samples, media_root=media, processor=processor)
        return cls(str(folder), samples, dataset.extents())

    @property
    def shapes(self) -> list[BatchShape]:
        """Every sample as a batch of its own."""
        return [
            BatchShape((one.num_tokens,), one.grids, one.num_supervised) for one in self.extents
        ]

    @property
    def cached_bytes(self) -> int:
        """What encoded samples take in memory."""
        return sum(
            one.num_tokens * POSITION_BYTES + count_patches(one.grids) * TOKEN_BYTES // 4
            for one in self.extents
        )


def plan_data(data: MeasuredData, config: TrainConfig) -> DataPlan:
    """Count one epoch, and find what training would refuse."""
    too_long, without_answer = find_misfits(
        data.samples,
        data.extents,
        multimodal_max_length=config.multimodal_max_length,
        text_max_length=config.text_max_length,
    )
    lengths = [one.num_tokens for one in data.extents]
    if config.packing:
        too_long += _longer_than_a_row(data, config)
    limits = [sample.fit for sample in data.samples if sample.fit is not None]
    return DataPlan(
        folder=data.folder,
        samples=len(lengths),
        tokens=sum(lengths),
        visual_tokens=sum(count_patches(one.grids) for one in data.extents) // HIDDEN_STRIDE**2,
        supervised_tokens=sum(one.num_supervised for one in data.extents),
        longest_sample_tokens=max(lengths),
        too_long=too_long,
        without_answer=without_answer,
        cut=sum(fit.max_tokens is not None for fit in limits),
        reduced=sum(fit.max_pixels is not None or fit.max_frames is not None for fit in limits),
    )


def _longer_than_a_row(data: MeasuredData, config: TrainConfig) -> list[str]:
    """Name samples that a packed row cannot hold although the other limits allow them."""
    row = config.row_capacity
    limits = {True: config.multimodal_max_length, False: config.text_max_length}
    return [
        f"{sample.id} ({one.num_tokens} tokens, a row has {row})"
        for sample, one in zip(data.samples, data.extents, strict=True)
        if row < one.num_tokens <= limits[one.is_multimodal]
    ]


def batch_at_the_limits(config: TrainConfig) -> PaddedBatch:
    """Make up the micro-batch that the limits allow, for want of data.

    Every sample is as long as may be and shows one image as large as may be; the text after it
    is learned.  A packed row is full of such samples.
    """
    rows, length = config.per_device_train_batch_size, config.multimodal_max_length
    if config.packing:
        length = min(length, config.row_capacity)
        rows = config.row_capacity // length
    atoms = min(config.single_image_max_pixels // TOKEN_PIXELS, length - NUM_INDICATORS)
    grid = (1, HIDDEN_STRIDE, HIDDEN_STRIDE * max(1, atoms))
    learned = max(1, length - atoms - NUM_INDICATORS)
    shape = BatchShape((length,) * rows, (grid,) * rows, learned * rows)
    return PaddedBatch(positions=rows * length, longest=length, shape=shape)


def count_steps(config: TrainConfig, num_samples: int, *, processes: int) -> tuple[int, float]:
    """Count the optimizer's steps and the epochs they are, as transformers' Trainer does.

    Args:
        config: The train section.
        num_samples: To be trained on.
        processes: That share them.
    """
    batches = _count_batches(config, num_samples, processes=processes)
    per_epoch = max(1, math.ceil(batches / config.gradient_accumulation_steps))
    steps = config.max_steps
    if steps < 1:
        steps = math.ceil(config.num_train_epochs * per_epoch)
    return steps, steps / per_epoch


def _count_batches(config: TrainConfig, num_samples: int, *, processes: int) -> int:
    """Count the micro-batches of one process in an epoch."""
    divide = math.floor if config.training_arguments.get("dataloader_drop_last") else math.ceil
    return divide(divide(num_samples / config.per_device_train_batch_size) / processes)


def plan_work(  # noqa: PLR0913 - the last three by name
    config: TrainConfig,
    outline: Outline,
    data: MeasuredData,
    *,
    processes: int,
    peak_flops: float | None,
    num_rows: int | None = None,
) -> WorkPlan:
    """Count steps, tokens, arithmetic and hours.

    Hours are told for `ASSUMED_SHARE` of the peak of every GPU, spent on what is executed.

    Args:
        config: The train section.
        outline: Of the model under the same configuration.
        data: What is learned from.
        processes: That train together.
        peak_flops: Of one GPU, FLOP/s; None if unknown.
        num_rows: Packed rows of an epoch; None where samples are padded.
    """
    items = len(data.extents) if num_rows is None else num_rows
    steps, epochs = count_steps(config, items, processes=processes)
    batches = _count_batches(config, items, processes=processes)
    taken = batches * config.per_device_train_batch_size * processes
    counter = FlopCounter(outline.config)
    useful = executed = 0
    for shape in data.shapes:
        useful += counter.of(shape, learning=outline.learning).total
        executed += counter.of(
            shape, learning=outline.learning, checkpointed=config.checkpointed_parts
        ).total
    hours = None
    if peak_flops is not None:
        rate = ASSUMED_SHARE * peak_flops * processes
        hours = executed * epochs / rate / SECONDS_PER_HOUR
    return WorkPlan(
        steps=steps,
        epochs=epochs,
        effective_batch_size=config.per_device_train_batch_size
        * config.gradient_accumulation_steps
        * processes,
        dropped=max(0, items - taken),
        tokens=round(epochs * sum(one.num_tokens for one in data.extents)),
        supervised_tokens=round(epochs * sum(one.num_supervised for one in data.extents)),
        useful_flops=useful * epochs,
        executed_flops=executed * epochs,
        hours=hours,
    )
