"""An answer while it is being written: text pieces out of a model that runs in a thread.

Closing the generator stops the model at its next token; an error in the model is raised to
whoever reads the pieces; the joined pieces are exactly the text of the same answer unstreamed.
"""

import queue
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Self

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from ovis_model.tokens import TokenIds, Tokenizer

Phase = Literal["thinking", "answer"]

#: What a decoder shows for bytes that are no whole character yet.
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class StreamPiece(str):
    """A piece of text that knows whether it is thought or answer."""

    __slots__ = ("phase",)

    phase: Phase

    def __new__(cls, text: str, phase: Phase) -> Self:
        """Make a piece."""
        piece = super().__new__(cls, text)
        piece.phase = phase
        return piece


class _ReaderLeftError(Exception):
    """Nobody reads any more; unwinds the model's decoding loop."""


class _TokenQueue(BaseStreamer):
    """Hands each new id from the model's thread to the reader's."""

    def __init__(self) -> None:
        self._tokens: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._reader_left = False

    def put(self, value: Tensor) -> None:
        """Take ids from the model.

        The first call carries the prompt's ids, of which there are none: a multimodal prompt
        is embeddings.
        """
        if self._reader_left:
            raise _ReaderLeftError
        for token in value.flatten().tolist():
            self._tokens.put(token)

    def end(self) -> None:
        """Let the reader finish; also called when the model failed."""
        self._tokens.put(None)

    def leave(self) -> None:
        """Make the model stop at its next token."""
        self._reader_left = True

    def __iter__(self) -> Iterator[int]:
        while (token := self._tokens.get()) is not None:
            yield token


def stream_text(
    generate: Callable[[BaseStreamer], Tensor],
    tokenizer: Tokenizer,
    token_ids: TokenIds,
    *,
    eos_ids: Collection[int],
) -> Generator[StreamPiece, None, list[int]]:
    """Run a model in a thread and yield its text as it comes.

    Args:
        generate: Runs the model on one prompt with the given streamer.
        tokenizer: Turns ids into text.
        token_ids: Which ids open and close a thought.
        eos_ids: Ids that end the turn; they are not shown.

    Yields:
        Pieces of text, none of them empty.

    Returns:
        All new ids, the end token included, as the generator's return value.
    """
    tokens = _TokenQueue()

    def run() -> list[int]:
        try:
            row: list[int] = generate(tokens)[0].tolist()
            return row
        finally:
            # HF ends the streamer itself, but not when it fails.
            tokens.end()

    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ovis-stream")
    try:
        model = executor.submit(run)
        yield from _pieces(tokens, tokenizer, token_ids, eos_ids)
        return model.result()
    finally:
        tokens.leave()
        executor.shutdown(wait=True)


def _pieces(
    tokens: Iterable[int],
    tokenizer: Tokenizer,
    token_ids: TokenIds,
    eos_ids: Collection[int],
) -> Iterator[StreamPiece]:
    """Decode ids as soon as they are whole characters."""
    pending: list[int] = []
    phase: Phase | None = None
    for token in tokens:
        if token in eos_ids:
            break
        if phase is None:
            phase = "thinking" if token == token_ids.think_open else "answer"
        pending.append(token)
        text = tokenizer.decode(pending, skip_special_tokens=True)
        if token == token_ids.think_close or not text.endswith(_UNFINISHED):
            pending.clear()
            if text:
                yield StreamPiece(text, phase)
        if token == token_ids.think_close:
            phase = "answer"
    if pending and (text := tokenizer.decode(pending, skip_special_tokens=True)):
        yield StreamPiece(text, phase or "answer")
