import pytest

from ovis_model.errors import CheckpointError
from ovis_model.modeling.tokenizer_files import load_tokenizer
from tests.support.tiny_model import build_tokenizer


@pytest.fixture
def folder(tmp_path):
    build_tokenizer().save_pretrained(str(tmp_path))
    return tmp_path


def test_a_saved_tokenizer_loads_with_the_same_ids(folder):
    text = "<|im_start|>user\nWhich digit is this?<|im_end|>\n"
    loaded = load_tokenizer(folder)
    assert loaded.encode(text) == build_tokenizer().encode(text)


def test_the_models_config_is_not_needed_and_not_asked(folder):
    (folder / "config.json").write_text("{", encoding="utf-8")
    assert load_tokenizer(folder).decode([0]) == build_tokenizer().decode([0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer_config.json", r"has no tokenizer_config\.json; copy the tokenizer files"),
        ("tokenizer.json", r"no vocabulary: neither tokenizer\.json nor vocab\.json with merges"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
def test_a_file_that_was_cut_off_is_refused(folder, name):
    (folder / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the tokenizer files cannot be read \(.*copy them"):
        load_tokenizer(folder)
