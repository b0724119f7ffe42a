import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.modeling.checkpoint import load_model, save_checkpoint
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, pad_batch
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
def prompts(processor):
    """Text only, one image, two images, a video: of different lengths."""
    image = Image.effect_noise((64, 96), 80).convert("RGB")
    two = [{"role": "user", "content": [{"type": "image"}] * 2}]
    video = [{"role": "user", "content": [{"type": "video"}]}]
    return [
        processor.encode_prompt([{"role": "user", "content": "Hi"}], enable_thinking=True),
        processor.encode_prompt(IMAGE, images=[image], enable_thinking=True),
        processor.encode_prompt(two, images=[image, image], enable_thinking=True),
        processor.encode_prompt(video, frames=[image] * 3, enable_thinking=True),
    ]


def decode(model, processor, batch, **arguments):
    inputs = pad_batch(batch, pad_id=processor.token_ids.pad, side="left")
    inputs.pop("labels")
    return model.generate(**inputs, max_new_tokens=60, **arguments)


def test_a_ragged_batch_decodes_like_single_runs(model, processor, prompts):
    together = decode(model, processor, prompts, thinking_budget=5)
    for row, prompt in zip(together, prompts, strict=True):
        alone = decode(model, processor, [prompt], thinking_budget=5)[0]
        assert torch.equal(row[: len(alone)], alone)
        assert (row[len(alone) :] == processor.token_ids.pad).all()


def test_the_budget_forces_the_closing_sentence_in_its_place(model, processor, prompts):
    closing = processor.token_ids.closing_sentence
    forced = 0
    for row in decode(model, processor, prompts, thinking_budget=5).tolist():
        ended = processor.token_ids.im_end in row[:5] or processor.token_ids.think_close in row[:5]
        if not ended:
            assert tuple(row[5 : 5 + len(closing)]) == closing
            forced += 1
    assert forced


def test_the_budget_leaves_a_finished_thought_alone(model, processor, prompts):
    from ovis_model.modeling.thinking_budget import ThinkingBudgetLogitsProcessor  # noqa: PLC0415

    ids = processor.token_ids
    close = ThinkingBudgetLogitsProcessor(2, ids)
    scores = torch.zeros(3, 2000)
    generated = torch.tensor([[1, 2], [ids.think_close, 2], [1, ids.im_end]])
    assert torch.isinf(close(generated, scores)).any(dim=1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"thinking_budget": 0}, "at least 1 token", id="no budget at all"),
        pytest.param({"thinking_budget": 59}, "one token of answer", id="no room for an answer"),
    ],
)
def test_a_budget_that_cannot_work_is_refused_before_decoding(
    model, processor, prompts, arguments, message
):
    with pytest.raises(ValueError, match=message):
        decode(model, processor, prompts, **arguments)


def test_media_that_do_not_fit_the_positions_are_refused(model, prompts):
    image = prompts[1]
    with pytest.raises(ValueError, match="no pixel_values"):
        model(image.input_ids[None])
    with pytest.raises(ValueError, match=r"reserve 2 .* give 1 visual"):
        model(image.input_ids[None], None, image.pixel_values[:4], torch.tensor([[1, 2, 2]]))
    with pytest.raises(ValueError, match="describe 4 patches"):
        model(image.input_ids[None], None, image.pixel_values, torch.tensor([[1, 2, 2]]))
    with pytest.raises(ValueError, match="unexpanded"):
        model(torch.tensor([[1, -200]]))


def test_a_text_only_batch_gives_visual_parameters_a_zero_gradient(model):
    model.train()
    ids = torch.tensor([[1, 2, 3]])
    model(ids, labels=ids).loss.backward()
    assert model.vte.weight.grad is not None
    assert not model.vte.weight.grad.any()
    assert model.get_input_embeddings().weight.grad.any()


def test_a_model_trains_on_a_shape_that_inference_met_first(model, processor):
    picture = Image.effect_noise((160, 96), 80).convert("RGB")
    prompt = processor.encode_prompt(IMAGE, images=[picture], enable_thinking=False)
    inputs = (prompt.input_ids[None], None, prompt.pixel_values, prompt.grid_thws)
    with torch.inference_mode():
        model(*inputs)
    model(*inputs, labels=prompt.input_ids[None].clamp(min=0)).loss.backward()
    assert model.visual_tokenizer.head[0].weight.grad.any()


def test_a_saved_checkpoint_loads_again_with_the_same_logits(model, processor, prompts, tmp_path):
    save_checkpoint(model, processor, tmp_path)
    again = load_model(tmp_path)
    image = prompts[1]
    arguments = (image.input_ids[None], None, image.pixel_values, image.grid_thws)
    with torch.no_grad():
        assert torch.equal(model(*arguments).logits, again(*arguments).logits)
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


def test_other_language_models_are_refused_with_a_reason():
    with pytest.raises(ConfigError, match=r"'gpt2'.*only 'qwen3'"):
        Ovis2_5Config(llm_config={"model_type": "gpt2"})
