"""Packed rows of a training that has not begun: the same ones that training will make."""

from collections.abc import Sequence
from dataclasses import dataclass

from ovis_model.data.packing import PackedRows, num_tokens, pack, sample_costs
from ovis_model.flops import BatchShape, count_patches
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.planning.activations import PaddedBatch
from ovis_model.planning.report import PackingPlan
from ovis_model.planning.work import MeasuredData
from ovis_model.train_config import TrainConfig

#: Rows that are looked at more closely for each way of being large.
CANDIDATES = 8


@dataclass(frozen=True)
class PlannedRows:
    """The rows of an epoch, and what decides how much memory each needs."""

    rows: PackedRows
    shapes: Sequence[BatchShape]
    """Of each row."""

    @classmethod
    def of(
        cls, data: MeasuredData, config: TrainConfig, model: Ovis2_5Config, *, processes: int
    ) -> "PlannedRows":
        """Pack the samples that fit into a row; training refuses the others.

        Args:
            data: Measured samples.
            config: The train section, with `packing`.
            model: Tells what a sample costs.
            processes: That train together.

        Raises:
            DataError: If there are too few samples for so many processes.
        """
        fitting = [one for one in data.extents if one.num_tokens <= config.row_capacity]
        rows = pack(
            num_tokens(fitting),
            sample_costs(fitting, model),
            capacity=config.row_capacity,
            num_ranks=processes,
            seed=config.data_seed,
        )
        shapes = []
        for number in range(len(rows)):
            own = [fitting[index] for index in rows.row(number)]
            shapes.append(
                BatchShape(
                    tuple(one.num_tokens for one in own),
                    tuple(grid for one in own for grid in one.grids),
                    sum(one.num_supervised for one in own),
                )
            )
        return cls(rows, shapes)

    def largest(self) -> list[PaddedBatch]:
        """Return the rows among which the one that needs the most memory is looked for.

        They have the most tokens, patches, learned positions or operations: memory grows with
        each, and which of them decides depends on what learns.
        """
        patches = [count_patches(shape.grids) for shape in self.shapes]
        learned = [shape.num_supervised for shape in self.shapes]
        measures: tuple[Sequence[int], ...] = (
            self.rows.tokens.tolist(),
            patches,
            learned,
            self.rows.costs.tolist(),
        )
        chosen: set[int] = set()
        for values in measures:
            ranked = sorted(range(len(values)), key=lambda row: -values[row])
            chosen.update(ranked[:CANDIDATES])
        return [batch_of_row(self.shapes[row]) for row in sorted(chosen)]

    def plan(self) -> PackingPlan:
        """Say what comes of packing."""
        rows = self.rows
        return PackingPlan(
            rows=len(rows),
            rows_per_process=len(rows) // rows.num_ranks,
            row_tokens=rows.capacity,
            fill=round(rows.fill, 4),
            imbalance=round(rows.imbalance(), 4),
        )


def batch_of_row(shape: BatchShape) -> PaddedBatch:
    """Describe the micro-batch that a packed row is: nothing is padded."""
    return PaddedBatch(sum(shape.sequences), max(shape.sequences), shape)
