"""Loss by source, and of thinking against answers, from the losses of single tokens."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed

from ovis_model.data.loss_groups import PARTS, LossGroups

#: Sum of losses and number of tokens of each group, by its name; "" is all of them.
Totals = dict[str, tuple[float, int]]


class GroupLosses:
    """Adds up the losses of batches, on their device, until somebody asks for the means."""

    def __init__(self) -> None:
        self._pending: list[tuple[Sequence[str | None], Tensor, Tensor]] = []
        self._before: Totals = {}

    def add(self, token_losses: Tensor, groups: LossGroups) -> None:
        """Count a batch; nothing waits for the device.

        Args:
            token_losses: Of each learned token, float32 [num_learned].
            groups: Whose they are.
        """
        size = len(PARTS) * len(groups.sources)
        where = groups.groups.to(token_losses.device, non_blocking=True)
        sums = torch.zeros(size, dtype=torch.float64, device=token_losses.device)
        sums.index_add_(0, where, token_losses.double())
        counts = torch.bincount(groups.groups, minlength=size)
        self._pending.append((groups.sources, sums, counts))

    def totals(self) -> Totals:
        """Return what this process has added up since it was last asked for means."""
        return _totals(self._pending, self._before)

    def restore(self, totals: Totals) -> None:
        """Go on from what `totals` said, in another run."""
        self._before = totals

    def means(self, prefix: str) -> dict[str, float]:
        """Return the losses per token since this was last asked, of all processes together.

        Every process must ask.

        Args:
            prefix: What the names begin with.

        Returns:
            `<prefix>`, `<prefix>/thinking`, `<prefix>/answer` and `<prefix>/<source>`; groups
            without a token are left out.
        """
        own, self._pending, self._before = self.totals(), [], {}
        return {
            f"{prefix}/{name}" if name else prefix: round(total / count, 6)
            for name, (total, count) in sorted(_of_all_processes(own).items())
            if count
        }


def group_name(source: str) -> str:
    """Return what the loss of a source is called, also where its name is that of a part."""
    return f"source_{source}" if source in PARTS else source


def _totals(
    pending: Iterable[tuple[Sequence[str | None], Tensor, Tensor]], before: Totals
) -> Totals:
    """Add batches up, sample by sample, to what was there before."""
    sums = defaultdict(float, {name: total for name, (total, _) in before.items()})
    counts = defaultdict(int, {name: count for name, (_, count) in before.items()})
    for sources, losses, tokens in pending:
        by_part = zip(losses.tolist(), tokens.tolist(), strict=True)
        for number, (loss, count) in enumerate(by_part):
            source = sources[number // len(PARTS)]
            of_source = () if source is None else (group_name(source),)
            for name in ("", PARTS[number % len(PARTS)], *of_source):
                sums[name] += loss
                counts[name] += count
    return {name: (sums[name], counts[name]) for name in sums}


def _of_all_processes(own: Totals) -> Totals:
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return own
    gathered: list[Totals] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    names = {name for totals in gathered for name in totals}
    of_name = {name: [totals.get(name, (0.0, 0)) for totals in gathered] for name in names}
    return {
        name: (sum(total for total, _ in each), sum(count for _, count in each))
        for name, each in of_name.items()
    }
