import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ovis_model.modeling.folder_files import find_token_ids, settle_tokenizer_files
from ovis_model.modeling.tokenizer_files import load_tokenizer
from ovis_model.tokens import TokenIds

RELEASED = Path(__file__).parents[5] / "shared" / "ovis25-hf"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def written(checkpoint, tmp_path):
    """What transformers writes for an unchanged tokenizer."""
    load_tokenizer(checkpoint).save_pretrained(str(tmp_path))
    shutil.copy(checkpoint / "chat_template.json", tmp_path)
    return tmp_path


def test_an_unchanged_tokenizer_keeps_the_bytes_of_its_base(checkpoint, written):
    assert read(written / "tokenizer_config.json")["tokenizer_class"] == "TokenizersBackend"
    settle_tokenizer_files(written, checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (written / name).read_bytes() == (checkpoint / name).read_bytes()
    assert not (written / "chat_template.jinja").exists()


@pytest.mark.parametrize("changed", ["tokens", "chat template", "no base"])
def test_a_changed_tokenizer_is_spelled_so_that_older_readers_load_it(
    checkpoint, written, changed
):
    base = None if changed == "no base" else checkpoint
    if changed == "tokens":
        tokenizer = load_tokenizer(checkpoint)
        tokenizer.add_tokens(["<digit>"])
        tokenizer.save_pretrained(str(written))
    if changed == "chat template":
        (written / "chat_template.json").write_text('{"chat_template": "{{ 1 }}"}', "utf-8")
    before = AutoTokenizer.from_pretrained(str(written), trust_remote_code=False)
    settle_tokenizer_files(written, base)
    config = read(written / "tokenizer_config.json")
    assert config["extra_special_tokens"] == {}
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local"} & config.keys()
    assert config["chat_template"] == read(written / "chat_template.json")["chat_template"]
    added = read(written / "added_tokens.json")
    assert ("<digit>" in added) is (changed == "tokens")
    assert {int(n): t["content"] for n, t in config["added_tokens_decoder"].items()} == {
        number: token for token, number in added.items()
    }
    after = AutoTokenizer.from_pretrained(str(written), trust_remote_code=False)
    assert after.get_vocab() == before.get_vocab()
    assert after.all_special_ids == before.all_special_ids
    assert after.encode("Hi <|im_end|>") == before.encode("Hi <|im_end|>")


@pytest.mark.skipif(not RELEASED.is_dir(), reason="needs ../shared/ovis25-hf, the released files")
def test_the_released_tokenizer_gets_its_released_spelling(tmp_path):
    load_tokenizer(RELEASED).save_pretrained(str(tmp_path))
    shutil.copy(RELEASED / "chat_template.json", tmp_path)
    settle_tokenizer_files(tmp_path, None)
    ours, theirs = (read(path / "tokenizer_config.json") for path in (tmp_path, RELEASED))
    assert ours == {key: value for key, value in theirs.items() if key != "add_bos_token"}
    for name in ("added_tokens.json", "special_tokens_map.json"):
        assert read(tmp_path / name) == read(RELEASED / name)
    settle_tokenizer_files(tmp_path, RELEASED)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (RELEASED / name).read_bytes()


@pytest.mark.parametrize("nowhere", [None, "", "AIDC-AI/Ovis2.5-9B"], ids=str)
def test_a_name_that_is_no_folder_gives_no_token_ids(nowhere):
    assert find_token_ids(nowhere) is None


def test_a_folder_gives_its_tokenizers_ids(checkpoint):
    assert find_token_ids(str(checkpoint)) == TokenIds.of(load_tokenizer(checkpoint))
