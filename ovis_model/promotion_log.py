"""The record of every move of an alias: JSON lines, each bound to the one before by its sha256.

    {"number": 1, "event": "intent", "change": 1, "action": "promote", "moves": [{"alias":
     "champion", "from": null, "to": 1}], "time": "...", "who": "...", "verdict": "<digest>",
     "forced": false, "reason": "...", "previous": "<sha256>", "sha256": "<sha256>"}
    {"number": 2, "event": "done", "change": 1, ...}

A line with event `intent` is on the disk before any alias moves, one with `done` or `abandoned`
follows when that is over; so a process that died in between left an intent without an end.  A
line that was edited, deleted or put elsewhere breaks the chain.  Lines cut off the end do not:
the registry keeps the newest line's sha256 for that (`Registry.publish_log`).
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ovis_model.errors import PromotionError
from ovis_model.reports import write_text

#: What the first line has for the sha256 of the line before it.
BEGINNING = "0" * 64
WHAT_NOW = (
    "Put the file back from a copy; or, if there is none, `ovis promotions --restart --reason "
    "TEXT` sets it aside and begins a new one that says so."
)

Event = Literal["intent", "done", "abandoned"]
INTENT: Event = "intent"
DONE: Event = "done"
ABANDONED: Event = "abandoned"
Action = Literal["register", "promote", "rollback", "restart", "approve", "reject"]


class Move(BaseModel):
    """One alias from one version to another; None is nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    alias: str
    before: int | None = Field(alias="from")
    after: int | None = Field(alias="to")

    @classmethod
    def of(cls, alias: str, before: int | None, after: int | None) -> Self:
        """Make one under the names that Python allows."""
        return cls.model_validate({"alias": alias, "from": before, "to": after})

    def __str__(self) -> str:
        return f"{self.alias} {self.before or 'nowhere'} -> {self.after or 'nowhere'}"


@dataclass(frozen=True)
class Change:
    """What somebody wants to be done, and why.

    Attributes:
        action: Which command asks for it.
        moves: In the order in which they are made.
        verdict: Digest of what the gate judged and how, or None.
        reason: In words.
        forced: Whether it is done against the gate.
    """

    action: Action
    moves: Sequence[Move]
    verdict: str | None
    reason: str
    forced: bool = False


class Entry(BaseModel):
    """One line.

    `change` is the number of the intent that the line is about: an intent's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    event: Event
    change: int
    action: Action
    moves: tuple[Move, ...]
    time: str
    who: str
    verdict: str | None
    forced: bool
    reason: str
    previous: str
    sha256: str

    def to_line(self) -> str:
        """Return the line as it is in the file, without its end."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    def digest(self) -> str:
        """Compute what `sha256` has to be."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class PromotionLog:
    """One file of such lines; whoever appends holds the registry's lock."""

    def __init__(self, path: Path, *, who: str) -> None:
        """Name the file, which need not be there yet, and who is writing now."""
        self.path = path
        self._who = who

    def read(self) -> list[Entry]:
        """Read and verify every line; one that a dying process did not finish is left out.

        Raises:
            PromotionError: Naming the first line that is not what was written there.
        """
        return read_entries(self._data(), self.path)

    def check_head(self, entries: Sequence[Entry], head: str | None) -> None:
        """Compare the end of the log with what the registry knows of it.

        The line comes first and its sha256 follows, so the registry may be one line behind.

        Raises:
            PromotionError: If lines are missing, or the registry has never seen these.
        """
        newest = (entries[-1].sha256, entries[-1].previous) if entries else (BEGINNING,)
        if (head or BEGINNING) not in newest:
            raise PromotionError(
                f"{self.path} does not end with the line that the registry knows "
                f"(sha256 {(head or BEGINNING)[:12]}...): lines are missing at its end, or "
                f"belong to another registry. {WHAT_NOW}"
            )

    def append(self, event: Event, change: Change, *, of: int | None = None) -> Entry:
        """Add a line and see it on the disk; an unfinished one is cut off first.

        Args:
            event: What has happened.
            change: What it is about.
            of: Number of the intent; None is this line's own.
        """
        entries = self.read()
        number = len(entries) + 1
        unsigned = Entry(
            number=number,
            event=event,
            change=of or number,
            action=change.action,
            moves=tuple(change.moves),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            who=self._who,
            verdict=change.verdict,
            forced=change.forced,
            reason=change.reason,
            previous=entries[-1].sha256 if entries else BEGINNING,
            sha256="",
        )
        entry = unsigned.model_copy(update={"sha256": unsigned.digest()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = _as_data(entries)
        with self.path.open("r+b" if self.path.exists() else "x+b") as file:
            end = min(file.seek(0, os.SEEK_END), len(whole))
            file.truncate(file.seek(end))
            file.write(whole[end:] + _as_data([entry]))
            file.flush()
            os.fsync(file.fileno())
        return entry

    def catch_up(self, data: bytes) -> None:
        """Take the lines that another copy of this log has and this one has not.

        Raises:
            PromotionError: If neither is the beginning of the other.
        """
        here, there = self.read(), read_entries(data, self.path)
        shared = min(len(here), len(there))
        if here[:shared] != there[:shared]:
            raise PromotionError(
                f"{self.path} and the copy of it in the registry differ from line "
                f"{sum(one == two for one, two in zip(here, there, strict=False)) + 1} on: two "
                "places promoted in the same moment, or one was changed. Compare the two, move "
                "the wrong one away, and see with `ovis promotions` where the aliases are"
            )
        if len(there) > len(here):
            write_text(self.path, data.decode())

    def set_aside(self) -> str:
        """Move a damaged file out of the way and return its new name and sha256, in words."""
        data = self._data()
        digest = hashlib.sha256(data).hexdigest()
        aside = self.path.with_name(f"{self.path.stem}.damaged-{digest[:12]}.jsonl")
        if data:
            self.path.replace(aside)
        return f"{aside.name}, sha256 {digest}"

    def _data(self) -> bytes:
        return self.path.read_bytes() if self.path.is_file() else b""


def _as_data(entries: Sequence[Entry]) -> bytes:
    return "".join(entry.to_line() + "\n" for entry in entries).encode()


def read_entries(data: bytes, path: Path) -> list[Entry]:
    """Read and verify the lines of a log; `path` is for messages.

    Raises:
        PromotionError: Naming the first line that is not what was written there.
    """
    *lines, torn = data.split(b"\n")
    entries: list[Entry] = []
    for line in lines:
        previous = entries[-1].sha256 if entries else BEGINNING
        problem, entry = _check(line, len(entries) + 1, previous)
        if entry is None:
            raise PromotionError(f"{path}, line {len(entries) + 1}, {problem}. {WHAT_NOW}")
        entries.append(entry)
    # Without its end, a line is half of one, unless only the end is lost.
    _, last = _check(torn, len(entries) + 1, entries[-1].sha256 if entries else BEGINNING)
    return [*entries, last] if last else entries


def _check(line: bytes, number: int, previous: str) -> tuple[str, Entry | None]:
    """Return the entry in a line, or what is wrong with it."""
    try:
        entry = Entry.model_validate_json(line)
    except ValidationError:
        return "is not a line of this log", None
    if entry.digest() != entry.sha256 or entry.to_line().encode() != line:
        return "was edited: its sha256 is another one", None
    if (entry.number, entry.previous) != (number, previous):
        problem = f"is number {entry.number} and does not follow the line before it: a line was "
        return problem + "deleted, added or moved", None
    return "", entry
