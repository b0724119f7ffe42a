"""Text to ids, all texts of a conversation in one call, with media as negative ids."""

from collections.abc import Sequence

from ovis_model.tokens import (
    IMAGE_PLACEHOLDER,
    IMAGE_PLACEHOLDER_ID,
    VIDEO_PLACEHOLDER,
    VIDEO_PLACEHOLDER_ID,
    Tokenizer,
)


def tokenize_with_placeholders(text: str, tokenizer: Tokenizer) -> list[int]:
    """Tokenize one text; see `tokenize_all`."""
    return tokenize_all([text], tokenizer)[0]


def tokenize_all(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Tokenize texts, with one negative id per placeholder.

    The text between two placeholders is tokenized by itself.  A text with a <video> takes
    <image> as plain letters, as the reference does.

    Returns:
        Ids of each text; -200 stands for <image>, -201 for <video>.
    """
    split = [_split(text) for text in texts]
    encoded = iter(_encode([piece for _, pieces in split for piece in pieces], tokenizer))
    result = []
    for placeholder_id, pieces in split:
        ids = next(encoded)
        for _ in pieces[1:]:
            ids.append(placeholder_id)
            ids += next(encoded)
        result.append(ids)
    return result


def _split(text: str) -> tuple[int, list[str]]:
    if VIDEO_PLACEHOLDER in text:
        return VIDEO_PLACEHOLDER_ID, text.split(VIDEO_PLACEHOLDER)
    return IMAGE_PLACEHOLDER_ID, text.split(IMAGE_PLACEHOLDER)


def _encode(pieces: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    # Straight to the Rust tokenizer, which need not work out where in the text each token was:
    # that is a third of the time.
    backend = tokenizer.backend_tokenizer
    # A call such as tokenizer(text, truncation=True) leaves its settings behind.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [found.ids for found in backend.encode_batch_fast(pieces, add_special_tokens=False)]
