"""Pieces arrive while the model runs, add up to the whole text, and stop when nobody reads."""

import threading

import pytest
import torch

from ovis_model.inference.streaming import stream_text
from ovis_model.tokens import TokenIds
from tests.support.tiny_model import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def token_ids(tokenizer):
    return TokenIds.of(tokenizer)


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


def stream(generate, tokenizer, token_ids):
    return stream_text(generate, tokenizer, token_ids, eos_ids=(token_ids.im_end,))


def test_pieces_add_up_to_the_text_and_know_their_phase(tokenizer, token_ids):
    text = "<think>\nwie schön, 日本\n</think>\n\n7 €"
    ids = [*tokenizer.encode(text), token_ids.im_end]
    pieces = list(stream(writer(ids), tokenizer, token_ids))
    assert "".join(pieces) == text
    assert "".join(p for p in pieces if p.phase == "answer") == "\n\n7 €"
    assert all(pieces)


def test_a_character_of_several_tokens_comes_whole(tokenizer, token_ids):
    pieces = list(stream(writer(tokenizer.encode("日")), tokenizer, token_ids))
    assert pieces == ["日"]


def test_bytes_that_never_become_a_character_are_shown_at_the_end(tokenizer, token_ids):
    ids = tokenizer.encode("a日")[:-1]
    pieces = list(stream(writer(ids), tokenizer, token_ids))
    assert "".join(pieces) == tokenizer.decode(ids)


def test_the_first_piece_arrives_before_the_last_token_is_made(tokenizer, token_ids):
    read_first = threading.Event()

    def wait_for_reader(index):
        if index == 1:
            assert read_first.wait(timeout=10)

    pieces = stream(
        writer(tokenizer.encode("ab"), before_each=wait_for_reader), tokenizer, token_ids
    )
    assert next(pieces) == "a"
    read_first.set()
    assert list(pieces) == ["b"]


def test_the_generator_returns_all_ids(tokenizer, token_ids):
    ids = [*tokenizer.encode("ab"), token_ids.im_end]
    returned = []

    def read():
        returned.append((yield from stream(writer(ids), tokenizer, token_ids)))

    assert list(read()) == ["a", "b"]
    assert returned == [ids]


def test_an_error_in_the_model_reaches_the_reader(tokenizer, token_ids):
    def fail(index):
        if index == 1:
            raise RuntimeError("out of memory")

    pieces = stream(writer(tokenizer.encode("ab"), before_each=fail), tokenizer, token_ids)
    assert next(pieces) == "a"
    with pytest.raises(RuntimeError, match="out of memory"):
        next(pieces)


def test_closing_the_generator_stops_the_model(tokenizer, token_ids):
    made = []
    read_first = threading.Event()

    def count(index):
        made.append(index)
        if index == 1:
            read_first.wait(timeout=10)

    pieces = stream(
        writer(tokenizer.encode("a") * 10_000, before_each=count), tokenizer, token_ids
    )
    next(pieces)
    threading.Timer(0.05, read_first.set).start()
    pieces.close()
    assert len(made) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("ovis-stream")]
