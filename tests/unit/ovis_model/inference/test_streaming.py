"""Pieces arrive while the model runs, add up to the whole text, and stop when nobody reads."""

import asyncio
import gc
import threading

import pytest
import torch

from ovis_model.inference.streaming import AnswerStream, PieceReader
from ovis_model.inference.thinking import parse_generation
from ovis_model.tokens import TokenIds
from tests.support.tiny_model import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def token_ids(tokenizer):
    return TokenIds.of(tokenizer)


@pytest.fixture
def stream(tokenizer, token_ids):
    def stream(generate, stop=()):
        reader = PieceReader(tokenizer, token_ids, eos_ids=(token_ids.im_end,), stop=stop)

        def finish(row):
            return parse_generation(
                row, tokenizer, token_ids, eos_ids=(token_ids.im_end,), stop=stop
            )

        return AnswerStream(generate, reader, finish)

    return stream


def writer(ids, *, before_each=lambda index: None):
    """Return a function that hands out ids as transformers' generate does."""

    def generate(streamer):
        streamer.put(torch.empty(1, 0, dtype=torch.long))
        for index, token in enumerate(ids):
            before_each(index)
            streamer.put(torch.tensor([token]))
        streamer.end()
        return torch.tensor([ids])

    return generate


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ovis-stream"]


def test_pieces_add_up_to_the_text_and_know_their_phase(stream, tokenizer, token_ids):
    text = "<think>\nwie schön, 日本\n</think>\n\n7 €"
    ids = [*tokenizer.encode(text), token_ids.im_end]
    pieces = list(stream(writer(ids)))
    assert "".join(pieces) == text
    assert "".join(p for p in pieces if p.phase == "answer") == "\n\n7 €"
    assert all(pieces)


def test_a_character_of_several_tokens_comes_whole(stream, tokenizer):
    assert list(stream(writer(tokenizer.encode("日")))) == ["日"]


def test_bytes_that_never_become_a_character_are_shown_at_the_end(stream, tokenizer):
    ids = tokenizer.encode("a日")[:-1]
    assert "".join(stream(writer(ids))) == tokenizer.decode(ids)


def test_the_first_piece_arrives_before_the_last_token_is_made(stream, tokenizer):
    read_first = threading.Event()

    def wait_for_reader(index):
        if index == 1:
            assert read_first.wait(timeout=10)

    pieces = stream(writer(tokenizer.encode("ab"), before_each=wait_for_reader))
    assert next(pieces) == "a"
    read_first.set()
    assert list(pieces) == ["b"]


def test_the_result_comes_after_the_last_piece(stream, tokenizer, token_ids):
    ids = [*tokenizer.encode("ab"), token_ids.im_end]
    pieces = stream(writer(ids))
    with pytest.raises(ValueError, match="read all pieces before the result"):
        _ = pieces.result
    assert list(pieces) == ["a", "b"]
    assert (pieces.result.text, pieces.result.finish_reason) == ("ab", "stop")
    assert pieces.result.generated_tokens == len(ids)
    assert pieces.closed
    assert list(pieces) == []


def test_nothing_runs_before_the_first_piece_is_asked_for(stream, tokenizer):
    pieces = stream(writer(tokenizer.encode("ab")))
    assert threads() == []
    pieces.close()
    assert list(pieces) == []


def test_an_error_in_the_model_reaches_the_reader(stream, tokenizer):
    def fail(index):
        if index == 1:
            raise RuntimeError("out of memory")

    pieces = stream(writer(tokenizer.encode("ab"), before_each=fail))
    assert next(pieces) == "a"
    with pytest.raises(RuntimeError, match="out of memory"):
        next(pieces)


class Slow:
    """Ids without end; waits at the second one until told to go on, and counts."""

    def __init__(self, tokenizer):
        self.made = 0
        self.go_on = threading.Event()
        self.generate = writer(tokenizer.encode("a") * 10_000, before_each=self._count)

    def _count(self, index):
        self.made += 1
        if index == 1:
            self.go_on.wait(timeout=10)

    def go_on_soon(self):
        threading.Timer(0.05, self.go_on.set).start()


def test_closing_stops_the_model_at_its_next_token(stream, tokenizer):
    slow = Slow(tokenizer)
    with stream(slow.generate) as pieces:
        next(pieces)
        slow.go_on_soon()
    assert slow.made == 2
    assert threads() == []
    assert list(pieces) == []


def test_letting_go_of_a_stream_stops_the_model(stream, tokenizer):
    slow = Slow(tokenizer)
    for _ in stream(slow.generate):
        break
    gc.collect()
    slow.go_on.set()
    for thread in threads():
        thread.join(timeout=10)
    assert slow.made == 2


def test_pieces_are_read_by_async_for_too(stream, tokenizer):
    text = "<think>schön</think>7"

    async def read():
        pieces = stream(writer(tokenizer.encode(text)))
        return [piece async for piece in pieces], pieces.result

    pieces, result = asyncio.run(read())
    assert "".join(pieces) == text
    assert (result.thinking, result.answer) == ("schön", "7")


def test_other_tasks_run_while_a_piece_is_awaited(stream, tokenizer):
    slow = Slow(tokenizer)

    async def read():
        async with stream(slow.generate) as pieces:
            await anext(pieces)
            second = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0.01)  # the model waits, this task does not
            assert not second.done()
            slow.go_on.set()
            return await second

    assert asyncio.run(read()) == "a"
    assert threads() == []


def test_cancelling_the_task_stops_the_model(stream, tokenizer):
    slow = Slow(tokenizer)

    async def read():
        pieces = stream(slow.generate)
        await anext(pieces)
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0.01)
        waiting.cancel()
        slow.go_on_soon()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await pieces.aclose()

    asyncio.run(read())
    assert slow.made == 2
    assert threads() == []


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        pytest.param("one two three", ["two"], "one ", id="in the middle"),
        pytest.param("one two three", ["four"], "one two three", id="absent"),
        pytest.param("one tw", ["two"], "one tw", id="only begun"),
        pytest.param("one tw two", ["two"], "one tw ", id="begun, then whole"),
        pytest.param("aaab", ["aab"], "a", id="overlapping itself"),
        pytest.param("one two three", ["three", "o t"], "one tw", id="the first of several"),
        pytest.param(
            "<think>two</think>\n\none two", ["two", "\n\n"], "one ", id="not in thought"
        ),
        pytest.param("<think>two", ["two"], "<think>two", id="thought never closed"),
        pytest.param("schön日本", ["日"], "schön", id="several bytes"),
        pytest.param("two", ["two"], "", id="at once"),
    ],
)
def test_a_stop_string_ends_the_pieces_where_it_ends_the_text(
    stream, tokenizer, text, stop, shown
):
    running = stream(writer(tokenizer.encode(text)), stop=stop)
    pieces = list(running)
    whole = running.result
    assert "".join(pieces) == whole.text
    assert whole.text.endswith(shown)
    assert all(pieces)
    assert (whole.finish_reason == "stop_string") == (whole.text != text)


def test_text_that_cannot_become_a_stop_string_is_not_held_back(tokenizer, token_ids):
    reader = PieceReader(tokenizer, token_ids, eos_ids=(), stop=["two"])
    assert [reader.feed(token) for token in tokenizer.encode("at!")] == [["a"], [], ["t!"]]
