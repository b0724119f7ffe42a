"""An answer while it is being written: text pieces out of a model that runs in a thread.

    for piece in stream: ...            # or: async for piece in stream
    stream.result                       # then: the same result as without streaming

Closing the stream, or letting go of it, stops the model at its next token; an error in the model
is raised to whoever reads the pieces; the joined pieces are exactly the text of the result.
"""

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from ovis_model.inference.thinking import find_stop
from ovis_model.tokens import TokenIds, Tokenizer

Phase = Literal["thinking", "answer"]
Result = TypeVar("Result")

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


class PieceReader:
    """Turns one id after the other into pieces of text.

    A character of several tokens comes whole, and text that may be the beginning of a stop
    string is held back until it is known not to be.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_ids: TokenIds,
        *,
        eos_ids: Collection[int],
        stop: Sequence[str] = (),
    ) -> None:
        """Start before the first id.

        Args:
            tokenizer: Turns ids into text.
            token_ids: Which ids open and close a thought.
            eos_ids: Ids that end the turn; they are not shown, nor what follows them.
            stop: Strings that end the answer; they are not shown, nor what follows them.
        """
        self._tokenizer = tokenizer
        self._token_ids = token_ids
        self._eos_ids = eos_ids
        self._stop = stop
        self._pending: list[int] = []
        self._phase: Phase | None = None
        self._held = ""
        self._answer_began = False
        self._ended = False

    def feed(self, token: int) -> list[StreamPiece]:
        """Take one id and return the pieces it completes, none of them empty."""
        if self._ended:
            return []
        if token in self._eos_ids:
            return self.finish()
        if self._phase is None:
            self._phase = "thinking" if token == self._token_ids.think_open else "answer"
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending, skip_special_tokens=True)
        closes = token == self._token_ids.think_close
        if not closes and text.endswith(_UNFINISHED):
            return []
        self._pending.clear()
        pieces = self._show(text)
        if closes:
            pieces += self._release()
            self._phase = "answer"
            self._answer_began = False
        return pieces

    def finish(self) -> list[StreamPiece]:
        """Return what was held back; nothing comes after it."""
        if self._ended:
            return []
        pieces = []
        if self._pending:
            pieces = self._show(self._tokenizer.decode(self._pending, skip_special_tokens=True))
        pieces += self._release()
        self._ended = True
        return pieces

    def _show(self, text: str) -> list[StreamPiece]:
        if self._phase != "answer" or not self._stop:
            return self._pieces(text)
        white = ""
        if not self._answer_began:
            body = text.lstrip()
            white = text[: len(text) - len(body)]
            self._answer_began, text = bool(body), body
        text, self._held = self._held + text, ""
        place = find_stop(text, self._stop)
        if place is not None:
            self._ended = True
            return self._pieces(white + text[:place])
        keep = self._length_of_beginning(text)
        self._held = text[len(text) - keep :]
        return self._pieces(white + text[: len(text) - keep])

    def _length_of_beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        longest = max(map(len, self._stop)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0

    def _release(self) -> list[StreamPiece]:
        held, self._held = self._held, ""
        return self._pieces(held)

    def _pieces(self, text: str) -> list[StreamPiece]:
        return [StreamPiece(text, self._phase or "answer")] if text else []


class _ReaderLeftError(Exception):
    """Nobody reads any more; unwinds the model's decoding loop."""


@dataclass(frozen=True)
class _End:
    """The last thing in the queue: all new ids, or why there are none."""

    row: list[int]
    error: BaseException | None


class _Writer(BaseStreamer):
    """Runs in the model's thread: takes ids from it and queues the pieces."""

    def __init__(self, reader: PieceReader, left: threading.Event) -> None:
        self.queue: queue.SimpleQueue[StreamPiece | _End] = queue.SimpleQueue()
        self._reader = reader
        self._left = left
        self._row: list[int] = []

    def run(self, generate: Callable[[BaseStreamer], Tensor]) -> None:
        with self:
            self._row = generate(self)[0].tolist()

    def __enter__(self) -> None:
        """Begin to listen for an error."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Hand an error over: it is raised where the pieces are read."""
        self.queue.put(_End(self._row, error))
        return True

    def put(self, value: Tensor) -> None:
        """Take ids from the model.

        The first call carries the prompt's ids, of which there are none: a multimodal prompt
        is embeddings.
        """
        if self._left.is_set():
            raise _ReaderLeftError
        for token in value.flatten().tolist():
            self._hand_over(self._reader.feed(token))

    def end(self) -> None:
        """Queue what was held back."""
        self._hand_over(self._reader.finish())

    def _hand_over(self, pieces: list[StreamPiece]) -> None:
        for piece in pieces:
            self.queue.put(piece)


class AnswerStream(Generic[Result]):
    """Pieces of one answer, to be read once, by `for` or by `async for`.

    The model starts when the first piece is asked for.
    """

    def __init__(
        self,
        generate: Callable[[BaseStreamer], Tensor],
        reader: PieceReader,
        finish: Callable[[list[int]], Result],
    ) -> None:
        """Prepare to run.

        Args:
            generate: Runs the model on one prompt with the given streamer.
            reader: Turns its ids into pieces.
            finish: Makes the result of all new ids, the end token included.
        """
        self._left = threading.Event()
        self._writer = _Writer(reader, self._left)
        # A daemon: a program that ends in the middle of an answer does not wait for its end.
        self._thread = threading.Thread(
            target=self._writer.run, args=(generate,), name="ovis-stream", daemon=True
        )
        self._finish = finish
        self._results: list[Result] = []
        self._closed = False
        weakref.finalize(self, self._left.set)

    @property
    def result(self) -> Result:
        """The whole answer.

        Raises:
            ValueError: If pieces are still to come, or the stream was closed before the last.
        """
        if not self._results:
            raise ValueError("the answer is not complete; read all pieces before the result")
        return self._results[0]

    @property
    def closed(self) -> bool:
        """Whether no more pieces come: all were read, or the stream was closed."""
        return self._closed

    def close(self) -> None:
        """Stop the model at its next token and wait until it has stopped."""
        self._leave()
        if self._thread.is_alive():
            self._thread.join()

    async def aclose(self) -> None:
        """Stop the model at its next token, without holding up the event loop."""
        await asyncio.to_thread(self.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamPiece:
        if self._start():
            piece = self._take(self._writer.queue.get())
            if piece is not None:
                return piece
        raise StopIteration

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamPiece:
        if self._start():
            try:
                # A cancelled wait ends with the model: `_leave` makes it put its last word.
                item = await asyncio.to_thread(self._writer.queue.get)
            except asyncio.CancelledError:
                self._leave()
                raise
            piece = self._take(item)
            if piece is not None:
                return piece
        raise StopAsyncIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _leave(self) -> None:
        self._closed = True
        self._left.set()

    def _start(self) -> bool:
        if not self._closed and self._thread.ident is None:
            self._thread.start()
        return not self._closed

    def _take(self, item: StreamPiece | _End) -> StreamPiece | None:
        if isinstance(item, StreamPiece):
            return item
        self._closed = True
        self._thread.join()
        if item.error is not None:
            raise item.error
        self._results.append(self._finish(item.row))
        return None
