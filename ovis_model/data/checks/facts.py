"""The facts: what is so about every sample, every turn and every medium, judged by nobody yet.

Three tables, one row per sample, per turn and per medium of a sample; the column `row` of the
other two is the sample's row.  A record that is no sample is a row with a `schema_error` instead
of an exception that would hide the rows after it.  Pixels and whole texts are never in a table.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from ovis_model.data.annotations.formats import Record
from ovis_model.data.checks.inspection import unsafe_reason
from ovis_model.data.checks.media_fact import Kind, MediaFact
from ovis_model.data.checks.spool import SampleSpool
from ovis_model.data.checks.text_facts import (
    TURN_COLUMNS,
    count_placeholders,
    kinds_of_media,
    turn_facts,
)
from ovis_model.data.frame_folders import list_pictures
from ovis_model.data.schema import Sample
from ovis_model.errors import DataError

Table = Literal["samples", "turns", "media"]
TABLES: tuple[Table, ...] = get_args(Table)
#: Columns of the sample table that reading alone fills, and their pandas types.
SAMPLE_COLUMNS = {
    "id": "object",
    "place": "object",
    "source": "object",
    "not_json": "object",
    "schema_error": "object",
    "unsafe_id": "object",
    "generated_id": "object",
    "roles": "object",
    "num_answers": "Int64",
    "media_kinds": "object",
    "num_images": "Int64",
    "num_image_placeholders": "Int64",
    "num_videos": "Int64",
    "num_video_placeholders": "Int64",
    "num_listed_frames": "Int64",
}
#: An id that, were it ever taken for a path, would lead out of its folder.
_UNSAFE_ID = re.compile(r"^[/~\\]|(^|[/\\])\.\.([/\\]|$)|\0")
_UNKNOWN = -1


@dataclass
class Survey:
    """What reading the annotations told, before any medium was opened.

    Attributes:
        spool: The parsed samples, by row.
        line_keys: 64-bit digest of each row's canonical line; 0 where there is no sample.
        media: Every path that a sample names, with what it is taken for, once.
        uses: Pairs of a sample's row and the index of a medium, flat: r0, m0, r1, m1, ...
        notes: How many records had something put right while they were read, by what it was.
        ignored_keys: How many records have a key that nothing reads, by key.
    """

    spool: SampleSpool
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in SAMPLE_COLUMNS}
    )
    turn_rows: "array[int]" = field(default_factory=lambda: array("q"))
    turn_columns: tuple[list[Any], ...] = field(
        default_factory=lambda: tuple([] for _ in TURN_COLUMNS)
    )
    line_keys: "array[int]" = field(default_factory=lambda: array("Q"))
    media: dict[tuple[str, Kind], int] = field(default_factory=dict)
    uses: "array[int]" = field(default_factory=lambda: array("q"))
    notes: dict[str, int] = field(default_factory=dict)
    ignored_keys: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["id"])

    def media_of(self) -> Iterator[tuple[Kind, str]]:
        """List every medium in the order of its index."""
        for path, kind in self.media:
            yield kind, path


def survey(records: Iterable[Record], raw_data: Path, spool: SampleSpool) -> Survey:
    """Read every record once.

    Args:
        records: Records of the annotations.
        raw_data: The folder that paths are relative to and must not leave.
        spool: Where the samples go.
    """
    found = Survey(spool)
    root = raw_data.resolve()
    for record in records:
        _count_notes(record, found)
        values: dict[str, Any] = {
            "id": record.id,
            "place": record.place,
            "source": record.source,
            "generated_id": record.id if record.has_generated_id else None,
        }
        sample = None
        try:
            # How a sample is made to fit is decided here, not by whoever wrote it.
            sample = _with_frames(record.parse().model_copy(update={"fit": None}), root)
        except DataError as error:
            values["not_json" if record.code == "not_json" else "schema_error"] = str(error)
        else:
            values.update(_sample_facts(sample))
            _add_parts(sample, found)
        for name, column in found.columns.items():
            column.append(values.get(name))
        line = spool.append(sample)
        found.line_keys.append(_key(line) if line else 0)
    return found


def _key(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") or 1


def _count_notes(record: Record, found: Survey) -> None:
    for note in record.notes:
        found.notes[note] = found.notes.get(note, 0) + 1
    if isinstance(record.value, Mapping):
        for key in record.value.keys() - Sample.model_fields.keys():
            name = repr(key)[1:-1]
            found.ignored_keys[name] = found.ignored_keys.get(name, 0) + 1


def _with_frames(sample: Sample, root: Path) -> Sample:
    """Put the pictures of a folder in place of the folder, where `video` names one."""
    video = sample.video
    if not isinstance(video, str) or unsafe_reason(video, root) is not None:
        return sample
    folder = root / video
    if not folder.is_dir():
        return sample
    try:
        pictures = list_pictures(folder)
    except DataError as error:
        raise DataError(f"video: {error}".replace(f"{root}{os.sep}", "")) from error
    names = [f"{video.rstrip('/')}/{path.name}" for path in pictures]
    return sample.model_copy(update={"video": tuple(names)})


def _sample_facts(sample: Sample) -> dict[str, Any]:
    roles = [turn.role for turn in sample.conversations]
    num_images, num_videos = count_placeholders(sample)
    return {
        "source": sample.source,
        "unsafe_id": sample.id if _UNSAFE_ID.search(sample.id) else None,
        "roles": " ".join(roles),
        "num_answers": roles.count("gpt"),
        "media_kinds": kinds_of_media(sample),
        "num_images": len(sample.image),
        "num_image_placeholders": num_images,
        "num_videos": int(sample.video is not None),
        "num_video_placeholders": num_videos,
        "num_listed_frames": len(sample.frames),
    }


def _add_parts(sample: Sample, found: Survey) -> None:
    row = len(found)
    for turn in sample.conversations:
        found.turn_rows.append(row)
        for column, value in zip(found.turn_columns, turn_facts(turn), strict=True):
            column.append(value)
    for path in sample.media:
        kind: Kind = "video" if path == sample.video else "image"
        found.uses.append(row)
        found.uses.append(found.media.setdefault((path, kind), len(found.media)))


@dataclass(frozen=True)
class Facts:
    """The three tables, and what the rows were made of.

    Attributes:
        samples: One row per record, in order.
        turns: One row per turn.
        media: One row per use of a medium by a sample; `medium` numbers the media.
        found: What is known of each medium, by its number.
    """

    samples: pd.DataFrame
    turns: pd.DataFrame
    media: pd.DataFrame
    found: Sequence[MediaFact]

    @property
    def tables(self) -> dict[Table, pd.DataFrame]:
        """The three tables by name."""
        return {"samples": self.samples, "turns": self.turns, "media": self.media}


def make_tables(read: Survey, found: Sequence[MediaFact]) -> Facts:
    """Lay out what was read and what was found at the paths as three tables.

    Args:
        read: What the annotations told.
        found: One fact per medium, in the order of `Survey.media_of`.
    """
    num_rows = len(read)
    samples = pd.DataFrame(
        {name: _column(read.columns[name], kind) for name, kind in SAMPLE_COLUMNS.items()}
    )
    samples.insert(0, "row", np.arange(num_rows))
    ids = samples["id"].to_numpy()
    turn_rows = np.frombuffer(read.turn_rows, dtype=np.int64)
    turns = pd.DataFrame(
        {
            "row": turn_rows,
            "id": ids[turn_rows],
            "turn": _numbers_within(turn_rows),
            **{
                name: _column(values, "Int64" if name.startswith("num_") else "object")
                for name, values in zip(TURN_COLUMNS, read.turn_columns, strict=True)
            },
        }
    )
    uses = np.frombuffer(read.uses, dtype=np.int64).reshape(-1, 2)
    media = _media_table(ids, uses, found)
    samples["num_frame_sizes"] = _count_frame_sizes(samples, media)
    _mark_repetitions(samples, np.frombuffer(read.line_keys, dtype=np.uint64))
    return Facts(samples, turns, media, found)


def _column(values: list[Any], kind: str) -> Any:
    """Return a column of nullable whole numbers or of texts."""
    if kind == "Int64":
        return pd.array(values, dtype="Int64")
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _numbers_within(rows: np.ndarray) -> np.ndarray:
    """Number equal neighbours 1, 2, 3, ...; rows ascend."""
    if not len(rows):
        return rows
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1))
    sizes = np.diff(starts, append=len(rows))
    return np.arange(len(rows)) - np.repeat(starts, sizes) + 1


def _media_table(ids: np.ndarray, uses: np.ndarray, found: Sequence[MediaFact]) -> pd.DataFrame:
    rows, numbers = uses[:, 0], uses[:, 1]

    def column(name: str) -> Any:
        return _column([getattr(fact, name) for fact in found], "object")[numbers]

    def number(name: str) -> Any:
        values = [getattr(fact, name) for fact in found]
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)[numbers]

    def noted(code: str) -> Any:
        return np.array([code in fact.notes for fact in found], dtype=bool)[numbers]

    return pd.DataFrame(
        {
            "row": rows,
            "id": ids[rows],
            "medium": numbers,
            "path": column("path"),
            "kind": column("kind"),
            "problem": column("problem"),
            "detail": column("detail"),
            "format": column("format"),
            "width": number("width"),
            "height": number("height"),
            "num_frames": number("num_frames"),
            "seconds": number("seconds"),
            "wrong_extension": noted("wrong_extension"),
            "blank": noted("blank"),
            "variable_rate": noted("variable_rate"),
        }
    )


def _count_frame_sizes(samples: pd.DataFrame, media: pd.DataFrame) -> Any:
    """Count the different sizes among the frames of each sample; unknown without a frame list."""
    listed = samples["num_listed_frames"].to_numpy(dtype=np.int64, na_value=0) > 0
    rows = media["row"].to_numpy()
    frames = media[listed[rows] & media["width"].notna().to_numpy()]
    sizes = frames["width"] * 2**20 + frames["height"]
    counts = sizes.groupby(frames["row"].to_numpy()).nunique()
    column = np.full(len(samples), _UNKNOWN, dtype=np.int64)
    column[counts.index.to_numpy(dtype=np.int64)] = counts.to_numpy()
    return pd.array(np.where(column == _UNKNOWN, np.nan, column), dtype="Int64")


def _mark_repetitions(samples: pd.DataFrame, line_keys: np.ndarray) -> None:
    """Tell repeated samples, to be dropped, from different ones under one id, which are a fault.

    Adds the columns `repeats`, the row of the first of equal samples or -1, and `duplicate_id`.
    """
    parsed = line_keys != 0
    repeats = np.full(len(samples), _UNKNOWN, dtype=np.int64)
    keys = pd.DataFrame({"id": samples["id"], "line": line_keys, "row": samples["row"]})[parsed]
    first = keys.groupby(["id", "line"], sort=False)["row"].transform("min")
    later = keys["row"].to_numpy() != first.to_numpy()
    repeats[keys["row"].to_numpy()[later]] = first.to_numpy()[later]
    samples["repeats"] = repeats
    different = keys[~later]
    clash = different[different["id"].duplicated(keep=False)]
    places = samples["place"].to_numpy()
    column = np.full(len(samples), None, dtype=object)
    for _, rows in clash.groupby("id", sort=False)["row"]:
        ordered = rows.to_numpy()
        column[ordered[0]] = f"also at {places[ordered[1]]}"
        for row in ordered[1:]:
            column[row] = f"also at {places[ordered[0]]}"
    samples["duplicate_id"] = column
