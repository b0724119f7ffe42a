"""The facts table: one row per record of the annotation file, whatever state it is in.

Expectations are then statements about columns, and a sample that is no sample at all is a row
with a `schema_error` instead of an exception that would hide the rows after it.
"""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from ovis_model import tokens
from ovis_model.data.formats import Record
from ovis_model.data.frames import probe_video
from ovis_model.data.images import load_image
from ovis_model.data.schema import Sample, Turn
from ovis_model.errors import DataError, list_examples
from ovis_model.reports import sha256_of_file

#: Columns and their pandas types; nullable, because a broken record has no counts.
COLUMNS = {
    "row": "int64",
    "id": "object",
    "place": "object",
    "schema_error": "object",
    "roles": "object",
    "num_answers": "Int64",
    "shortest_turn_chars": "Int64",
    "media_kinds": "object",
    "num_images": "Int64",
    "num_image_placeholders": "Int64",
    "num_videos": "Int64",
    "num_video_placeholders": "Int64",
    "num_stray_placeholders": "Int64",
    "think_problem": "object",
    "control_token": "object",
    "grounding_problem": "object",
    "unsafe_path": "object",
    "missing_media": "object",
    "unreadable_media": "object",
    "aspect_ratio": "Float64",
    "num_frame_sizes": "Int64",
}

#: Tokens that steer the model; inside a text they would end a turn or fake another one.
CONTROL_TOKENS = tuple(token for token, hidden in tokens.ADDED_TOKENS if hidden)
_CONTROL_TOKEN = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
_PLACEHOLDER = re.compile(f"{tokens.IMAGE_PLACEHOLDER}|{tokens.VIDEO_PLACEHOLDER}")
_THINK_TAG = re.compile(f"{tokens.THINK_OPEN}|{tokens.THINK_CLOSE}")
_GROUNDING = re.compile(r"<(box|point)>(.*?)</\1>", re.DOTALL)
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
_POINT = rf"\({_NUMBER},{_NUMBER}\)"
_COORDINATES = {
    "point": re.compile(rf"\s*{_POINT}\s*"),
    "box": re.compile(rf"\s*{_POINT}\s*,\s*{_POINT}\s*"),
}
#: Paths with a scheme would be fetched from elsewhere.
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class MediaFact:
    """What was found at one path; of the three problems at most one is set.

    Attributes:
        sha256: Digest of the file's bytes, or None if they could not be read.
        size: Width and height in pixels, or None.
    """

    path: str
    sha256: str | None = None
    num_bytes: int = 0
    size: tuple[int, int] | None = None
    unsafe: str | None = None
    missing: str | None = None
    unreadable: str | None = None


@dataclass(frozen=True)
class Facts:
    """The table, and what the rows were made of.

    Attributes:
        table: One row per record, in file order; the columns are `COLUMNS`.
        samples: The parsed sample of each row, or None where there is a schema error.
        media: Facts of every path that any sample names.
    """

    table: pd.DataFrame
    samples: list[Sample | None]
    media: dict[str, MediaFact]


def collect_facts(records: Iterable[Record], raw_data: Path) -> Facts:
    """Look at every record and every file it names, and judge nothing.

    Args:
        records: Records of the annotation file.
        raw_data: The folder that paths are relative to and must not leave.
    """
    rows: list[dict[str, Any]] = []
    samples: list[Sample | None] = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {"row": number, "id": record.id, "place": record.place}
        try:
            sample = record.parse()
        except DataError as error:
            samples.append(None)
            row["schema_error"] = str(error)
        else:
            samples.append(sample)
            row.update(_text_facts(sample))
        rows.append(row)
    media = _look_at_media([s for s in samples if s is not None], raw_data)
    for row, each in zip(rows, samples, strict=True):
        if each is not None:
            row.update(_media_facts(each, media))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return Facts(table, samples, media)


def _text_facts(sample: Sample) -> dict[str, Any]:
    turns = sample.conversations
    asked = [turn.value for turn in turns if turn.role == "human"]
    told = [turn.value for turn in turns if turn.role != "human"]
    images, videos = tokens.IMAGE_PLACEHOLDER, tokens.VIDEO_PLACEHOLDER
    return {
        "roles": " ".join(turn.role for turn in turns),
        "num_answers": sum(turn.role == "gpt" for turn in turns),
        "shortest_turn_chars": min(_count_chars(turn) for turn in turns),
        "media_kinds": "+".join(_kinds_of_media(sample)) or "none",
        "num_images": len(sample.image),
        "num_image_placeholders": sum(text.count(images) for text in asked),
        "num_videos": int(sample.video is not None),
        "num_video_placeholders": sum(text.count(videos) for text in asked),
        "num_stray_placeholders": sum(len(_PLACEHOLDER.findall(text)) for text in told),
        "think_problem": _first(_think_problem(turn) for turn in turns),
        "control_token": _first(_control_token(turn) for turn in turns),
        "grounding_problem": _first(_grounding_problem(turn) for turn in turns),
    }


def _kinds_of_media(sample: Sample) -> list[str]:
    found = {"images": bool(sample.image), "video": sample.video is not None}
    return [kind for kind, present in found.items() if present]


def _count_chars(turn: Turn) -> int:
    """Count what is left of a turn: for an answer, without its thought."""
    text = turn.value
    if turn.role == "gpt":
        text = text.rpartition(tokens.THINK_CLOSE)[2]
    return len(text.strip())


def _think_problem(turn: Turn) -> str | None:
    tags = _THINK_TAG.findall(turn.value)
    if not tags:
        return None
    if turn.role in ("human", "system"):
        return f"{tags[0]} in a {turn.role!r} turn"
    if tags != [tokens.THINK_OPEN, tokens.THINK_CLOSE]:
        return "tags are " + " ".join(tags[:6])
    if not turn.value.lstrip().startswith(tokens.THINK_OPEN):
        return f"text before {tokens.THINK_OPEN}"
    return None


def _control_token(turn: Turn) -> str | None:
    found = _CONTROL_TOKEN.search(turn.value)
    return f"{found.group()} in a {turn.role!r} turn" if found else None


def _grounding_problem(turn: Turn) -> str | None:
    """Find a box or point that is not in Ovis2.5's notation; only in answers, which teach it."""
    if turn.role != "gpt":
        return None
    for kind, content in _GROUNDING.findall(turn.value):
        match = _COORDINATES[kind].fullmatch(content)
        values = [float(text) for text in match.groups()] if match else []
        outside = any(value >= 1 for value in values)
        flipped = kind == "box" and values and (values[0] > values[2] or values[1] > values[3])
        if match is None or outside or flipped:
            return f"<{kind}>{content[:60]}</{kind}>"
    return None


def _look_at_media(samples: list[Sample], raw_data: Path) -> dict[str, MediaFact]:
    """Open every file once, however many samples name it."""
    videos = {sample.video for sample in samples if isinstance(sample.video, str)}
    images = set(chain.from_iterable((*s.image, *s.frames) for s in samples)) - videos
    root = raw_data.resolve()

    def look(path: str) -> MediaFact:
        return _look_at(path, root, _video_size if path in videos else _image_size)

    # Threads: Pillow decodes, and ffmpeg runs, without Python's lock.
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return {fact.path: fact for fact in pool.map(look, sorted(videos | images))}


def _look_at(path: str, root: Path, measure: Callable[[Path], tuple[int, int]]) -> MediaFact:
    unsafe = unsafe_reason(path, root)
    if unsafe is not None:
        return MediaFact(path, unsafe=unsafe)
    file = root / path
    if not file.exists():
        return MediaFact(path, missing=path)
    if not file.is_file():  # a folder, or a pipe that would never end
        return MediaFact(path, unreadable=f"{path} is not a regular file")
    try:
        digest = sha256_of_file(file)
        size = measure(file)
    except (DataError, OSError) as error:
        # Reports must not depend on where the project lies.
        return MediaFact(path, unreadable=str(error).replace(f"{root}{os.sep}", ""))
    return MediaFact(path, digest, file.stat().st_size, size)


def _image_size(path: Path) -> tuple[int, int]:
    return load_image(path).size


def _video_size(path: Path) -> tuple[int, int]:
    info = probe_video(path)
    return info.width, info.height


def unsafe_reason(path: str, root: Path) -> str | None:
    """Say why a path may not be opened, or None if it stays below the resolved `root`.

    Example:
        >>> unsafe_reason("../secrets.png", Path("/data"))
        "'../secrets.png' leaves the data folder"
        >>> unsafe_reason("images/a.png", Path("/data"))
    """
    # DIVERGES(paths-inside-data): the reference opens whatever a sample names.
    rules = (
        ("\0" in path, "holds a NUL character"),
        (_SCHEME.match(path), "is an address, not a file"),
        (path.startswith(("/", "~")), "is not relative to the data folder"),
        (".." in Path(path).parts, "leaves the data folder"),
    )
    broken = [reason for applies, reason in rules if applies]
    if broken:
        return f"{path!r} {broken[0]}"
    try:
        target = (root / path).resolve()
    except (OSError, RuntimeError) as error:  # a loop of symbolic links, a name too long
        return f"{path!r} cannot be followed: {error}"
    if not target.is_relative_to(root):
        return f"{path!r} is a symbolic link out of the data folder"
    return None


def _media_facts(sample: Sample, media: dict[str, MediaFact]) -> dict[str, Any]:
    found = [media[path] for path in sample.media]
    sizes = [fact.size for fact in found if fact.size is not None]
    frames = {media[path].size for path in sample.frames} - {None}
    return {
        "unsafe_path": _listed(fact.unsafe for fact in found),
        "missing_media": _listed(fact.missing for fact in found),
        "unreadable_media": _listed(fact.unreadable for fact in found),
        "aspect_ratio": max((max(s) / min(s) for s in sizes), default=None),
        "num_frame_sizes": len(frames) if frames else None,
    }


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)


def _listed(problems: Iterable[str | None]) -> str | None:
    return list_examples([problem for problem in problems if problem]) or None
