"""Merged embeddings, hidden states, logits, loss and gradients equal the reference's."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ovis_model.errors import CheckpointError
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration

from .conftest import (
    GOLDEN,
    OFFICIAL,
    assert_close,
    assert_logits,
    cases,
    inputs_of,
    manifest,
    needs_golden,
    norm_of,
    read,
    tensors,
)

pytestmark = needs_golden

#: Parts of the model whose gradients are summed up; a name belongs to every part it begins with.
GROUPS = manifest("model").get("groups", [])


@pytest.fixture
def prepared(model, windows):
    """Put the model into a case's state; return its inputs and what the reference got."""

    def prepare(case):
        windows(case["fullatt_block_indexes"])
        model.train("train mode" in case["reference"])
        model.zero_grad()
        stored = tensors("model", case)
        return stored, inputs_of(stored)

    yield prepare
    model.eval()
    model.zero_grad()


def by_group(values):
    """Take the norm of each group's tensors."""
    return {
        group: norm_of(value for name, value in values.items() if name.startswith(group))
        for group in GROUPS
    }


@pytest.mark.parametrize("case", cases("model"))
@torch.no_grad()
def test_merged_embeddings_hidden_states_and_logits_are_equal(case, model, prepared):
    stored, inputs = prepared(case)
    real = stored["attention_mask"]
    embeds = model.merge_multimodal(
        stored["input_ids"], inputs["pixel_values"], inputs["grid_thws"]
    )
    assert_close(embeds[real], stored["inputs_embeds"][real], of_max=0, atol=2e-5)
    outputs = model(**inputs, output_hidden_states=True)
    assert_logits(outputs.logits[real], stored["logits"][real])
    states = [name for name in stored if name.startswith("llm_hidden_states")]
    assert len(states) in (0, len(outputs.hidden_states))
    for number in range(len(states)):
        theirs = stored[f"llm_hidden_states.{number}"]
        assert_close(outputs.hidden_states[number][real], theirs[real], of_max=1e-5)


@pytest.mark.parametrize("case", cases("model"))
def test_loss_is_equal(case, prepared, model):
    stored, inputs = prepared(case)
    assert (stored["labels"][:, 1:] != -100).sum() == case["num_label_tokens"]
    loss = model(**inputs, labels=stored["labels"]).loss.item()
    assert loss == pytest.approx(case["loss"], rel=5e-6)
    assert loss == pytest.approx(stored["loss"].item(), rel=5e-6)


@pytest.mark.parametrize("case", cases("model"))
def test_every_gradient_is_equal(case, prepared, model):
    stored, inputs = prepared(case)
    model(**inputs, labels=stored["labels"]).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    missing = {name for name, gradient in gradients.items() if gradient is None}
    assert missing == set(case["params_without_grad"])
    present = {name: gradient for name, gradient in gradients.items() if name not in missing}
    zero = {name for name, gradient in present.items() if not gradient.any()}
    assert zero == set(case["params_with_zero_grad"])

    expected = read(f"model/{case['grads']}")
    # Where the reference computes no gradient, it lists none, or null.
    listed = {name: value for name, value in expected["parameters"].items() if value}
    assert set(listed) == set(present)
    for name, theirs in listed.items():
        assert_gradient(present[name], theirs)
    assert by_group(present) == pytest.approx(expected["group_l2"], rel=1e-4)
    assert norm_of(present.values()) == pytest.approx(expected["global_l2"], rel=1e-4)
    assert norm_of(present.values()) == pytest.approx(case["global_grad_l2"], rel=1e-4)


def assert_gradient(ours, theirs):
    """Compare norm, largest element, first elements and sum of one parameter's gradient."""
    element = 1e-4 * theirs["absmax"]
    assert norm_of([ours]) == pytest.approx(theirs["l2"], rel=1e-4)
    assert ours.abs().max().item() == pytest.approx(theirs["absmax"], abs=element)
    assert ours.flatten()[:4].tolist() == pytest.approx(theirs["first"], abs=element)
    # What a difference of 1e-4 of the norm can change in the sum.
    allowed = 1e-4 * theirs["l2"] * math.sqrt(ours.numel())
    assert ours.double().sum().item() == pytest.approx(theirs["sum"], abs=allowed)


@pytest.mark.parametrize("case", cases("model"))
@pytest.mark.parametrize("kind", [int, torch.tensor], ids=["number", "tensor"])
def test_the_items_of_a_larger_batch_divide_loss_and_gradients(case, kind, prepared, model):
    stored, inputs = prepared(case)
    items = kind(case["num_items_in_batch"])
    loss = model(**inputs, labels=stored["labels"], num_items_in_batch=items).loss
    assert loss.item() == pytest.approx(case["loss_with_num_items_in_batch"], rel=5e-6)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert norm_of(gradients) == pytest.approx(case["global_grad_l2_with_num_items"], rel=1e-4)


OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(
        parameters, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
    ),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_five_steps_of_training_take_the_same_way(name):
    trajectory = manifest("model")["trajectories"][name]
    batches = {case["name"]: tensors("model", case) for case in manifest("model")["cases"]}
    model = load_model(GOLDEN / "ckpt-tiny", dtype=torch.float32).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = OPTIMIZERS[name](model.parameters())
    for step in trajectory["steps"]:
        batch = batches[step["batch"]]
        loss = model(**inputs_of(batch), labels=batch["labels"]).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert loss.item() == pytest.approx(step["loss"], rel=1e-4)
        assert norm.item() == pytest.approx(step["grad_norm_before_clip"], rel=1e-3)
    moved = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    assert by_group(moved) == pytest.approx(
        trajectory["delta_l2_by_group_after_last_step"], rel=1e-4
    )


@torch.no_grad()
def test_half_precision_stays_near_the_reference():
    smoke = manifest("model")["bf16_smoke"]
    stored = load_file(GOLDEN / "model" / smoke["file"])
    inputs = inputs_of(load_file(GOLDEN / "model" / smoke["inputs"]))
    labels = load_file(GOLDEN / "model" / smoke["inputs"])["labels"]
    model = load_model(GOLDEN / "ckpt-tiny", dtype=torch.bfloat16)
    outputs = model(**inputs, labels=labels)
    assert_close(outputs.logits.float(), stored["logits"].float(), of_max=6e-2)
    assert outputs.loss.item() == pytest.approx(smoke["loss"], abs=6e-2)
    assert outputs.loss.item() == pytest.approx(smoke["loss_sdpa"], abs=6e-2)
    words = model.visual_tokenizer(inputs["pixel_values"], inputs["grid_thws"])
    assert_close(words.float(), stored["visual_tokens"][:, :-4].float(), of_max=6e-2)


# ---- tied embeddings ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """The tied checkpoint, whose vocabulary the fixture keeps with the untied one."""
    folder = tmp_path_factory.mktemp("tied")
    for source in (GOLDEN / "ckpt-tiny", GOLDEN / "ckpt-tied"):
        for path in source.iterdir():
            if "safetensors" not in path.name or source.name == "ckpt-tied":
                shutil.copyfile(path, folder / path.name)
    return load_model(folder, dtype=torch.float32)


def test_tied_embeddings_give_the_same_logits_loss_and_gradients(tied):
    expected, stored = manifest("tied"), load_file(GOLDEN / "tied" / "tied.safetensors")
    tied.zero_grad()
    inputs = inputs_of(stored)
    assert_logits(tied(**inputs).logits, stored["logits"])
    loss = tied(**inputs, labels=stored["labels"]).loss
    assert loss.item() == pytest.approx(expected["loss"], rel=5e-6)
    loss.backward()
    gradients = {n: p.grad for n, p in tied.named_parameters() if p.grad is not None}
    norms = {name: norm_of([gradient]) for name, gradient in gradients.items()}
    # Of the layer that is never used the reference lists the gradient as null.
    listed = {name: norm for name, norm in expected["grad_l2"].items() if norm is not None}
    assert set(expected["grad_l2"]) == set(dict(tied.named_parameters()))
    assert norms == pytest.approx(listed, rel=1e-4)
    shared = "llm.model.embed_tokens.weight"
    assert_close(gradients[shared], stored[f"grad.{shared}"], of_max=1e-4)


def test_tied_embeddings_decode_greedily_to_the_same_ids(tied):
    stored = load_file(GOLDEN / "tied" / "tied.safetensors")
    new_ids = tied.generate(**inputs_of(stored), max_new_tokens=8, eos_token_id=-1)
    assert new_ids[0].tolist() == manifest("tied")["greedy_output_ids_8"]


def test_tied_embeddings_are_one_tensor_and_stored_once(tied, tmp_path):
    assert tied.llm.lm_head.weight is tied.llm.model.embed_tokens.weight
    assert sorted(tied.state_dict()) == sorted(manifest("tied")["state_dict_keys"])
    tied.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "model.safetensors")
    assert sorted(saved) == sorted(manifest("tied")["stored_keys"])
    original = load_file(GOLDEN / "ckpt-tied" / "model.safetensors")
    assert all(torch.equal(saved[name], original[name]) for name in original)


# ---- released sizes -------------------------------------------------------------------------


def released_config(variant):
    """Read the released 9B configuration; the 2B one differs in its language model."""
    config = json.loads((OFFICIAL / "config.json").read_text(encoding="utf-8"))
    if variant == "2b":
        config["hidden_size"] = 2048
        config["llm_config"] |= {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "max_window_layers": 28,
            "tie_word_embeddings": True,
        }
        config["llm_config"].pop("layer_types", None)
    return Ovis2_5Config.from_dict(config)


@pytest.mark.parametrize("variant", ["2b", "9b"])
def test_a_released_configuration_has_the_released_tensors(variant):
    expected = read(f"architecture/state_dict_{variant}.json")
    with torch.device("meta"):
        large = Ovis2_5ForConditionalGeneration(released_config(variant))
    # transformers drops the second name of a tied tensor when it saves.
    tied_names = {name for pair in expected["tied"] for name in pair[:1]}
    shapes = {name: list(t.shape) for name, t in large.state_dict().items()}
    assert tied_names <= set(shapes)
    stored = {name: shape for name, shape in shapes.items() if name not in tied_names}
    assert stored == expected["shapes"]
    sizes = {name: math.prod(shape) for name, shape in stored.items()}
    assert len(sizes) == expected["stored_tensors"]
    assert sum(sizes.values()) == expected["stored_parameters"]
    assert 2 * sum(sizes.values()) == expected["stored_bytes_bf16"]
    groups = {
        group: sum(size for name, size in sizes.items() if name.startswith(f"{group}."))
        for group in expected["parameters_by_group"]
    }
    assert groups == expected["parameters_by_group"]
    assert not {name for name, _ in large.named_buffers()} & set(stored)


def test_the_9b_tensors_are_those_of_the_official_index():
    index = json.loads((OFFICIAL / "model.safetensors.index.json").read_text(encoding="utf-8"))
    expected = read("architecture/state_dict_9b.json")
    assert sorted(index["weight_map"]) == sorted(expected["shapes"])
    assert index["metadata"]["total_size"] == expected["stored_bytes_bf16"]


def test_a_missing_tensor_is_named(tmp_path):
    weights = load_file(GOLDEN / "ckpt-tied" / "model.safetensors")
    del weights["vte.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (GOLDEN / "ckpt-tied" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"missing.*vte\.weight"):
        load_model(tmp_path)
