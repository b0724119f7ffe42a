"""A small tokenizer of Qwen3's kind, trained on the spot, in the files of a released checkpoint.

It differs from the released one in its vocabulary alone: the same normalisation and splitting
(digits one by one), all 256 bytes, so that any text can be written, and the same 26 added
tokens in the same order, which therefore have other ids.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import ByteLevel as ByteLevelProcessor

from ovis_model.tokens import (
    ADDED_TOKENS,
    END_OF_TEXT,
    IM_END,
    IMAGE_PLACEHOLDER,
    VIDEO_PLACEHOLDER,
)

#: Source: `pre_tokenizer` of the released tokenizer.json.
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
MODEL_MAX_LENGTH_TOKENS = 131072
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"
#: Texts are cut here before training: none of these is ever built from smaller pieces.
NEVER_MERGED = re.compile(
    "|".join(
        re.escape(token)
        for token in (IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, *(name for name, _ in ADDED_TOKENS))
    )
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train byte-level BPE and append Qwen3's tokens.

    Args:
        texts: What the tokenizer should write in few tokens.
        vocab_size: Bytes and merges at most; a small corpus gives fewer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(WORD_PATTERN), behavior="isolated"),
            ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    # The stubs of tokenizers lack these arguments; released files have them.
    tokenizer.decoder = decoders.ByteLevel(
        add_prefix_space=False,  # type: ignore[call-arg]
        trim_offsets=False,
        use_regex=False,
    )
    tokenizer.post_processor = ByteLevelProcessor(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_pieces(texts), trainer)
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False, special=special) for name, special in ADDED_TOKENS]
    )
    return tokenizer


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from filter(None, NEVER_MERGED.split(text))


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token that must be there."""
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None, f"{token!r} was added above"
    return token_id


def write_tokenizer_files(tokenizer: Tokenizer, folder: Path) -> None:
    """Write every tokenizer file that a released checkpoint has.

    Args:
        tokenizer: As `train_tokenizer` returns it.
        folder: An existing folder.
    """
    model = json.loads(tokenizer.to_str())["model"]
    chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    ids = {name: id_of(tokenizer, name) for name, _ in ADDED_TOKENS}
    tokenizer.save(str(folder / "tokenizer.json"))
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    vocab = json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    write_json(folder / "added_tokens.json", dict(sorted(ids.items())))
    write_json(folder / "special_tokens_map.json", _special_tokens_map())
    write_json(folder / "chat_template.json", {"chat_template": chat_template})
    write_json(folder / "tokenizer_config.json", _tokenizer_config(ids, chat_template))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON as released checkpoints do: indented by two, UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _added_token(name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": name, **flags}


def _additional_special_tokens() -> list[str]:
    return [name for name, special in ADDED_TOKENS if special and name != END_OF_TEXT]


def _special_tokens_map() -> dict[str, Any]:
    return {
        "additional_special_tokens": _additional_special_tokens(),
        "eos_token": _added_token(IM_END),
        "pad_token": _added_token(END_OF_TEXT),
    }


def _tokenizer_config(ids: dict[str, int], chat_template: str) -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(ids[name]): {**_added_token(name), "special": special}
            for name, special in ADDED_TOKENS
        },
        "additional_special_tokens": _additional_special_tokens(),
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "errors": "replace",
        "extra_special_tokens": {},
        "model_max_length": MODEL_MAX_LENGTH_TOKENS,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
