"""Several processes share one evaluation: who asks what.

python -m tasks.cli eval run MODEL --shard 0/4      one of four processes, started by hand
torchrun --nproc_per_node 4 -m tasks.cli eval run MODEL
"""

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ovis_model.errors import ConfigError
from ovis_model.evaluation.exam import Asked

_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Shard:
    """One of several processes.

    Attributes:
        rank: From 0.
        count: Processes in all.
        local_rank: Which GPU of this machine it takes.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `i/n`.

        Raises:
            ConfigError: If it is not of this form, or i is not under n.

        Example:
            >>> Shard.parse("1/4")
            Shard(rank=1, count=4, local_rank=0)
        """
        found = _SHARD.fullmatch(text)
        if found is None or int(found[1]) >= int(found[2]):
            raise ConfigError(
                f"--shard {text!r} is none; write i/n with i from 0 to n-1, such as 0/4"
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read what torchrun tells its processes; without it there is one process."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if not all(name in environment for name in names):
            return cls()
        rank, count, local_rank = (int(environment[name]) for name in names)
        return cls(rank, count, local_rank)

    @property
    def file_name(self) -> str:
        """The file this process writes its rows to."""
        return f"{self.rank}-of-{self.count}.jsonl"

    def take(self, asked: Sequence[Asked]) -> list[Asked]:
        """Choose this process's share: questions that show the same stay together."""
        places: dict[Hashable, int] = {}
        chosen = []
        for one in asked:
            shown: Any = one.question.media or one.question.index
            if places.setdefault(shown, len(places)) % self.count == self.rank:
                chosen.append(one)
        return chosen
