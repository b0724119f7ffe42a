"""What a checkpoint folder holds besides weights and config.json, and who may read it.

Remote code that came with a checkpoint stays beside it byte for byte, for readers that want
it; nothing here runs it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from ovis_model.modeling.tokenizer_files import TOKENIZER_CONFIG, load_tokenizer
from ovis_model.modeling.weight_files import INDEX
from ovis_model.reports import PICKLES
from ovis_model.tokens import TokenIds

ADDED_TOKENS = "added_tokens.json"
CHAT_TEMPLATE = "chat_template.json"
CHAT_TEMPLATE_JINJA = "chat_template.jinja"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
TOKENIZER = "tokenizer.json"
#: Files that say the same, in other words, as tokenizer.json and the chat template.
_TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    CHAT_TEMPLATE,
    "merges.txt",
    "vocab.json",
)
#: What belongs to another model: its weights, and what a training left beside them.
_NOT_CARRIED = frozenset({INDEX, "manifest.json", "lineage.json", "train_config.json"})
_WEIGHTS = PICKLES | {".safetensors", ".gguf", ".onnx", ".h5", ".msgpack"}
#: Names that transformers 5 gives to tokenizer classes, and what older releases call them.
_OLD_TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}


def find_token_ids(name_or_path: str | None) -> TokenIds | None:
    """Look up the special tokens' ids where a model came from; None if that is no folder here."""
    if not name_or_path or not (Path(name_or_path) / TOKENIZER_CONFIG).is_file():
        return None
    return TokenIds.of(load_tokenizer(Path(name_or_path)))


def carry_extra_files(base: Path, folder: Path) -> None:
    """Copy what a base checkpoint has and the new one has not: README, licence, remote code, ...

    Sub-folders, weights and what a training wrote about itself stay behind.
    """
    for extra in sorted(base.iterdir()):
        target = folder / extra.name
        if extra.is_file() and not target.exists() and not _stays_behind(extra):
            shutil.copyfile(extra, target)


def _stays_behind(path: Path) -> bool:
    return path.suffix in _WEIGHTS or path.name in _NOT_CARRIED


def settle_tokenizer_files(folder: Path, base: Path | None) -> None:
    """Make the tokenizer files what any release of transformers can read.

    transformers 5 spells them in a way that transformers 4 cannot load.  Where the tokenizer is
    still the base's, the base's files return byte for byte; else they are spelled as released
    checkpoints spell them.

    Args:
        folder: Where transformers 5 has written tokenizer files.
        base: The checkpoint the tokenizer came from, if any.
    """
    if base is not None and _is_same_tokenizer(folder, base):
        for name in _TOKENIZER_FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, folder / name)
        if not (base / CHAT_TEMPLATE_JINJA).is_file():
            (folder / CHAT_TEMPLATE_JINJA).unlink(missing_ok=True)
    elif _is_new_spelling(folder):
        _spell_as_released(folder)


def _is_same_tokenizer(folder: Path, base: Path) -> bool:
    if not all((base / name).is_file() for name in (TOKENIZER, TOKENIZER_CONFIG)):
        return False
    if _read_json(folder / CHAT_TEMPLATE) != _read_json(base / CHAT_TEMPLATE):
        return False
    ours, theirs = _read_json(folder / TOKENIZER), _read_json(base / TOKENIZER)
    # Of the other parts transformers rewrites details that change nothing.
    return all(ours.get(part) == theirs.get(part) for part in ("model", "added_tokens"))


def _is_new_spelling(folder: Path) -> bool:
    return "backend" in _read_json(folder / TOKENIZER_CONFIG)


def _spell_as_released(folder: Path) -> None:
    config = _read_json(folder / TOKENIZER_CONFIG)
    tokens = _read_json(folder / TOKENIZER).get("added_tokens", [])
    for of_transformers_5 in ("backend", "is_local", "local_files_only"):
        config.pop(of_transformers_5, None)
    name = config.get("tokenizer_class", "")
    config["tokenizer_class"] = _OLD_TOKENIZER_CLASSES.get(name, name)
    # A list here stops transformers 4; the list has a name of its own there.
    special = config.get("extra_special_tokens") or config.get("additional_special_tokens", [])
    config["additional_special_tokens"] = list(special)
    config["extra_special_tokens"] = {}
    flags = {token["content"]: {k: v for k, v in token.items() if k != "id"} for token in tokens}
    config["added_tokens_decoder"] = {str(t["id"]): flags[t["content"]] for t in tokens}
    config["chat_template"] = _read_json(folder / CHAT_TEMPLATE).get("chat_template")
    ends = {
        key: {name: value for name, value in flags[config[key]].items() if name != "special"}
        for key in ("eos_token", "pad_token")
        if config.get(key) in flags
    }
    _write_json(folder / TOKENIZER_CONFIG, config)
    _write_json(folder / ADDED_TOKENS, {token["content"]: token["id"] for token in tokens})
    _write_json(
        folder / SPECIAL_TOKENS_MAP,
        {"additional_special_tokens": config["additional_special_tokens"], **ends},
    )
    (folder / CHAT_TEMPLATE_JINJA).unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
