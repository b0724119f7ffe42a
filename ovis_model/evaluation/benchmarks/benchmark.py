"""A benchmark on disk: one YAML that describes it, and a file with its items.

    name: digits_single          items: digits_single.jsonl
    version: 1                   metric: exact

Items are JSON lines of this project's own, a table of VLMEvalKit, or conversations.  The
fingerprint covers all that decides what a score means, so that two scores are compared only if
they sat the same exam.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ovis_model.errors import DataError
from ovis_model.evaluation.benchmarks.contents import Contents
from ovis_model.evaluation.benchmarks.conversations import read_conversations
from ovis_model.evaluation.benchmarks.explain import naming
from ovis_model.evaluation.benchmarks.header import BenchmarkHeader, Format, complete
from ovis_model.evaluation.benchmarks.jsonl import read_jsonl, read_text
from ovis_model.evaluation.benchmarks.media import MediaStore, md5_of_file
from ovis_model.evaluation.benchmarks.table_images import TableImages
from ovis_model.evaluation.benchmarks.vlmevalkit import read_vlmevalkit
from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.evaluation.prompts import Prompt, build_prompt
from ovis_model.evaluation.scoring.aggregates import AGGREGATES
from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile
from ovis_model.evaluation.scoring.score import Score, compute_score
from ovis_model.reports import sha256_of_file

_READERS: Mapping[Format, Callable[[Path, BenchmarkHeader, Path], Contents]] = {
    "jsonl": read_jsonl,
    "vlmevalkit": read_vlmevalkit,
    "conversations": read_conversations,
}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark with its items, read and checked.

    Attributes:
        header: What the YAML says.
        path: The file with the items.
        media: Finds the pictures and videos that items name.
        items: In the order of the file.
        dropped: Rows that were left out, by reason.
        is_whole: Whether no limit cut the items short.
    """

    header: BenchmarkHeader
    path: Path
    media: MediaStore
    items: tuple[BenchmarkItem, ...]
    dropped: Mapping[str, int]
    is_whole: bool

    @property
    def name(self) -> str:
        """The name scores are filed under."""
        return self.header.name

    @cached_property
    def is_official_file(self) -> bool | None:
        """Whether the items are the published ones, None if their digest is not known."""
        return md5_of_file(self.path) == self.header.md5 if self.header.md5 else None

    def source_of(self, name: str) -> Path | bytes:
        """Find a medium of an item: the path of a file, or the bytes of a picture.

        Raises:
            DataError: If the benchmark holds no such picture.
        """
        return self.media.source(name)

    def prompt(self, item: BenchmarkItem) -> Prompt:
        """Put a question as this benchmark does.

        Raises:
            DataError: If the item's text and media do not fit.
        """
        with naming(f"benchmark {self.name!r}, item {item.id!r}"):
            return build_prompt(item, self.header.prompt)

    def mark(self, item: BenchmarkItem, answer: str, profile: Profile = DEFAULT_PROFILE) -> Mark:
        """Judge what is left of an output after its thought."""
        return self.header.rule.mark(answer, item, self.header.metric_options(profile))

    def score(self, marks: Sequence[Mark]) -> Score:
        """Put marks together, one per item in their order."""
        return compute_score(self.items, marks, self.header.rule, self.header.aggregate_name)

    def fingerprint(self, protocol: Mapping[str, Any]) -> str:
        """Digest everything that decides what a score means.

        Args:
            protocol: How answers were generated: thinking, budget, decoding.

        Raises:
            DataError: If a media file cannot be read.
        """
        digest = hashlib.sha256()
        exam = {**self.header.exam_content, "protocol": dict(protocol)}
        digest.update(json.dumps(exam, sort_keys=True).encode())
        in_table = isinstance(self.media, TableImages)
        if in_table:
            # Of all pictures at once: one by one they would be decoded for nothing.
            digest.update(sha256_of_file(self.path).encode())
        for item in self.items:
            digest.update(json.dumps(item.exam_content, sort_keys=True).encode())
            for name in () if in_table else item.media:
                digest.update(self._sha256(item, name).encode())
        return digest.hexdigest()

    def _sha256(self, item: BenchmarkItem, name: str) -> str:
        try:
            return self.media.sha256(name)
        except OSError as error:
            raise DataError(
                f"benchmark {self.name!r}, item {item.id!r}: {name} cannot be read "
                f"({error.strerror}); it should lie at {error.filename}"
            ) from error


def load_benchmarks(folder: Path, *, limit: int | None = None) -> tuple[Benchmark, ...]:
    """Load every `*.yaml` of a folder, in order of name.

    Args:
        folder: Where the YAML files lie.
        limit: Keep only the first items of each; None keeps all.

    Raises:
        DataError: If there is none, two share a name, or one cannot be used.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise DataError(f"no benchmark: {folder} holds no *.yaml file (see evaluate.benchmarks)")
    loaded = [load_benchmark(path, limit=limit) for path in paths]
    names = [benchmark.name for benchmark in loaded]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{folder}: more than one benchmark is named {', '.join(twice)}")
    return tuple(sorted(loaded, key=lambda benchmark: benchmark.name))


def load_benchmark(path: Path, *, limit: int | None = None) -> Benchmark:
    """Load one benchmark.

    Raises:
        DataError: Naming the file, and the line or key, that cannot be used.
    """
    text = read_text(path)
    with naming(str(path)):
        values = yaml.safe_load(text)
        known = complete(values) if isinstance(values, dict) else values
        header = BenchmarkHeader.model_validate(known)
    items_path = path.parent / header.items
    folder = items_path.parent if header.media is None else path.parent / header.media
    contents = _READERS[header.items_format](items_path, header, folder)
    _check(items_path, header, contents)
    return Benchmark(
        header=header,
        path=items_path,
        media=contents.media,
        items=contents.items[:limit],
        dropped=contents.dropped,
        is_whole=limit is None or limit >= len(contents.items),
    )


def _check(path: Path, header: BenchmarkHeader, contents: Contents) -> None:
    """Refuse what could not be marked, before any model runs."""
    if not contents.items:
        left_out = ", ".join(f"{count} {why}" for why, count in contents.dropped.items())
        raise DataError(f"{path}: no item{f' ({left_out})' if left_out else ''}")
    options, unit = header.metric_options(), AGGREGATES[header.aggregate_name].unit
    seen: set[str] = set()
    for item in contents.items:
        if item.id in seen:
            raise DataError(f"{path}: more than one item has the id {item.id!r}")
        seen.add(item.id)
        with naming(f"{path}, item {item.id!r}"):
            header.rule.check(item, options)
            if unit is not None:
                unit(item)
