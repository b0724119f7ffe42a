"""A model behind an OpenAI-compatible endpoint, such as a vLLM server: same prompts and settings.

The model's own folder is needed here, too: its chat template and tokenizer say what was asked
and count tokens, its digest says who answered.

    phase 1   the question, max_tokens = thinking budget
    phase 2   if phase 1 was cut: the question and what was written, continued; where the thought
              is still open, the closing sentence is put behind it

What a server has to understand is in docs/evaluation.md.
"""

import base64
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx
from PIL import Image

from ovis_model.errors import ConfigError, DataError
from ovis_model.evaluation.exam import Answer, Answered, Asked, Failure, seen_media
from ovis_model.evaluation.predictions import TokenCounts
from ovis_model.evaluation.responses import Phase, continuation
from ovis_model.inference.engine import Pixels, pixel_bounds
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.messages import Message
from ovis_model.inference.pictures import Media
from ovis_model.inference.thinking import ParsedOutput, ThinkingClosed, split_thinking
from ovis_model.model_folder import digest_of, digest_of_folder
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.processing.tokenization import tokenize_with_placeholders
from ovis_model.tokens import CLOSING_SENTENCE, THINK_CLOSE, THINK_OPEN

log = logging.getLogger(__name__)

API_KEY_VARIABLE = "OVIS_EVAL_API_KEY"
#: Answers that every question would get.
_HOPELESS = {
    401: "the key is wrong",
    403: "the key may not do this",
    404: "there is no such thing",
}
#: How the official template drops the thought of an earlier turn; here it is what goes on.
_DROPS_THOUGHT = ".split('</think>')[-1].lstrip('\n')", ".split('</think>')[-1].lstrip('\\n')"
_MAX_WAIT_S = 30.0
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and how patient to be with it.

    Attributes:
        url: Up to and with `/v1`.
        served_model: The name it knows the model by.
        api_key: Sent as a bearer token; not part of any text.
        concurrency: Questions that are asked at the same time.
        timeout_s: Seconds of silence before a request is given up.
        retries: Further attempts after a server error or a broken connection.
        first_wait_s: Seconds before the first of them; twice as many before each next one.
    """

    url: str
    served_model: str
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout_s: float = 600.0
    retries: int = 5
    first_wait_s: float = 1.0


def read_api_key(variable: str = API_KEY_VARIABLE) -> str | None:
    """Read the key from an environment variable; None if it is not set."""
    return os.environ.get(variable) or None


@dataclass(frozen=True)
class _Phase:
    """What one request gave.

    Attributes:
        text: What was written.
        finish_reason: "length" if max_tokens ended it.
        prompt_tokens: As the server counts them; 0 if it does not tell.
        new_tokens: Likewise.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int


class _UnansweredError(Exception):
    """A question that the server could not answer."""


@dataclass(frozen=True)
class OpenAIBackend:
    """A served model.

    Attributes:
        endpoint: Where.
        processor: Of the model's folder, with the pixel limits and frame sampling to use.
        model: Digest of that folder.
    """

    endpoint: Endpoint
    processor: Ovis2_5Processor
    model: str

    @classmethod
    def load(cls, path: Path, *, seen_as: Path, endpoint: Endpoint) -> Self:
        """Read what is needed of the served model's folder.

        Args:
            path: The folder that the server was started with.
            seen_as: The checkpoint whose pixel limits and frame sampling are used.
            endpoint: Where the server is.

        Raises:
            CheckpointError: If a folder is not a checkpoint.
        """
        eyes = Ovis2_5Processor.from_pretrained(seen_as)
        processor = Ovis2_5Processor.from_pretrained(path).with_settings(
            pixel_limits=eyes.pixel_limits, frame_sampling=eyes.frame_sampling
        )
        return cls(endpoint, processor, digest_of_folder(path))

    @cached_property
    def conditions(self) -> Mapping[str, str]:
        """What must be equal to compare two runs; a server does not tell its precision."""
        seen = [self.processor.pixel_limits.model_dump()]
        seen.append(self.processor.frame_sampling.model_dump())
        return {
            "backend": "openai",
            "pixels_and_frames": digest_of(seen),
        }

    @property
    def provenance(self) -> Mapping[str, str]:
        """What may differ; the address without who logs in."""
        parts = urlsplit(self.endpoint.url)
        return {
            "endpoint": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            "served_model": self.endpoint.served_model,
            "concurrency": str(self.endpoint.concurrency),
        }

    def check(self, settings: GenerationSettings) -> None:
        """Refuse settings that leave no room for an answer.

        Raises:
            ConfigError: With the numbers.
        """
        try:
            settings.check(self.processor.token_ids)
        except ValueError as error:
            raise ConfigError(f"evaluate: {error}") from error

    def answer(
        self, asked: Sequence[Asked], settings: GenerationSettings, pixels: Pixels
    ) -> Iterator[Sequence[Answered]]:
        """Answer questions, each as soon as the server has.

        Raises:
            ConfigError: If the server would refuse every question, such as for a wrong key.
        """
        key = self.endpoint.api_key
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with (
            httpx.Client(headers=headers, timeout=self.endpoint.timeout_s) as client,
            ThreadPoolExecutor(self.endpoint.concurrency) as pool,
        ):
            exchange = _Exchange(client, self.endpoint, self.processor, settings, pixels)
            waiting: list[Future[Answered]] = [pool.submit(exchange.ask, one) for one in asked]
            try:
                for done in as_completed(waiting):
                    yield [done.result()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Exchange:
    """Asks questions of one benchmark; used by many threads."""

    client: httpx.Client
    endpoint: Endpoint
    processor: Ovis2_5Processor
    settings: GenerationSettings
    pixels: Pixels

    def ask(self, asked: Asked) -> Answered:
        """Ask one question, in one phase or two."""
        try:
            media = asked.question.open_media(self.processor.frame_sampling)
            started = time.perf_counter()
            phases, forced = self._generate(asked, media)
        except (DataError, _UnansweredError) as error:
            return asked, Failure(str(error))
        output = self._read(phases, forced=forced)
        return asked, Answer(
            output=output,
            tokens=self._count(asked, phases[0].prompt_tokens, output),
            media=tuple(seen_media(asked.question, media)),
            latency_s=time.perf_counter() - started,
        )

    def _generate(self, asked: Asked, media: Media) -> tuple[list[_Phase], bool]:
        """Return what each phase gave, and whether the closing sentence stands between them."""
        settings = self.settings
        budget = settings.thinking_budget if settings.enable_thinking else None
        body = self._body(asked, media)
        if budget is None:
            return [self._post({**body, "max_tokens": settings.max_new_tokens})], False
        first = self._post({**body, "max_tokens": budget})
        closing = continuation(Phase(first.text, first.finish_reason))
        if closing is None:
            return [first], False
        forced = closing == CLOSING_SENTENCE
        num_closing = len(self.processor.token_ids.closing_sentence) if forced else 0
        so_far: Message = {"role": "assistant", "content": first.text + closing}
        second = self._post(
            {
                **body,
                "messages": [*body["messages"], so_far],
                "max_tokens": settings.max_new_tokens - budget - num_closing,
                "add_generation_prompt": False,
                "continue_final_message": True,
                "chat_template": continuation_template(self.processor.chat_template),
            }
        )
        return [first, second], forced

    def _body(self, asked: Asked, media: Media) -> dict[str, Any]:
        """Write the request but for its length."""
        settings = self.settings
        low, high = pixel_bounds(self.processor, media, self.pixels)
        optional = {
            "repetition_penalty": settings.repetition_penalty,
            "stop": list(settings.stop) or None,
        }
        if settings.do_sample:
            optional |= {
                "top_p": settings.top_p,
                "top_k": settings.top_k,
                "seed": asked.row_seed % 2**31,
            }
        return {
            "model": self.endpoint.served_model,
            "messages": with_data_urls(asked.question.messages, media),
            "stream": False,
            "temperature": settings.temperature if settings.do_sample else 0,
            "skip_special_tokens": True,
            "chat_template_kwargs": {"enable_thinking": settings.enable_thinking},
            "mm_processor_kwargs": {"min_pixels": low, "max_pixels": high},
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _post(self, body: Mapping[str, Any]) -> _Phase:
        """Send a request, again after a while if the server or the way to it is at fault."""
        wait = self.endpoint.first_wait_s
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                time.sleep(min(wait, _MAX_WAIT_S))
                wait *= 2
            try:
                reply = self.client.post(f"{self.endpoint.url}/chat/completions", json=body)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if reply.status_code < 500:
                return _read_reply(reply)
            reason = f"{reply.status_code}: {reply.text[:_SHOWN_CHARACTERS]}"
        raise _UnansweredError(
            f"the server did not answer in {attempt + 1} attempts; last {reason}"
        )

    def _read(self, phases: Sequence[_Phase], *, forced: bool) -> ParsedOutput:
        text = (CLOSING_SENTENCE if forced else "").join(phase.text for phase in phases)
        thinking, answer = split_thinking(text)
        if forced:
            thinking = phases[0].text.removeprefix(THINK_OPEN).strip()
        num_thinking, num_answer = self._split_tokens(phases, text, forced=forced)
        num_closing = len(self.processor.token_ids.closing_sentence) if forced else 0
        return ParsedOutput(
            text=text,
            thinking=thinking,
            answer=answer,
            finish_reason=phases[-1].finish_reason,
            thinking_closed="forced" if forced else _how_closed(text),
            thinking_tokens=num_thinking,
            answer_tokens=num_answer,
            generated_tokens=num_closing + sum(phase.new_tokens for phase in phases),
        )

    def _split_tokens(
        self, phases: Sequence[_Phase], text: str, *, forced: bool
    ) -> tuple[int, int]:
        """Count the tokens of thought and answer, as `parse_generation` does."""
        if forced:
            return phases[0].new_tokens, phases[1].new_tokens
        before, closed, after = text.partition(THINK_CLOSE)
        if not closed and not text.startswith(THINK_OPEN):
            before, after = "", text
        return self._length(before), self._length(after)

    def _length(self, text: str) -> int:
        return len(self.processor.tokenizer.encode(text, add_special_tokens=False))

    def _count(self, asked: Asked, prompt_tokens: int, output: ParsedOutput) -> TokenCounts:
        rendered = self.processor.render_prompt(
            asked.question.messages, enable_thinking=self.settings.enable_thinking
        )
        ids = tokenize_with_placeholders(rendered, self.processor.tokenizer)
        num_text = sum(token >= 0 for token in ids)
        return TokenCounts(
            prompt=prompt_tokens,
            visual=max(0, prompt_tokens - num_text) if asked.question.media else 0,
            thinking=output.thinking_tokens,
            answer=output.answer_tokens,
            generated=output.generated_tokens,
        )


def continuation_template(template: str) -> str:
    r"""Change a chat template so that it leaves the thought in an answer that goes on.

    The official one drops thoughts of earlier turns, which would drop the very text to be
    continued; servers refuse that.

    Example:
        >>> continuation_template("{{ content.split('</think>')[-1].lstrip('\\n') }}")
        '{{ content }}'
    """
    for drops in _DROPS_THOUGHT:
        template = template.replace(drops, "")
    return template


def with_data_urls(messages: Sequence[Message], media: Media) -> list[Message]:
    """Put the media of chat messages into them, as OpenAI's interface wants them.

    A video is its frames, one after the other, as vLLM reads them.

    Args:
        messages: With parts of type text, image and video.
        media: Pictures in the order of the parts.
    """
    urls = iter(media.images)

    def part(item: Mapping[str, Any]) -> Mapping[str, Any]:
        if item["type"] == "image":
            url = f"data:image/png;base64,{_png(next(urls))}"
            return {"type": "image_url", "image_url": {"url": url}}
        if item["type"] == "video":
            frames = ",".join(_png(frame) for frame in media.frames or ())
            url = f"data:video/jpeg;base64,{frames}"
            return {"type": "video_url", "video_url": {"url": url}}
        return item

    return [
        {**message, "content": [part(item) for item in message["content"]]}
        if isinstance(message["content"], list)
        else dict(message)
        for message in messages
    ]


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _how_closed(text: str) -> ThinkingClosed:
    if THINK_CLOSE in text:
        return "natural"
    return "never" if text.lstrip().startswith(THINK_OPEN) else "none"


def _read_reply(reply: httpx.Response) -> _Phase:
    shown = reply.text[:_SHOWN_CHARACTERS]
    if reply.status_code in _HOPELESS:
        raise ConfigError(
            f"{reply.url.host} answers {reply.status_code} to {reply.url.path} "
            f"({_HOPELESS[reply.status_code]}): {shown}"
        )
    if reply.status_code != 200:
        raise _UnansweredError(
            f"the server refuses the question with {reply.status_code}: {shown}"
        )
    try:
        body = reply.json()
        choice = body["choices"][0]
        text = _whole_text(choice["message"])
        reason = choice["finish_reason"]
        usage = body["usage"]
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (ValueError, LookupError, TypeError) as error:
        raise _UnansweredError(
            f"the server's answer is no chat completion ({type(error).__name__}: {error}): {shown}"
        ) from error
    if reason not in ("stop", "length"):
        raise _UnansweredError(f"the server ended the answer with {reason!r}, not by itself")
    return _Phase(text, reason, *counts)


def _whole_text(message: Mapping[str, Any]) -> str:
    """Put thought and answer together again where the server has parted them."""
    content = message.get("content") or ""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if not thought:
        return str(content)
    return f"{THINK_OPEN}{thought}" + (f"{THINK_CLOSE}{content}" if content else "")
