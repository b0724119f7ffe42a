"""How often data is called drifted although nothing drifted: measured on halves of itself."""

from dataclasses import dataclass

import numpy as np

from ovis_model.drift.comparison import compare
from ovis_model.drift.profile import Profile
from ovis_model.drift.rules import DriftRules


@dataclass(frozen=True)
class FalseAlarms:
    """What was counted.

    Attributes:
        splits: How often the data was halved.
        alarms: How often one half was called drifted from the other.
        significant: How often a difference was beyond chance, whether it mattered or not.
    """

    splits: int
    alarms: int
    significant: int


def count_false_alarms(
    profile: Profile, rules: DriftRules, *, splits: int, seed: int = 0
) -> FalseAlarms:
    """Halve data at random again and again, and compare the halves.

    Args:
        profile: The data; each half has half of its samples.
        rules: What counts as drift.
        splits: How often.
        seed: Another one halves otherwise.
    """
    rng = np.random.default_rng(seed)
    alarms = significant = 0
    for _ in range(splits):
        report = compare(*split_at_random(profile, rng), rules)
        alarms += report.outcome == "drift"
        significant += any(
            one.adjusted_p is not None and one.adjusted_p <= rules.alpha for one in report.features
        )
    return FalseAlarms(splits, alarms, significant)


def split_at_random(profile: Profile, rng: np.random.Generator) -> tuple[Profile, Profile]:
    """Halve data, never between samples that share a picture: those stay together."""
    groups = np.asarray(profile.groups)
    num_groups = int(groups.max()) + 1
    is_first = np.isin(groups, rng.permutation(num_groups)[: num_groups // 2])
    return profile.take(np.flatnonzero(is_first)), profile.take(np.flatnonzero(~is_first))
