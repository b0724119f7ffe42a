"""What differs between two versions of a dataset, sample by sample and file by file.

    found = compare(read_version(Path("old/validated")), read_version(Path("data/validated")))
    found.changed                       {"s7": ["text", "split"], ...}

A version is a folder that validation or extraction wrote, or an annotation file with its media.
Of a sample only digests are kept, so that a million of them fit in memory.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovis_model.config import ValidateConfig
from ovis_model.data.annotations.formats import Record
from ovis_model.data.schema import Sample, read_samples
from ovis_model.data.sources import read_annotations
from ovis_model.errors import DataError
from ovis_model.reports import sha256_of_file

PARTS = ("train", "holdout")
#: Extraction names a picture by its content.
_NAMED_BY_CONTENT = re.compile(r"(?:^|/)([0-9a-f]{64})\.[a-z]+$")
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample, as far as comparing it needs.

    Attributes:
        text: Digest of its turns.
        media: Digest of the bytes of its media, in order; renaming a file changes nothing.
        settings: Digest of everything else, such as the part of a video that is shown.
        part: "train", "holdout", or "" in an annotation file.
    """

    text: bytes
    media: bytes
    settings: bytes
    part: str


@dataclass(frozen=True)
class Version:
    """One state of a dataset.

    Attributes:
        entries: Samples by id; the second sample of one id is named "id (2)".
        media: sha256 of each file by the path that samples name; None if there is no such file.
        unreadable: Places of records that are no samples.
    """

    entries: Mapping[str, Entry]
    media: Mapping[str, str | None]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataDiff:
    """What happened on the way from one version to another; names in alphabetical order.

    Attributes:
        num_before, num_after: Samples of the two versions.
        added, removed: Ids that only the newer, or only the older version has.
        changed: What changed of the samples that both have: "text", "media", "settings", "split".
        media_added, media_removed, media_changed: Likewise for paths; changed are files that both
            versions have.
        missing_before, missing_after: Paths at which there is no file in that version.
        unreadable_before, unreadable_after: Records that are no samples and were not compared.
    """

    num_before: int
    num_after: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    media_added: tuple[str, ...]
    media_removed: tuple[str, ...]
    media_changed: tuple[str, ...]
    missing_before: tuple[str, ...] = ()
    missing_after: tuple[str, ...] = ()
    unreadable_before: tuple[str, ...] = ()
    unreadable_after: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the two versions are the same."""
        found = (self.added, self.removed, self.changed)
        return not any((*found, self.media_added, self.media_removed, self.media_changed))

    def count_changes(self) -> dict[str, int]:
        """Count changed samples by what changed of them."""
        counts = Counter(what for found in self.changed.values() for what in found)
        return {what: counts[what] for what in ("text", "media", "settings", "split")}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "num_changed": self.count_changes()}


def compare(before: Version, after: Version) -> DataDiff:
    """Tell what was added, removed and changed from one version to the next."""
    old, new = before.entries, after.entries
    changes = {
        name: tuple(_changes(old[name], new[name]))
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    }
    old_media, new_media = before.media, after.media
    return DataDiff(
        num_before=len(old),
        num_after=len(new),
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed={name: found for name, found in changes.items() if found},
        media_added=tuple(sorted(new_media.keys() - old_media.keys())),
        media_removed=tuple(sorted(old_media.keys() - new_media.keys())),
        media_changed=tuple(
            path
            for path in sorted(old_media.keys() & new_media.keys())
            if None not in (old_media[path], new_media[path])
            and old_media[path] != new_media[path]
        ),
        missing_before=_missing(before),
        missing_after=_missing(after),
        unreadable_before=before.unreadable,
        unreadable_after=after.unreadable,
    )


def _missing(version: Version) -> tuple[str, ...]:
    return tuple(sorted(path for path, digest in version.media.items() if digest is None))


def _changes(old: Entry, new: Entry) -> Iterator[str]:
    for name in ("text", "media", "settings"):
        if getattr(old, name) != getattr(new, name):
            yield name
    # An annotation file is not split: nothing moved from one side to the other.
    if old.part and new.part and old.part != new.part:
        yield "split"


def read_version(path: Path, *, media_root: Path | None = None) -> Version:
    """Read a version of a dataset.

    Args:
        path: A folder with train.jsonl and holdout.jsonl, or an annotation file of any format
            that is detected.
        media_root: Where the paths of an annotation file start from; None is its own folder.

    Raises:
        DataError: If it is neither, or cannot be read.
    """
    if path.is_dir():
        return _read_folder(path)
    builder = _Builder(media_root or path.parent, {})
    unreadable = []
    config = ValidateConfig(raw_data=str(path.parent), annotations=path.name)
    for record in read_annotations(path.parent, config):
        sample = _parse(record)
        if sample is None:
            unreadable.append(record.place)
        else:
            builder.add(sample, "")
    return Version(builder.entries, builder.media, tuple(unreadable))


def _parse(record: Record) -> Sample | None:
    try:
        return record.parse()
    except DataError:
        return None


def _read_folder(folder: Path) -> Version:
    missing = [f"{part}.jsonl" for part in PARTS if not (folder / f"{part}.jsonl").is_file()]
    if missing:
        raise DataError(
            f"{folder} is no version of a dataset, it has no {' and no '.join(missing)}; name a "
            "folder that `dvc repro validate` or `dvc repro extract` wrote, or an annotation file"
        )
    builder = _Builder(folder, _read_digests(folder / "media.jsonl"))
    for part in PARTS:
        for sample in read_samples(folder / f"{part}.jsonl"):
            builder.add(sample, part)
    return Version(builder.entries, builder.media)


def _read_digests(path: Path) -> dict[str, str | None]:
    """Read what validation noted about each file; extraction notes nothing."""
    if not path.is_file():
        return {}
    digests: dict[str, str | None] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                digests[entry["path"]] = entry["sha256"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number}: {error!r}. The pipeline writes this file: run "
                    "`dvc repro validate` to write it anew"
                ) from error
    return digests


class _Builder:
    """Takes samples one by one and keeps their digests."""

    def __init__(self, root: Path, known: Mapping[str, str | None]) -> None:
        self.entries: dict[str, Entry] = {}
        self.media: dict[str, str | None] = {}
        self._root = root
        self._known = known
        self._seen: Counter[str] = Counter()

    def add(self, sample: Sample, part: str) -> None:
        name = self._name(sample.id)
        contents = [self._digest(path) or f"missing {path}" for path in sample.media]
        other = (sample.video_start, sample.video_end, sample.fit, sample.source)
        self.entries[name] = Entry(
            text=_short(f"{turn.role}\0{turn.value}" for turn in sample.conversations),
            media=_short((str(len(sample.image)), *contents)),
            settings=_short(map(repr, other)),
            part=part,
        )

    def _name(self, sample_id: str) -> str:
        name = sample_id
        while name in self.entries:
            self._seen[sample_id] += 1
            name = f"{sample_id} ({self._seen[sample_id] + 1})"
        return name

    def _digest(self, path: str) -> str | None:
        if path not in self.media:
            self.media[path] = self._find(path)
        return self.media[path]

    def _find(self, path: str) -> str | None:
        if path in self._known:
            return self._known[path]
        if match := _NAMED_BY_CONTENT.search(path):
            return match[1]
        if "\0" in path:
            return None
        file = (self._root / path).resolve()
        # What lies elsewhere is none of the dataset's business, whatever a sample says.
        is_inside = file.is_relative_to(self._root.resolve())
        return sha256_of_file(file) if is_inside and file.is_file() else None


def _short(texts: Iterable[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        # Its length first: ("ab", "c") is not ("a", "bc").
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.digest()
