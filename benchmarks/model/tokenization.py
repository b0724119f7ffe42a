"""P3: a conversation and its media to ids and labels, against the reference's way.

What the reference does, in our words: it copies the conversation, writes each turn in the chat
format and tokenizes it, cut at its placeholders, piece by piece; it tokenizes the written-out
whole once more and insists that both agree; then it walks over the ids, in Python lists, and
puts visual positions where placeholders are.  Both sides use transformers' Qwen2 tokenizer.
"""

import copy
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AddedToken, Qwen2Tokenizer

from benchmarks.model.agreement import bitwise
from benchmarks.suite import Agreement, Trial
from benchmarks.workload import digest
from ovis_model.data.schema import Turn
from ovis_model.processing.conversation import ROLES, format_conversation
from ovis_model.processing.visual_tokens import Grid, expand_placeholders
from ovis_model.tokens import (
    ADDED_TOKENS,
    EMPTY_THINK,
    IGNORE_ID,
    IM_END,
    IM_START,
    IMAGE_BEGIN_ID,
    IMAGE_END_ID,
    IMAGE_PLACEHOLDER,
    IMAGE_PLACEHOLDER_ID,
    THINK_CLOSE,
    THINK_OPEN,
    VISUAL_ATOM_ID,
)

LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
NUM_WORDS = 4000
VOCAB_SIZE = 16000
Conversation = list[dict[str, str]]
Encoded = tuple[Tensor, Tensor]


def build(seed: int, *, turns: Sequence[int], grids: Sequence[Grid], thinking: bool) -> Trial:
    """Make the trial for one conversation.

    Args:
        seed: Of the words.
        turns: Words of each turn; questions and answers alternate.
        grids: (t, h, w) of each image; all are shown in the first turn.
        thinking: Put most of each answer into its thinking block.
    """
    random = np.random.default_rng(seed)
    conversation = []
    for number, length in enumerate(turns):
        text = random_text(random, length)
        if number % 2 and thinking:
            text = f"{THINK_OPEN}\n{text}\n{THINK_CLOSE}\n\n{random_text(random, 20)}"
        if not number:
            text = f"{IMAGE_PLACEHOLDER}\n" * len(grids) + text
        conversation.append({"from": "gpt" if number % 2 else "human", "value": text})
    tokenizer = build_tokenizer()
    parsed = [Turn.model_validate(turn) for turn in conversation]
    return Trial(
        variants={
            "piece by piece, Python lists": partial(
                piece_by_piece, tokenizer, conversation, grids
            ),
            "ours": partial(ours, tokenizer, parsed, grids),
        },
        compare=same_sample,
        sha256=digest(conversation, tuple(grids), sorted(tokenizer.get_vocab().items())),
    )


@cache
def build_tokenizer() -> Any:
    """Train transformers' Qwen2 tokenizer on our words: each is then a token or two."""
    words = _words()
    corpus = [" ".join(words[start:]) for start in range(0, NUM_WORDS // 2, 20)]
    blank: Any = Qwen2Tokenizer()
    tokenizer = blank.train_new_from_iterator(corpus, VOCAB_SIZE, show_progress=False)
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=special) for name, special in ADDED_TOKENS]
    )
    return tokenizer


def piece_by_piece(tokenizer: Any, conversation: Conversation, grids: Sequence[Grid]) -> Encoded:
    """Return ids and labels, int64 [seq_len], the way the reference makes them."""
    ids, labels = _format(tokenizer, copy.deepcopy(conversation))
    expanded: list[int] = []
    learned: list[int] = []
    places = [place for place, token in enumerate(ids) if token == IMAGE_PLACEHOLDER_ID]
    start = 0
    for place, (t, h, w) in zip(places, grids, strict=True):
        image = [IMAGE_BEGIN_ID] + [VISUAL_ATOM_ID] * (t * h * w // 4) + [IMAGE_END_ID]
        expanded += ids[start:place] + image
        learned += labels[start:place] + [IGNORE_ID] * len(image)
        start = place + 1
    expanded += ids[start:]
    learned += labels[start:]
    assert all(label in (IGNORE_ID, token) for token, label in zip(expanded, learned, strict=True))
    return torch.tensor(expanded, dtype=torch.long), torch.tensor(learned, dtype=torch.long)


def _format(tokenizer: Any, conversation: Conversation) -> tuple[list[int], list[int]]:
    written = ""
    ids: list[int] = []
    labels: list[int] = []
    for number, turn in enumerate(conversation):
        header = f"{IM_START}{ROLES[turn['from']]}\n"
        if turn["from"] == "gpt" and not (
            THINK_OPEN in turn["value"] and THINK_CLOSE in turn["value"]
        ):
            header += EMPTY_THINK
        text = f"{header}{turn['value']}{IM_END}"
        is_last = number == len(conversation) - 1
        text += "" if is_last and turn["from"] == "gpt" else "\n"
        written += text
        turn_ids = _tokenize(tokenizer, text)
        turn_labels = [IGNORE_ID] * len(turn_ids)
        if turn["from"] == "gpt":
            start = len(_tokenize(tokenizer, header))
            stop = len(turn_ids) if is_last else len(turn_ids) - 1
            turn_labels[start:stop] = turn_ids[start:stop]
        ids += turn_ids
        labels += turn_labels
    assert _tokenize(tokenizer, written) == ids
    return ids, labels


def _tokenize(tokenizer: Any, text: str) -> list[int]:
    pieces = [
        tokenizer(piece, add_special_tokens=False).input_ids
        for piece in text.split(IMAGE_PLACEHOLDER)
    ]
    ids: list[int] = list(pieces[0])
    for piece in pieces[1:]:
        ids += [IMAGE_PLACEHOLDER_ID, *piece]
    return ids


def ours(tokenizer: Any, turns: Sequence[Turn], grids: Sequence[Grid]) -> Encoded:
    """Return ids and labels, int64 [seq_len], as `Ovis2_5Processor.encode_sample` makes them."""
    ids, labels = expand_placeholders(*format_conversation(turns, tokenizer), grids)
    return torch.as_tensor(ids), torch.as_tensor(labels)


def same_sample(expected: Encoded, found: Encoded) -> Agreement:
    """Ask for the same ids and the same labels."""
    for name, a, b in zip(("ids", "labels"), expected, found, strict=True):
        if not (agreement := bitwise(a, b)).equal:
            return Agreement(False, f"{name}: {agreement.how}")
    return Agreement(True, "same ids, labels")


@cache
def _words() -> list[str]:
    random = np.random.default_rng(0)
    share = np.arange(len(LETTERS), 0, -1) / sum(range(1, len(LETTERS) + 1))
    lengths = random.integers(2, 10, NUM_WORDS)
    return ["".join(random.choice(list(LETTERS), length, p=share)) for length in lengths]


def random_text(random: np.random.Generator, num_words: int) -> str:
    """Draw words of our language, with full stops."""
    # Few words are frequent and most are rare, as in any language.
    ranks = np.minimum(random.zipf(1.3, num_words) - 1, NUM_WORDS - 1)
    words = [_words()[rank] for rank in ranks]
    for end in range(11, num_words, 12):
        words[end] += "."
    return " ".join(words)
