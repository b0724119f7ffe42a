"""Reasons to train again that do not come from the clock: new data, and drift.

A look decides; what was started is kept in a file.  The key of a start is made of what was known
before it, and a server takes a key once: a process that dies between starting a run and writing
that down asks again with the same key, and gets the same run.

    nothing new  ->  new, and must stay so  ->  stable  ->  started  ->  learned (in dvc.lock)
"""

import fcntl
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file, write_text
from tasks.artifacts import TRIGGERS
from tasks.operations import TriggersConfig

DAY_SECONDS = 24 * 3600.0
#: Versions and reports that are remembered.
KEPT = 100


class Memory(BaseModel):
    """What the looks so far have seen and started.

    Attributes:
        id: Of this memory: part of every key, so that one that begins anew asks for new runs.
        seen: The newest version that was seen and has started nothing.
        seen_since: When it was first seen, in seconds since 1970.
        measured: The newest version whose drift was measured.
        started: Versions and drift reports that have started a run, the newest last.
        times: When runs were started, in seconds since 1970; those of the last 24 h count.
        count: How many were started ever: part of the key of the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: secrets.token_hex(4))
    seen: str | None = None
    seen_since: float = 0.0
    measured: str | None = None
    started: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    count: int = 0

    @classmethod
    def read(cls, path: Path = TRIGGERS) -> Self:
        """Read it; one that is missing or torn is empty, as dvc.lock knows the rest."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return cls()


@dataclass(frozen=True)
class Look:
    """What a look has found.

    Attributes:
        due: Whether a run is to be started.
        says: What a person reads.
        reason: Why the run is started, for its record.
        key: What the run is known by.
        memory: What to remember if nothing is started, or once it is.
    """

    says: str
    memory: Memory
    due: bool = False
    reason: str = ""
    key: str = ""


def look_at_data(
    memory: Memory, version: str, learned: str | None, config: TriggersConfig, now: float
) -> Look:
    """Decide whether the raw data are a reason to train.

    Args:
        memory: Of the looks before.
        version: What lies in the working tree.
        learned: What the pipeline ran on last.
        config: How long data must stay, and how many runs a day may start.
        now: Seconds since 1970.
    """
    if version == learned:
        return Look(f"the data are those that were learned ({version[:12]})", _calm(memory))
    if memory.started and memory.started[-1] == version:
        return Look(f"a run was started for these data already ({version[:12]})", _calm(memory))
    # A clock that went back must not make data stable that have just come.
    if memory.seen != version or memory.seen_since > now:
        memory = memory.model_copy(update={"seen": version, "seen_since": now})
    stable = now - memory.seen_since
    if stable < config.stable_minutes * 60:
        return Look(
            f"new data ({version[:12]}), which must stay so for "
            f"{config.stable_minutes - stable / 60:.0f} minutes more",
            memory,
        )
    return _start(memory, version, f"new data {version[:12]}", config, now)


def look_at_drift(  # noqa: PLR0913 - all a look may depend on
    memory: Memory,
    report: Path,
    *,
    version: str,
    learned: str | None,
    config: TriggersConfig,
    now: float,
) -> Look:
    """Decide whether a report of drift is a reason to train: once, and only on new data.

    Args:
        memory: Of the looks before.
        report: Holds `drifted`: true, false, or a list of what drifted.
        version: What lies in the working tree.
        learned: What the pipeline ran on last.
        config: How many runs a day may start.
        now: Seconds since 1970.

    Raises:
        DataError: If the report cannot be read.
    """
    digest = f"drift:{sha256_of_file(report)}" if report.exists() else ""
    if not _has_drift(report):
        return Look("no drift" if digest else f"there is no {report} yet; `ovis drift`", memory)
    if digest in memory.started:
        return Look("a run was started for this report of drift already", memory)
    if version == learned:
        return Look(
            "drift, but the pipeline has learned these raw data: a run would change nothing. Add "
            "data of the new kind to them",
            memory,
        )
    if version in memory.started:
        says = f"drift, but a run was started for these data already ({version[:12]})"
        return Look(says, memory)
    look = _start(memory, version, f"drift, data {version[:12]}", config, now)
    started = (*memory.started, digest, version)[-KEPT:]
    kept = look.memory.model_copy(update={"started": started})
    return replace(look, memory=kept) if look.due else look


def _has_drift(report: Path) -> bool:
    try:
        return bool(json.loads(report.read_text(encoding="utf-8"))["drifted"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{report} is not a report of drift; `ovis drift` writes it") from error


def _calm(memory: Memory) -> Memory:
    return memory.model_copy(update={"seen": None, "seen_since": 0.0})


def _start(memory: Memory, version: str, reason: str, config: TriggersConfig, now: float) -> Look:
    """Start a run for a version, unless the day's are used up."""
    # A time to come is one from before the clock went back; it counts, or nothing would hold.
    recent = tuple(one for one in memory.times if one > now - DAY_SECONDS)
    if len(recent) >= config.per_day:
        hours = max((min(recent) + DAY_SECONDS - now) / 3600, 0.0)
        return Look(
            f"{reason}, but {len(recent)} runs were started within a day (triggers.per_day is "
            f"{config.per_day}); the next may start in {hours:.1f} hours",
            memory,
        )
    started = (*memory.started, version)[-KEPT:]
    count = memory.count + 1
    then = Memory(id=memory.id, started=started, times=(*recent, now), count=count)
    key = f"trigger-{memory.id}-{count}-{version}"
    return Look(f"{reason}: starting a run", then, due=True, reason=reason, key=key)


@contextmanager
def remembering(path: Path = TRIGGERS) -> Iterator[tuple[Memory, Callable[[Memory], None]]]:
    """Give the memory and a way to change it, to one look at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def remember(memory: Memory) -> None:
            write_text(path, memory.model_dump_json() + "\n")

        memory = Memory.read(path)
        remember(memory)  # before anything is started: its id may be a new one
        yield memory, remember
