import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ovis_model.errors import CheckpointError
from ovis_model.modeling.checkpoint import load_model, save_checkpoint
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tiny_checkpoint

IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return Ovis2_5Processor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def inputs(processor):
    """A prompt with an image, as `forward` takes it."""
    picture = Image.effect_noise((64, 96), 80).convert("RGB")
    prompt = processor.encode_prompt(IMAGE, images=[picture], enable_thinking=True)
    return prompt.input_ids[None], None, prompt.pixel_values, prompt.grid_thws


def test_a_saved_checkpoint_loads_again_with_the_same_logits(model, processor, inputs, tmp_path):
    save_checkpoint(model, processor, tmp_path)
    again = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(*inputs).logits, again(*inputs).logits)
    assert again.token_ids == model.token_ids


def test_the_saved_config_reads_in_both_spellings(model, processor, tmp_path):
    save_checkpoint(model, processor, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["Ovis2_5"]
    assert written["llm_config"]["rope_theta"] == 1_000_000
    assert written["torch_dtype"] == written["dtype"] == "float32"


def test_auto_classes_find_the_model(checkpoint):
    assert isinstance(AutoConfig.from_pretrained(str(checkpoint)), Ovis2_5Config)
    found = AutoModelForCausalLM.from_pretrained(str(checkpoint))
    assert type(found).__name__ == "Ovis2_5ForConditionalGeneration"


def damage(checkpoint, folder, change):
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda w: w.pop("vte.weight"), r"missing keys: vte\.weight", id="missing"),
        pytest.param(
            lambda w: w.update({"extra.weight": torch.zeros(1)}),
            r"unexpected keys: extra\.weight",
            id="extra",
        ),
        pytest.param(
            lambda w: w.update({"vte.weight": torch.zeros(2, 2)}), r"vte\.weight", id="misshapen"
        ),
        pytest.param(
            lambda w: w["vte.weight"].fill_(float("nan")),
            r"NaN or infinite values in vte\.weight",
            id="not a number",
        ),
    ],
)
def test_a_damaged_tensor_is_named(checkpoint, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_model(damage(checkpoint, tmp_path, change))


def test_a_weights_file_that_was_cut_off_is_named_as_damaged(checkpoint, tmp_path):
    folder = damage(checkpoint, tmp_path, lambda weights: None)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_model(folder)


def test_folders_that_are_no_checkpoints_say_what_is_missing(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(tmp_path)
    config = (checkpoint / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match="only safetensors"):
        load_model(tmp_path)
