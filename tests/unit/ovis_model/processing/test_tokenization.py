import pytest

from ovis_model.processing.tokenization import tokenize_all, tokenize_with_placeholders
from tests.support.tiny_model import build_tokenizer


@pytest.fixture
def tokenizer():
    return build_tokenizer()


def test_texts_get_the_ids_they_get_one_by_one(tokenizer):
    texts = ["Which digit is this?", "", "<|im_start|>user\nnaïve 漢字<|im_end|>\n"]
    assert tokenize_all(texts, tokenizer) == [
        tokenizer.encode(text, add_special_tokens=False) for text in texts
    ]


def test_the_text_between_placeholders_is_tokenized_by_itself(tokenizer):
    def alone(text):
        return tokenizer.encode(text, add_special_tokens=False)

    found = tokenize_with_placeholders("<image>\n<image>What?", tokenizer)
    assert found == [-200, *alone("\n"), -200, *alone("What?")]


def test_a_text_with_a_video_takes_image_as_letters(tokenizer):
    found = tokenize_with_placeholders("<video><image>", tokenizer)
    assert found == [-201, *tokenizer.encode("<image>", add_special_tokens=False)]


def test_what_an_earlier_call_left_in_the_tokenizer_has_no_effect(tokenizer):
    text = "Which digit is this? " * 5
    before = tokenize_with_placeholders(text, tokenizer)
    tokenizer(text, truncation=True, max_length=4, padding="max_length")
    assert tokenizer.backend_tokenizer.truncation is not None
    assert tokenize_all([text, "Hi"], tokenizer)[0] == before
