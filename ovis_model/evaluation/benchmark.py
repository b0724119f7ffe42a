r"""A benchmark on disk: one YAML that describes it, one JSONL with an item per line.

    name: digits_single          items: digits_single.jsonl
    version: 1                   metric: exact
    description: One handwritten digit per image.

    {"id": "d-17", "image": ["images/17.png"], "question": "<image>\nWhich digit?", "answer": "7"}

Paths are relative to the YAML's folder and stay inside it.  The fingerprint covers all that
decides what a score means, so that two scores are compared only if they sat the same exam.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ovis_model.errors import DataError
from ovis_model.evaluation.metrics import true_box
from ovis_model.inference.messages import user_message
from ovis_model.reports import sha256_of_file
from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER


class BenchmarkItem(BaseModel):
    """One question with its media and its true answer.

    Attributes:
        id: Unique within the benchmark.
        image: Image files, relative to the benchmark's folder, in placeholder order.
        video: A video file, or its frames as image files.
        question: Text with one `<image>` per image, or one `<video>`, each a line of its own.
        answer: What a right answer is; a `<box>` for the metric `iou`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    image: tuple[str, ...] = ()
    video: str | tuple[str, ...] | None = None
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)

    @field_validator("image", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _text_and_media_agree(self) -> Self:
        if self.image and self.video is not None:
            raise ValueError("an item has images or one video, not both")
        for placeholder, media in (
            (IMAGE_PLACEHOLDER, self.image),
            (VIDEO_PLACEHOLDER, self.videos),
        ):
            in_text = self.question.count(placeholder)
            if in_text != len(media):
                raise ValueError(
                    f"the question has {in_text} {placeholder} placeholder(s) but the item "
                    f"carries {len(media)} such file(s)"
                )
        user_message(self.question)
        for path in self.media:
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts:
                raise ValueError(f"{path!r} leaves the benchmark's folder")
        return self

    @property
    def videos(self) -> tuple[str | tuple[str, ...], ...]:
        """The video as a tuple of none or one."""
        return () if self.video is None else (self.video,)

    @property
    def media(self) -> tuple[str, ...]:
        """All files of the item: images, the video file, or its frames."""
        if isinstance(self.video, str):
            return (self.video,)
        return self.image + (self.video or ())

    @property
    def prompt(self) -> str:
        """The question without placeholders, for people."""
        text = self.question.replace(IMAGE_PLACEHOLDER, "").replace(VIDEO_PLACEHOLDER, "")
        return text.strip()


class BenchmarkHeader(BaseModel):
    """What the YAML says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    version: int = Field(ge=1)
    items: str = Field(description="JSONL file beside the YAML")
    metric: Literal["exact", "iou"]
    description: str = ""


class Benchmark(BaseModel):
    """A benchmark with its items, read and checked."""

    model_config = ConfigDict(frozen=True)

    header: BenchmarkHeader
    folder: Path
    items: tuple[BenchmarkItem, ...]

    @property
    def name(self) -> str:
        """The name scores are filed under."""
        return self.header.name

    def path_of(self, media: str) -> Path:
        """Where a file of an item lies."""
        return self.folder / media

    def fingerprint(self, protocol: Mapping[str, Any]) -> str:
        """Digest everything that decides what a score means.

        Args:
            protocol: How answers were generated: thinking, budget, decoding.

        Raises:
            DataError: If a media file cannot be read.
        """
        digest = hashlib.sha256()
        exam = {
            "name": self.name,
            "version": self.header.version,
            "metric": self.header.metric,
            "protocol": dict(protocol),
        }
        digest.update(json.dumps(exam, sort_keys=True).encode())
        for item in self.items:
            digest.update(json.dumps(item.model_dump(mode="json"), sort_keys=True).encode())
            for media in item.media:
                digest.update(self._sha256(item, media).encode())
        return digest.hexdigest()

    def _sha256(self, item: BenchmarkItem, media: str) -> str:
        try:
            return sha256_of_file(self.path_of(media))
        except OSError as error:
            raise DataError(
                f"benchmark {self.name!r}, item {item.id!r}: {media} cannot be read "
                f"({error.strerror}); it should lie at {self.path_of(media)}"
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
    try:
        header = BenchmarkHeader.model_validate(yaml.safe_load(_read(path)))
    except (ValidationError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {_explain(error)}") from error
    items_path = path.parent / header.items
    items = tuple(_read_items(items_path))
    if not items:
        raise DataError(f"{items_path}: no item")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"{items_path}: more than one item has the id {item.id!r}")
        seen.add(item.id)
        if header.metric == "iou":
            _check_box(items_path, item)
    return Benchmark(header=header, folder=path.parent, items=items[:limit])


def _read_items(path: Path) -> Iterator[BenchmarkItem]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield BenchmarkItem.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}, line {number}: {_explain(error)}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _check_box(path: Path, item: BenchmarkItem) -> None:
    try:
        true_box(item.answer)
    except DataError as error:
        raise DataError(f"{path}, item {item.id!r}: {error}") from error


def _explain(error: ValidationError | yaml.YAMLError) -> str:
    if isinstance(error, yaml.YAMLError):
        return f"not valid YAML: {error}"
    findings = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        findings.append(f"{key}: {message}" if key else message)
    return "; ".join(findings)
