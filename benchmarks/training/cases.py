"""Every case of the suite `training` with its target."""

from functools import partial

from benchmarks.suite import Case, Target
from benchmarks.training import packing

#: Fewer would not do: eight processes get the same number of rows, and up to seven are half empty.
SMALL = 20_000


def cases() -> list[Case]:
    """List the cases in the order of the table."""
    return [
        Case(
            goal="S1",
            workload=f"{count:,} samples into rows of {capacity:,} tokens, 8 processes",
            build=partial(packing.build, count=count, capacity=capacity),
            build_small=partial(packing.build, count=SMALL, capacity=capacity),
            target=target,
            dtype="int64",
        )
        for count, capacity, target in (
            (20_000, 16_384, Target()),
            (1_000_000, 16_384, Target(time=1.0)),
        )
    ]
