"""What a process has not logged yet, kept in a checkpoint so that a resumed run logs it.

A checkpoint falls between two lines of the log wherever training is stopped; the next line is
the mean since the last one, and has to be that of a run nobody stopped.  Floats are written in
hexadecimal, which loses nothing.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from ovis_model.reports import write_text

FILE = "log_state_{rank}.json"


class LogState(BaseModel):
    """Of one process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last_logged_step: int
    loss: str
    """Sum over the steps since then."""
    group_losses: dict[str, tuple[str, int]]
    """Sum of losses and number of tokens, by name of the group."""
    recent_losses: list[str]
    """Of whole steps, the same in all processes: what a spike is compared with."""

    def write(self, folder: Path, *, rank: int) -> None:
        """Add it to a checkpoint that is being written."""
        write_text(folder / FILE.format(rank=rank), self.model_dump_json())

    @classmethod
    def read(cls, folder: Path, *, rank: int, world_size: int) -> Self:
        """Read that of one process.

        If another number of processes wrote the checkpoint, the log's means over all processes
        stay right, up to rounding: each takes the mean loss, and the first the sums of groups.
        """
        paths = sorted(folder.glob(FILE.format(rank="*")))
        if len(paths) == world_size:
            return cls.model_validate_json((folder / FILE.format(rank=rank)).read_bytes())
        states = [cls.model_validate_json(path.read_bytes()) for path in paths]
        return cls._join(states, is_first=rank == 0)

    @classmethod
    def _join(cls, states: Sequence[Self], *, is_first: bool) -> Self:
        mean = math.fsum(float.fromhex(state.loss) for state in states) / len(states)
        sums: dict[str, tuple[str, int]] = {}
        for name in {name for state in states for name in state.group_losses}:
            each = [state.group_losses[name] for state in states if name in state.group_losses]
            total = math.fsum(float.fromhex(loss) for loss, _ in each)
            sums[name] = (total.hex(), sum(count for _, count in each))
        return states[0].model_copy(
            update={"loss": mean.hex(), "group_losses": sums if is_first else {}}
        )
