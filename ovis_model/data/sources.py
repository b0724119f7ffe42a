"""Which annotation files `validate` reads, and what each adds to its records.

    annotations              one file
    annotations: a datainfo  the official index of several files:
        {"geometry": {"meta_file": "geometry.json", "storage_type": "hybrid",
                      "data_format": "conversation", "image_dir": "images/"}}
    sources                  several files, each with its format and the folder of its media

In a datainfo, `meta_file` and `image_dir` are relative to the datainfo's folder, or absolute; both
must be below the raw data.  `storage_type` is not needed: what a file is, its content tells.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ovis_model.config import SourceConfig, ValidateConfig
from ovis_model.data.annotations import json_text
from ovis_model.data.annotations.coordinates import Size, SizeOf
from ovis_model.data.annotations.files import MAX_LINE_BYTES
from ovis_model.data.annotations.foreign_chat import ADDRESS
from ovis_model.data.annotations.foreign_formats import CONVERTERS, FORMATS
from ovis_model.data.annotations.formats import Record, read_records
from ovis_model.data.media.images import read_size
from ovis_model.errors import ConfigError, DataError

_META_FILE = "meta_file"
#: What the official code calls a set of conversations.
_CONVERSATION = "conversation"
_MAX_CACHED_SIZES = 4096


@dataclass(frozen=True)
class _Part:
    """One file, and what its records get.

    Attributes:
        path: The file.
        shown: Its path below the raw data, for people.
        format: A name of `FORMATS` that a single file can have.
        media: Folder below the raw data that its media paths start from; "" is the raw data.
        source: Name of the set, or None.
    """

    path: Path
    shown: str
    format: str = "auto"
    media: str = ""
    source: str | None = None


def read_annotations(
    raw_data: Path, config: ValidateConfig, *, size_of: SizeOf | None = None
) -> Iterator[Record]:
    """Read every annotation file that the config names, in its order.

    A record of one of several sets knows its `source`, and so will its sample, unless it names
    one itself.  Where there are several files, `place` begins with the file's name.

    Args:
        raw_data: Folder with the annotations and all media.
        config: `annotations`, `format` and `data_name`, or `sources`; and `coordinates`.
        size_of: Returns the size of the picture at a path below `raw_data`; its header, if None.

    Raises:
        ConfigError: If a path leaves the raw data, or a format or name is not known.
        DataError: If a file cannot be read at all.
    """
    parts = _parts(raw_data, config)
    measure = size_of or _size_reader(raw_data)
    for part in parts:
        for record in _read_part(part, config.coordinates, measure):
            place = f"{part.shown}, {record.place}" if len(parts) > 1 else record.place
            yield replace(record, place=place) if place != record.place else record


def read_source(
    raw_data: Path,
    source: SourceConfig,
    *,
    coordinates: str = "ovis",
    size_of: SizeOf | None = None,
) -> Iterator[Record]:
    """Read the records of one set of annotations.

    Raises:
        ConfigError: If a path leaves the raw data, or the format is not known.
        DataError: If a file cannot be read at all.
    """
    for part in _parts_of_source(raw_data, source):
        yield from _read_part(part, coordinates, size_of or _size_reader(raw_data))


def annotation_files(raw_data: Path, config: ValidateConfig) -> list[Path]:
    """List every file that `read_annotations` reads, an index before what it names.

    Raises:
        ConfigError: As `read_annotations` does.
        DataError: If an index cannot be read.
    """
    indices = [
        raw_data / name
        for name in (
            [source.annotations for source in config.sources]
            if config.sources
            else [config.annotations]
        )
    ]
    return list(dict.fromkeys([*indices, *(part.path for part in _parts(raw_data, config))]))


def is_index(path: Path) -> bool:
    """Tell an official index, which names files of samples, from such a file."""
    return _is_datainfo(path, "auto")


def _parts(raw_data: Path, config: ValidateConfig) -> list[_Part]:
    if config.sources:
        if config.data_name is not None:
            raise ConfigError(
                "validate.data_name chooses from a datainfo file in validate.annotations, which "
                "is not read when there are validate.sources; remove one of them"
            )
        return [part for source in config.sources for part in _parts_of_source(raw_data, source)]
    path = _below(raw_data, config.annotations, "validate.annotations")
    _check_format(config.format, "validate.format")
    if _is_datainfo(path, config.format):
        return _read_datainfo(path, raw_data, config.data_name)
    if config.data_name is not None:
        raise ConfigError(
            f"validate.data_name is {config.data_name!r}, but {path} is no datainfo file, which "
            "would give names; remove it"
        )
    return [_Part(path, config.annotations, config.format)]


def _parts_of_source(raw_data: Path, source: SourceConfig) -> list[_Part]:
    key = f"validate.sources, {source.name}"
    path = _below(raw_data, source.annotations, f"{key}: annotations")
    _check_format(source.format, f"{key}: format")
    if source.media:
        _below(raw_data, source.media, f"{key}: media")
    if _is_datainfo(path, source.format):
        parts = _read_datainfo(path, raw_data, None)
        return [
            replace(part, source=source.name, media=_join(source.media, part.media))
            for part in parts
        ]
    return [_Part(path, source.annotations, source.format, source.media, source.name)]


def _below(raw_data: Path, given: str, key: str) -> Path:
    parts = PurePosixPath(given)
    if not given or "\0" in given or parts.is_absolute() or ".." in parts.parts:
        raise ConfigError(f"{key} is {given!r}; give a path below validate.raw_data, without '..'")
    return raw_data / parts


def _check_format(name: str, key: str) -> None:
    if name not in FORMATS:
        raise ConfigError(f"{key} is {name!r}; known are {', '.join(FORMATS)}")


def _is_datainfo(path: Path, name: str) -> bool:
    """Tell an index of files; not by decoding a gigabyte of samples."""
    if name != "auto":
        return name == "datainfo"
    if not path.is_file() or path.stat().st_size > MAX_LINE_BYTES:
        return False
    data = path.read_bytes()
    if f'"{_META_FILE}"'.encode() not in data:
        return False
    try:
        document, _ = json_text.decode_document(data)
    except ValueError:
        return False
    return (
        isinstance(document, dict)
        and bool(document)
        and all(isinstance(v, dict) and _META_FILE in v for v in document.values())
    )


def _read_datainfo(path: Path, raw_data: Path, names: str | None) -> list[_Part]:
    try:
        document, _ = json_text.decode_document(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"datainfo file {path} is missing; set validate.annotations") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or isinstance(document, json_text.Repeats):
        raise DataError(f"{path} is not an object of data sets, each with its own name")
    chosen = list(document) if names is None else names.split("|")
    unknown = [name for name in chosen if name not in document]
    if unknown:
        raise DataError(
            f"{path} has no data set {unknown[0]!r}; validate.data_name can be "
            f"{', '.join(document)}, several joined by '|'"
        )
    if len(set(chosen)) < len(chosen):
        raise DataError(f"validate.data_name names a data set twice: {names!r}")
    return [_part_of_datainfo(name, document[name], path, raw_data) for name in chosen]


def _part_of_datainfo(name: str, entry: Any, path: Path, raw_data: Path) -> _Part:
    where = f"{path}, data set {name!r}"
    if not isinstance(entry, Mapping) or not isinstance(entry.get(_META_FILE), str):
        raise DataError(f"{where}: {_META_FILE!r} is missing; it names the file with the samples")
    given = entry.get("data_format", _CONVERSATION)
    if given not in (_CONVERSATION, *CONVERTERS):
        known = ", ".join((_CONVERSATION, *CONVERTERS))
        raise DataError(f"{where}: data_format is {given!r}; known are {known}")
    shown = _relative(entry[_META_FILE], path.parent, raw_data, f"{where}: {_META_FILE}")
    folder = entry.get("image_dir") or ""
    if not isinstance(folder, str):
        raise DataError(f"{where}: image_dir is not a path")
    media = _relative(folder, path.parent, raw_data, f"{where}: image_dir")
    return _Part(
        path=raw_data / shown,
        shown=shown,
        format="auto" if given == _CONVERSATION else given,
        media="" if media == "." else media,
        source=name,
    )


def _relative(given: str, base: Path, raw_data: Path, where: str) -> str:
    """Return a path as seen from the raw data.  Links are looked at when a file is opened."""
    target = os.path.normpath(os.path.abspath(base / given))  # noqa: PTH100 - Path keeps '..'
    for root in (os.path.abspath(raw_data), str(raw_data.resolve())):  # noqa: PTH100
        relative = Path(os.path.relpath(target, root)).as_posix()
        if relative != ".." and not relative.startswith("../"):
            return relative
    raise DataError(f"{where} is {given!r}, which is not below the raw data ({raw_data})")


def _read_part(part: _Part, coordinates: str, measure: SizeOf) -> Iterator[Record]:
    def size_of(path: str) -> Size:
        return measure(_join(part.media, path))

    for record in read_records(
        part.path, format=part.format, coordinates=coordinates, size_of=size_of
    ):
        if part.source is None and not part.media:
            yield record
        else:
            yield replace(record, value=_placed(record.value, part), source=part.source)


def _placed(value: Any, part: _Part) -> Any:
    """Put the folder in front of a record's paths, and name its source."""
    if not isinstance(value, dict):
        return value
    placed = dict(value)
    for key in ("image", "video"):
        if key in placed:
            placed[key] = _join_all(part.media, placed[key])
    if part.source is not None and placed.get("source") is None:
        placed["source"] = part.source
    return placed


def _join_all(folder: str, paths: Any) -> Any:
    if isinstance(paths, list):
        return [_join(folder, path) if isinstance(path, str) else path for path in paths]
    return _join(folder, paths) if isinstance(paths, str) else paths


def _join(folder: str, path: str) -> str:
    """Join, but leave alone what validation will refuse for what it is: addresses and the like."""
    if not folder or not path or path.startswith(("/", "~")) or ADDRESS.match(path):
        return path or folder
    return f"{PurePosixPath(folder).as_posix()}/{path}"


def _size_reader(raw_data: Path) -> SizeOf:
    root = raw_data.resolve()

    @functools.lru_cache(maxsize=_MAX_CACHED_SIZES)
    def size_of(path: str) -> Size:
        try:
            target = (root / path).resolve()
            is_safe = target.is_relative_to(root) and target.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"the size of {path!r} cannot be read: {error}") from error
        if not is_safe:
            raise DataError(
                f"the size of {path!r} cannot be read: no such file below the raw data"
            )
        return read_size(target)

    return size_of
