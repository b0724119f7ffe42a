"""Vision tower, merge, logits, loss, gradients and decoding equal the reference's."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovis_model.errors import CheckpointError
from ovis_model.modeling.checkpoint import load_model, load_tokenizer
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.modeling_siglip2_navit import rope_angles, window_index
from ovis_model.processing.image_processing_ovis2_5 import normalize
from ovis_model.tokens import TokenIds

from .conftest import GOLDEN, SHARED, assert_close, cases, manifest, needs_golden, tensors

pytestmark = needs_golden


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN / "ckpt-tiny", dtype=torch.float32)


@pytest.fixture
def windows(model):
    """Set which blocks attend fully, and undo it afterwards."""
    config = model.visual_tokenizer.vit.config

    def choose(indexes):
        config.fullatt_block_indexes = indexes

    yield choose
    config.fullatt_block_indexes = None


def patches_of(case, stored):
    values = stored.get("pixel_values_u8")
    if values is None:
        tile = stored["pixel_values_u8_tile"]
        values = tile.repeat(-(-case["num_patches"] // len(tile)), 1)[: case["num_patches"]]
    return torch.from_numpy(normalize(values.numpy()))


@pytest.mark.parametrize("case", cases("vit"))
@torch.no_grad()
def test_vision_tower_and_visual_embeddings_are_equal(case, model, windows):
    windows(case["fullatt_block_indexes"])
    stored = tensors("vit", case)
    patches, grids = patches_of(case, stored), stored["grid_thws"]
    blocks: list[torch.Tensor] = []
    tower = model.visual_tokenizer.vit.vision_model
    tower(patches, grids, blocks)
    words = model.visual_tokenizer(patches, grids)
    visual = model.vte(words)
    if "visual_embeds" in stored:
        for number, block in enumerate(blocks):
            assert_close(block, stored[f"hidden_states.{number}"])
        assert_close(words, stored["visual_tokens"][:, :-4], of_max=0, atol=5e-6)
        assert_close(visual, stored["visual_embeds"], of_max=0, atol=2e-5)
        angles = [
            rope_angles(h, w, tower.encoder.config.head_dim, 2).repeat(t, 1)
            for t, h, w in grids.tolist()
        ]
        assert_close(torch.cat(angles), stored["rope_freqs_merge_order"])
    else:
        rows, merged = stored["row_index"], stored["merged_row_index"]
        for number, block in enumerate(blocks):
            assert_close(block[rows], stored[f"hidden_states.{number}@rows"])
        assert_close(visual[merged], stored["visual_embeds@merged_rows"], of_max=0, atol=2e-5)
    order, _ = window_index([tuple(g) for g in grids.tolist()], tower.encoder.config)
    assert torch.equal(order, stored["window_index"])


@pytest.mark.parametrize("case", cases("model"))
def test_embeddings_logits_loss_and_gradients_are_equal(case, model, windows):
    windows(case["fullatt_block_indexes"])
    stored = tensors("model", case)
    model.train("train" in case["name"])
    model.zero_grad()
    media = (stored.get("pixel_values"), stored.get("grid_thws"))
    embeds = model.merge_multimodal(stored["input_ids"], *media)
    outputs = model(stored["input_ids"], stored["attention_mask"], *media, labels=stored["labels"])
    outputs.loss.backward()
    real = stored["attention_mask"]
    assert_close(embeds[real], stored["inputs_embeds"][real], of_max=0, atol=2e-5)
    assert_close(outputs.logits[real], stored["logits"][real], of_max=2e-5, atol=1e-4)
    assert outputs.loss.item() == pytest.approx(case["loss"], rel=5e-6)
    expected = json.loads((GOLDEN / "model" / case["grads"]).read_text(encoding="utf-8"))
    for name, parameter in model.named_parameters():
        reference = expected["parameters"].get(name)
        if name in case["params_without_grad"]:
            assert parameter.grad is None, name
        elif reference is not None:
            norm = 0.0 if parameter.grad is None else parameter.grad.double().norm().item()
            assert norm == pytest.approx(reference["l2"], rel=1e-4, abs=1e-9), name
    items = case["num_items_in_batch"]
    again = model(
        stored["input_ids"],
        real,
        *media,
        labels=stored["labels"],
        num_items_in_batch=torch.tensor(items),
    )
    assert again.loss.item() == pytest.approx(case["loss_with_num_items_in_batch"], rel=5e-6)
    model.eval()


def generation_cases():
    return [
        pytest.param(folder, case, id=f"{folder}-{case['name']}")
        for folder in ("generate", "generate-fullvocab")
        for case in manifest(folder)["cases"]
    ]


@pytest.fixture(scope="module")
def generators(model):
    full = Ovis2_5ForConditionalGeneration.from_pretrained(
        str(GOLDEN / "ckpt-fullvocab"), dtype=torch.float32
    ).eval()
    full.token_ids = TokenIds.of(load_tokenizer(SHARED / "ovis25-hf"))
    return {"generate": model, "generate-fullvocab": full}


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")
@pytest.mark.parametrize(("folder", "case"), generation_cases())
def test_greedy_decoding_gives_the_same_ids(folder, case, generators):
    prompts = {prompt["name"]: prompt for prompt in manifest(folder)["prompts"]}
    stored = load_file(GOLDEN / folder / prompts[case["prompt"]]["file"])
    arguments = dict(case["generate_kwargs"])
    thinking = arguments.pop("enable_thinking", False)
    bounded = arguments.pop("enable_thinking_budget", False)
    budget = arguments.pop("thinking_budget", None)
    if thinking and bounded:
        arguments["thinking_budget"] = budget

    def decode():
        media = (stored.get("pixel_values"), stored.get("grid_thws"))
        return generators[folder].generate(stored["input_ids"], None, *media, **arguments)

    if "reference_error" in case:
        with pytest.raises((ValueError, TypeError), match=r"max_new_tokens|at least 1 token"):
            decode()
        return
    kept = case.get("output_ids_if_penalty_history_is_kept_across_phases", case["output_ids"])
    assert decode()[0].tolist() in (case["output_ids"], kept)


def test_left_padded_batch_equals_single_runs(model):
    batch = manifest("generate")["batch"]
    prompts = {prompt["name"]: prompt for prompt in manifest("generate")["prompts"]}
    files = [load_file(GOLDEN / "generate" / prompts[name]["file"]) for name in batch["prompts"]]
    new_ids = model.generate(
        torch.tensor(batch["input_ids"]),
        None,
        torch.cat([f["pixel_values"] for f in files if "pixel_values" in f]),
        torch.cat([f["grid_thws"] for f in files if "grid_thws" in f]),
        max_new_tokens=batch["max_new_tokens"],
    )
    assert new_ids.tolist() == batch["output_ids"]


def test_tied_embeddings_load_without_a_stored_head_and_save_the_same_keys(tmp_path):
    stored = load_file(GOLDEN / "tied" / "tied.safetensors")
    tied = load_model(GOLDEN / "ckpt-tied", dtype=torch.float32)
    outputs = tied(
        stored["input_ids"], None, stored["pixel_values"], stored["grid_thws"], stored["labels"]
    )
    assert outputs.loss.item() == pytest.approx(manifest("tied")["loss"], rel=5e-6)
    assert_close(outputs.logits, stored["logits"], of_max=2e-5, atol=1e-4)
    tied.save_pretrained(str(tmp_path))
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(
        manifest("tied")["stored_keys"]
    )


def test_the_released_9b_configuration_has_the_released_tensors():
    expected = json.loads((GOLDEN / "architecture" / "state_dict_9b.json").read_text("utf-8"))
    config = Ovis2_5Config.from_pretrained(str(SHARED / "ovis25-hf"))
    with torch.device("meta"):
        large = Ovis2_5ForConditionalGeneration(config)
    shapes = {name: list(tensor.shape) for name, tensor in large.state_dict().items()}
    assert shapes == expected["shapes"]
    assert 2 * sum(math.prod(shape) for shape in shapes.values()) == expected["stored_bytes_bf16"]


def test_a_missing_tensor_is_named(tmp_path):
    weights = load_file(GOLDEN / "ckpt-tied" / "model.safetensors")
    del weights["vte.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (GOLDEN / "ckpt-tied" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"missing keys: vte\.weight"):
        load_model(tmp_path)
