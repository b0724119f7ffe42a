"""Progress bars that others than the terminal can watch: whoever keeps a sign of life does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """How far something is.

    Attributes:
        what: Its name, as the bar has it; "" if there is one thing only.
        done: How many units are done.
        total: How many there are; None if that is not known.
        unit: What is counted.
    """

    what: str
    done: int
    total: int | None
    unit: str

    def __str__(self) -> str:
        what = f"{self.what}, " if self.what else ""
        return f"{what}{self.unit} {self.done:,}" + (f" of {self.total:,}" if self.total else "")


class WatchedBar(tqdm):  # type: ignore[misc] # tqdm has no annotations
    """tqdm's bar, which also tells a watcher how far it is, whether it is drawn or not."""

    #: Of this process; called very often, so it has to be quick.
    watcher: ClassVar[Callable[[Progress], None] | None] = None

    def update(self, n: int = 1) -> Any:
        """Move on by `n` units."""
        drawn = super().update(n)
        if WatchedBar.watcher is not None:
            WatchedBar.watcher(Progress(self.desc.rstrip(": "), self.n, self.total, self.unit))
        return drawn
