"""Many questions at once: requests out of a list, a JSONL file or a folder, answers in order.

    {"id": "a", "prompt": "Which digit is this?", "image": "seven.png"}
    {"id": "b", "prompt": "Same digit?", "image": ["seven.png", "two.png"], "system": "Be brief."}
    {"id": "c", "prompt": "What happens?", "video": "clip.mp4"}

A request that cannot be used becomes an answer that says why; the others are answered.
"""

import difflib
import json
import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ovis_model.data.frame_folders import list_pictures
from ovis_model.errors import DataError
from ovis_model.inference.engine import Engine, Pixels, first_messages
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.pictures import (
    ImageInput,
    Media,
    VideoInput,
    names_a_file,
    open_media,
)
from ovis_model.inference.results import InferenceResult
from ovis_model.processing.processing_ovis2_5 import EncodedSample
from ovis_model.reports import write_text

log = logging.getLogger(__name__)

#: Batches that are encoded together: pixels of all requests would not fit into memory.
BATCHES_PER_WINDOW = 8
KEYS = ("id", "prompt", "image", "images", "video", "system")


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        prompt: The text; media come before it unless it places them by `<image>` or `<video>`.
        images: Images, in order.
        video: A video, or None; not together with images.
        system: A system message, or None.
        id: Comes back with the answer; "" becomes the request's number, from 0.
    """

    prompt: str
    images: Sequence[ImageInput] = ()
    video: VideoInput | None = None
    system: str | None = None
    id: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, prompt: str | None = None) -> "Request":
        """Build a request of JSON-like values; `image` is one image or a list.

        Args:
            values: See the module's examples.
            prompt: For requests that have none of their own.

        Raises:
            ValueError: If a key is unknown or the prompt is missing.
        """
        for key in values:
            if key not in KEYS:
                nearest = difflib.get_close_matches(key, KEYS, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(KEYS)}"
                raise ValueError(f"unknown key {key!r} in the request; {hint}")
        text = values.get("prompt", prompt)
        if not isinstance(text, str):
            raise ValueError(f"the request has no prompt (got {text!r}); add a text 'prompt'")  # noqa: TRY004
        if "image" in values and "images" in values:
            raise ValueError("the request has 'image' and 'images'; they are one setting")
        images = values.get("images", values.get("image"))
        if images is None:
            images = []
        elif not isinstance(images, list | tuple):
            images = [images]
        name = values.get("id", "")
        return cls(text, images, values.get("video"), values.get("system"), str(name))


@dataclass(frozen=True)
class BatchAnswer:
    """What became of one request: a result, or an error that says why there is none."""

    id: str
    result: InferenceResult | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `json.dumps` takes."""
        if self.result is None:
            return {"id": self.id, "error": self.error}
        return {"id": self.id, **self.result.to_dict()}


BatchInput = str | Path | Sequence[Request | Mapping[str, Any] | str]


def read_requests(source: BatchInput, prompt: str | None = None) -> list[Request | BatchAnswer]:
    """Read requests; one that cannot be read is already its answer.

    Args:
        source: A JSONL file, whose paths are relative to its folder; a folder, each image of
            which is a request; or a list of requests, mappings or plain prompts.
        prompt: For requests that have none of their own; needed for a folder.

    Raises:
        DataError: If the file or the folder cannot be read, or holds nothing.
        ValueError: If a folder comes without a prompt.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            if prompt is None:
                raise ValueError(f"{path} is a folder; say by `prompt` what to ask of its images")
            found = list_pictures(path)
            return [Request(prompt, [picture], id=picture.name) for picture in found]
        return _read_jsonl(path, prompt)
    parsed: list[Request | BatchAnswer] = []
    for number, item in enumerate(source):
        name = str(number)
        if isinstance(item, Mapping):
            parsed.append(_parse(item, name, prompt))
        else:
            request = Request(item) if isinstance(item, str) else item
            parsed.append(replace(request, id=request.id or name))
    return parsed


def _read_jsonl(path: Path, prompt: str | None) -> list[Request | BatchAnswer]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSONL: {error}") from error
    parsed: list[Request | BatchAnswer] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            answer = BatchAnswer(
                str(number), error=f"{path}, line {number + 1}: no JSON ({error})"
            )
            parsed.append(answer)
            continue
        if not isinstance(values, dict):
            error_text = f"{path}, line {number + 1}: no JSON object"
            parsed.append(BatchAnswer(str(number), error=error_text))
            continue
        parsed.append(_parse(_below(values, path.parent), str(number), prompt))
    if not parsed:
        raise DataError(f"{path} holds no requests; write one JSON object per line")
    return parsed


def _below(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take the paths of a request as relative to its file."""

    def resolve(source: Any) -> Any:
        if isinstance(source, list):
            return [resolve(item) for item in source]
        return folder / source if isinstance(source, str) and names_a_file(source) else source

    media = ("image", "images", "video")
    return {key: resolve(value) if key in media else value for key, value in values.items()}


def _parse(values: Mapping[str, Any], name: str, prompt: str | None) -> Request | BatchAnswer:
    try:
        request = Request.parse(values, prompt=prompt)
    except ValueError as error:
        return BatchAnswer(str(values.get("id", name)), error=str(error))
    return replace(request, id=request.id or name)


@dataclass(frozen=True)
class Batch:
    """How the requests of a batch are encoded and answered.

    Attributes:
        engine: What answers.
        settings: The same for all requests.
        batch_size: Prompts generated together.
        pixels: Smallest and largest area of a picture.
        num_frames: Frames of a video; None takes as many as in training.
        system: System message of requests without one of their own, or None.
    """

    engine: Engine
    settings: GenerationSettings
    batch_size: int
    pixels: Pixels
    num_frames: int | None = None
    system: str | None = None

    def answer(self, requests: Sequence[Request | BatchAnswer]) -> list[BatchAnswer]:
        """Answer requests, in their order.

        Raises:
            ValueError: If the settings cannot work, whatever the request.
        """
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        self.settings.check(self.engine.processor.token_ids)
        answers = {
            index: request
            for index, request in enumerate(requests)
            if isinstance(request, BatchAnswer)
        }
        asked = [(i, r) for i, r in enumerate(requests) if isinstance(r, Request)]
        for window in self._windows(_beside_each_other(asked), answers):
            results = self.engine.answer_all(
                [prompt for _, _, prompt in window], self.settings, batch_size=self.batch_size
            )
            for (index, request, _), result in zip(window, results, strict=True):
                answers[index] = BatchAnswer(request.id, result)
            log.info("%d of %d requests answered", len(answers), len(requests))
        return [answers[index] for index in range(len(requests))]

    def _windows(
        self, asked: Sequence[tuple[int, Request]], answers: dict[int, BatchAnswer]
    ) -> Iterator[list[tuple[int, Request, EncodedSample]]]:
        """Encode some batches at a time; requests on the same media stay in one window."""
        window: list[tuple[int, Request, EncodedSample]] = []
        for _, alike in groupby(asked, key=lambda item: _shows(item[1])):
            if len(window) >= self.batch_size * BATCHES_PER_WINDOW:
                yield window
                window = []
            window += self._encode_alike(alike, answers)
        if window:
            yield window

    def _encode_alike(
        self, asked: Iterable[tuple[int, Request]], answers: dict[int, BatchAnswer]
    ) -> list[tuple[int, Request, EncodedSample]]:
        """Encode requests that show the same; their media are opened and kept once."""
        media: Media | None = None
        encoded: list[tuple[int, Request, EncodedSample]] = []
        for index, request in asked:
            try:
                media = media or self._open(request)
                prompt = self._encode(request, media)
            except (DataError, ValueError) as error:
                answers[index] = BatchAnswer(request.id, error=str(error))
                continue
            pixels = encoded[0][2].pixel_values if encoded else prompt.pixel_values
            encoded.append((index, request, replace(prompt, pixel_values=pixels)))
        return encoded

    def _open(self, request: Request) -> Media:
        sampling = self.engine.processor.frame_sampling
        return open_media(request.images, request.video, sampling, self.num_frames)

    def _encode(self, request: Request, media: Media) -> EncodedSample:
        system = self.system if request.system is None else request.system
        messages = first_messages(request.prompt, media, system)
        return self.engine.encode(messages, self.settings, media, self.pixels)


def write_answers(path: Path, answers: Sequence[BatchAnswer]) -> None:
    """Write answers as JSONL, one line per request, in order."""
    lines = [json.dumps(answer.to_dict(), ensure_ascii=False) for answer in answers]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _beside_each_other(asked: Sequence[tuple[int, Request]]) -> list[tuple[int, Request]]:
    """Order requests so that those on the same media follow each other."""
    first: dict[Hashable, int] = {}
    return sorted(asked, key=lambda item: first.setdefault(_shows(item[1]), item[0]))


def _shows(request: Request) -> Hashable:
    """Identify what a request shows, without opening it."""
    sources: list[Any] = [*request.images, request.video]
    return tuple(
        tuple(map(_identity, source)) if isinstance(source, list | tuple) else _identity(source)
        for source in sources
    )


def _identity(source: Any) -> Hashable:
    return source if isinstance(source, str | Path | bytes | None) else id(source)
