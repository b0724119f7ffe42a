"""Which registered versions keep their files: with an alias, before a decision, the best few.

The caller holds the registry's lock, or an alias could move between looking and deleting.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from ovis_model.model_card import Benchmark
from ovis_model.registry import (
    ALIASES,
    APPROVAL,
    CHAMPION,
    MODEL_DIGEST,
    SCORES,
    WAITING,
    Registry,
)

logger = logging.getLogger(__name__)


def kept_versions(registry: Registry, *, best: int) -> dict[int, str]:
    """Return the versions that keep their files, each with the reason.

    Args:
        registry: The versions of one model.
        best: How many with the highest mean score are kept besides the others.  Only
            equal exams compare: the champion's, or the newest version's if there is none.
    """
    held: dict[int, list[str]] = {}
    for alias in ALIASES:
        version = registry.version_at(alias)
        if version is not None:
            held.setdefault(version, []).append(alias)
    kept = {version: ", ".join(aliases) for version, aliases in held.items()}
    for version in registry.versions_with(APPROVAL):
        if registry.tags_of(version)[APPROVAL] == WAITING:
            # A person may say yes after later versions have taken its alias.
            kept.setdefault(version, "waits for approval")
    if best:
        for place, version in enumerate(_ranked(registry)[:best], start=1):
            kept.setdefault(version, f"number {place} by its scores")
    return kept


def surplus_folders(store: Path, registry: Registry, *, best: int) -> list[Path]:
    """List the folders of files, each named by a digest, that no version keeps.

    A version that is kept may share its files with others: one digest, one folder.
    """
    if not store.is_dir():
        return []
    kept = kept_versions(registry, best=best)
    digests = {registry.tags_of(version).get(MODEL_DIGEST) for version in kept}
    return [folder for folder in sorted(store.iterdir()) if folder.name not in digests]


def drop_surplus(store: Path, registry: Registry, *, best: int) -> None:
    """Delete the files that no version keeps; DVC's cache still has them."""
    for folder in surplus_folders(store, registry, best=best):
        logger.info("no version keeps the files in %s any more; deleting them", folder)
        shutil.rmtree(folder)


def _ranked(registry: Registry) -> list[int]:
    """List the versions that took the champion's exams, the best first; of equals, the newest."""
    marks = {}
    for version in registry.versions_with(SCORES):
        found = json.loads(registry.tags_of(version)[SCORES])
        marks[version] = {name: Benchmark.model_validate(one) for name, one in found.items()}
    champion = registry.version_at(CHAMPION)
    standard = champion if champion in marks else max(marks, default=None)
    if standard is None:
        return []
    equal = [v for v, taken in marks.items() if _exams(taken) == _exams(marks[standard])]
    return sorted(equal, key=lambda version: (_mean(marks[version]), version), reverse=True)


def _exams(taken: Mapping[str, Benchmark]) -> dict[str, str]:
    return {name: one.fingerprint for name, one in taken.items()}


def _mean(taken: Mapping[str, Benchmark]) -> float:
    return fmean(one.tuned.score for one in taken.values()) if taken else 0.0
