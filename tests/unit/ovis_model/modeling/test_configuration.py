import json
from pathlib import Path

import pytest
import torch

from ovis_model.errors import ConfigError
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from tests.support.tiny_model import build_tokenizer, tiny_config

SHARED = Path(__file__).parents[5] / "shared"
RELEASED = SHARED / "ovis25-hf" / "config.json"
ARCHITECTURE = SHARED / "golden" / "architecture"

needs_released = pytest.mark.skipif(
    not (RELEASED.is_file() and ARCHITECTURE.is_dir()),
    reason="needs ../shared/ovis25-hf and ../shared/golden/architecture, the released layout",
)
#: Where the 2B differs from the 9B.
SMALLER = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "tie_word_embeddings": True,
}
DIFFERENCES = {"2b": SMALLER, "9b": {}}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def config_of(size):
    released = read(RELEASED)
    released["llm_config"].update(DIFFERENCES[size])
    return Ovis2_5Config.from_dict(released)


@needs_released
@pytest.mark.parametrize("size", DIFFERENCES)
def test_the_released_sizes_have_exactly_the_released_tensors(size):
    expected = read(ARCHITECTURE / f"state_dict_{size}.json")
    config = config_of(size)
    with torch.device("meta"):
        model = Ovis2_5ForConditionalGeneration(config)
    assert config.tie_word_embeddings is (size == "2b")
    stored = model.state_dict()
    if config.tie_word_embeddings:
        assert stored.pop("llm.lm_head.weight").shape == (151936, 2048)
    assert {name: list(tensor.shape) for name, tensor in stored.items()} == expected["shapes"]
    assert len(stored) == expected["stored_tensors"]
    num_parameters = sum(tensor.numel() for tensor in stored.values())
    assert num_parameters == model.num_parameters() == expected["stored_parameters"]
    assert 2 * num_parameters == expected["stored_bytes_bf16"]


@needs_released
def test_the_9b_has_the_keys_and_the_size_of_the_released_index():
    index = read(SHARED / "ovis25-hf" / "model.safetensors.index.json")
    with torch.device("meta"):
        stored = Ovis2_5ForConditionalGeneration(config_of("9b")).state_dict()
    assert stored.keys() == index["weight_map"].keys()
    num_bytes = sum(tensor.to(torch.bfloat16).nbytes for tensor in stored.values())
    assert num_bytes == index["metadata"]["total_size"]


@needs_released
def test_the_released_config_is_written_with_the_values_it_was_read_with():
    written = json.loads(config_of("9b").to_json_string(use_diff=True))
    released = read(RELEASED)
    assert released.pop("transformers_version") < written.pop("transformers_version")
    # Transformers 4 would read it as a wish for slow attention.
    assert released["llm_config"].pop("_attn_implementation_autoset")
    added = {"rope_parameters", "layer_types", "dtype", "tie_word_embeddings", "pad_token_id"}
    for part, keys in {"llm_config": added, "vit_config": {"dtype", "initializer_range"}}.items():
        ours, theirs = written.pop(part), released.pop(part)
        assert {key: ours.get(key) for key in theirs} == theirs
        assert ours.keys() - theirs.keys() == keys
    assert {key: written.get(key) for key in released} == released
    assert written.keys() - released.keys() == {
        "dtype",
        "initializer_range",
        "tie_word_embeddings",
    }


def test_a_written_config_reads_as_the_same():
    config = tiny_config(build_tokenizer())
    again = Ovis2_5Config.from_dict(json.loads(config.to_json_string(use_diff=True)))
    assert again.to_dict() == config.to_dict()


def test_the_copies_at_the_top_follow_the_language_model(tmp_path):
    config = tiny_config(build_tokenizer())
    config.llm.vocab_size = 999
    config.save_pretrained(tmp_path)
    assert read(tmp_path / "config.json")["vocab_size"] == 999
    assert Ovis2_5Config.from_pretrained(tmp_path).vocab_size == 999


def test_other_language_models_are_refused_with_a_reason():
    with pytest.raises(ConfigError, match=r"'gpt2'.*only 'qwen3'"):
        Ovis2_5Config(llm_config={"model_type": "gpt2"})


def test_patches_over_several_frames_are_refused_with_a_reason():
    with pytest.raises(ConfigError, match="temporal_patch_size is 2; every released"):
        Ovis2_5Config(vit_config={"temporal_patch_size": 2})
