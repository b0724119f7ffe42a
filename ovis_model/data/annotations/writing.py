"""Samples out again, in the formats other programs read.

    ovis              .json (the seed's file), .jsonl, either with .gz, or .parquet
    sharegpt, llava   the seed's turns, one image as a text; .json (a list), .jsonl, either .gz
    openai            messages whose parts are texts and paths; likewise
    ms_swift          messages with `images`, `videos` and `objects` beside them; likewise

What is written reads back as the same words, media in the same order, and boxes.  The line break
that follows a placeholder stands for the border between two parts of a message, so `<image>x`
comes back from openai as `<image>` NEWLINE `x`.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

from ovis_model import tokens
from ovis_model.data.annotations.foreign_objects import take_out_objects
from ovis_model.data.annotations.parquet_files import write_rows
from ovis_model.data.schema import Sample
from ovis_model.errors import ConfigError, DataError

_PLACEHOLDER = re.compile(f"({tokens.IMAGE_PLACEHOLDER}|{tokens.VIDEO_PLACEHOLDER})")
_OPENAI_ROLES = {
    "system": "system",
    "human": "user",
    "gpt": "assistant",
    "ignored_gpt": "assistant",
}
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
_TIMES = ("video_start", "video_end")
#: Keys that every format may carry, because its readers ignore what they do not know.
_SHARED = ("id", *_TIMES, "source", "fit")


def write_records(samples: Iterable[Sample], path: Path, *, format: str = "ovis") -> int:  # noqa: A002
    """Write samples, and return how many there were; the file appears when it is whole.

    Args:
        samples: What to write; taken one at a time.
        path: Where to; its ending says how it is encoded.
        format: A name of `WRITERS`.

    Raises:
        ConfigError: If the format or the ending is not one that is written.
        DataError: If a sample cannot be said in the format.
    """
    if format not in WRITERS:
        raise ConfigError(f"format {format!r} is not written; {', '.join(WRITERS)} are")
    ending = next((e for e in reversed(_ENDINGS) if path.name.endswith(e)), None)
    if ending is None or (ending == ".parquet" and format != "ovis"):
        which = ", ".join(_ENDINGS[: None if format == "ovis" else -1])
        raise ConfigError(f"{path}: {format} is written to files that end in {which}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    values = (WRITERS[format](sample) for sample in samples)
    if ending == ".parquet":
        count = write_rows(map(_to_row, values), partial)
    else:
        seeds = format == "ovis"
        frame = (
            ("", "")
            if "jsonl" in ending
            else (('{"conversations": [', "]}") if seeds else ("[", "]"))
        )
        count = _write_json(values, partial, frame, is_gzip=ending.endswith(".gz"))
    partial.replace(path)
    return count


def _write_json(
    values: Iterator[dict[str, Any]], path: Path, frame: tuple[str, str], *, is_gzip: bool
) -> int:
    """Write one value per line, with commas between them if something frames them."""
    begin, end = frame
    count = 0
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if is_gzip:  # without name and time: equal samples give equal bytes
            zipped = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
            file = cast("IO[bytes]", stack.enter_context(zipped))
        if begin:
            file.write(f"{begin}\n".encode())
        for value in values:
            if begin and count:
                file.write(b",\n")
            file.write(json.dumps(value, ensure_ascii=False).encode())
            if not begin:
                file.write(b"\n")
            count += 1
        if end:
            file.write(f"\n{end}\n".encode())
    return count


def _to_ovis(sample: Sample) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(sample.to_json())
    return value


def _to_row(value: Mapping[str, Any]) -> dict[str, Any]:
    """Give frames a column of their own: a column has one type."""
    row = dict(value)
    if isinstance(row.get("video"), list):
        row["video_frames"] = row.pop("video")
    return row


def _to_turns(sample: Sample) -> dict[str, Any]:
    value = _to_ovis(sample)
    if len(sample.image) == 1:
        value["image"] = sample.image[0]
    for turn in value["conversations"]:
        if turn["from"] == "ignored_gpt":
            turn.update({"from": "gpt", "loss": False})
    return value


def _to_openai(sample: Sample) -> dict[str, Any]:
    given = _to_ovis(sample)
    times = {key: given[key] for key in _TIMES if key in given}
    media: dict[str, Iterator[dict[str, Any]]] = {
        tokens.IMAGE_PLACEHOLDER: (
            {"type": "image_url", "image_url": {"url": path}} for path in sample.image
        ),
        tokens.VIDEO_PLACEHOLDER: iter(_video_part(given["video"], times) if sample.video else ()),
    }
    messages = [
        {**_speaker(turn.role), "content": _to_parts(turn.value, media)}
        for turn in sample.conversations
    ]
    for placeholder, left in media.items():
        if next(left, None) is not None:
            raise DataError(
                f"sample {sample.id!r}: it has more media than {placeholder} in its text, and "
                "openai's messages have no other place for them; run `ovis validate` first"
            )
    shared = {key: given[key] for key in _SHARED if key in given and key not in times}
    return {**shared, "messages": messages}


def _video_part(video: str | list[str], times: Mapping[str, float]) -> list[dict[str, Any]]:
    if isinstance(video, str):
        return [{"type": "video_url", "video_url": {"url": video}, **times}]
    return [{"type": "video", "video": video}]


def _speaker(role: str) -> dict[str, Any]:
    return {"role": _OPENAI_ROLES[role], **({"loss": False} if role == "ignored_gpt" else {})}


def _to_parts(text: str, media: Mapping[str, Iterator[dict[str, Any]]]) -> Any:
    """Cut a text at its placeholders; one that no medium is left for stays text."""
    parts: list[dict[str, Any]] = []
    ends_line = False
    for piece in _PLACEHOLDER.split(text):
        part = next(media[piece], None) if piece in media else None
        if part is not None:
            parts.append(part)
        elif said := piece.removeprefix("\n") if ends_line else piece:
            parts.append({"type": "text", "text": said})
        ends_line = part is not None
    return parts if any(part["type"] != "text" for part in parts) else text


def _to_ms_swift(sample: Sample) -> dict[str, Any]:
    given = _to_ovis(sample)
    texts, objects = take_out_objects([turn.value for turn in sample.conversations])
    value = {key: given[key] for key in _SHARED if key in given}
    value["messages"] = [
        {**_speaker(turn.role), "content": text}
        for turn, text in zip(sample.conversations, texts, strict=True)
    ]
    if sample.image:
        value["images"] = given["image"]
    if sample.video is not None:
        value["videos"] = [given["video"]]
    if objects:
        value["objects"] = objects
    return value


#: Formats that are written, each with what turns a sample into one of its records.
WRITERS: dict[str, Callable[[Sample], dict[str, Any]]] = {
    "ovis": _to_ovis,
    "sharegpt": _to_turns,
    "llava": _to_turns,
    "openai": _to_openai,
    "ms_swift": _to_ms_swift,
}
