from types import SimpleNamespace

import pytest

from ovis_model.processing.conversation import format_conversation
from tests.support.tiny_model import build_tokenizer

HISTORY = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
ASKED = "<|im_start|>user\nWhy?<|im_end|>\n"


def turns(*pairs):
    return [SimpleNamespace(role=role, value=value) for role, value in pairs]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("preface", ["", "<think>\n\n</think>\n\n"], ids=["thinking", "not"])
@pytest.mark.parametrize("answered", [True, False], ids=["answered", "not yet answered"])
def test_a_preface_formats_up_to_the_answer_and_leaves_earlier_answers_as_they_are(
    tokenizer, preface, answered
):
    talk = turns(("human", "Hi"), ("gpt", "Yes"), ("human", "Why?"))
    talk += turns(("gpt", "Because.")) if answered else []
    ids, labels = format_conversation(talk, tokenizer, generation_preface=preface)
    assert tokenizer.decode(ids) == f"{HISTORY}{ASKED}<|im_start|>assistant\n{preface}"
    assert labels == [-100] * len(ids)


def test_every_answer_is_learned_and_the_newline_after_the_last_is_not_read(tokenizer):
    ids, labels = format_conversation(
        turns(("human", "Hi"), ("gpt", "Yes"), ("human", "Why?"), ("gpt", "<think>a</think>b")),
        tokenizer,
    )
    assert tokenizer.decode([i for i in labels if i >= 0]) == (
        "Yes<|im_end|><think>a</think>b<|im_end|>"
    )
    assert tokenizer.decode(ids).endswith("b<|im_end|>")
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))


def test_a_conversation_may_end_with_a_question(tokenizer):
    ids, labels = format_conversation(turns(("human", "Why?")), tokenizer)
    assert tokenizer.decode(ids) == ASKED
    assert labels == [-100] * len(ids)
