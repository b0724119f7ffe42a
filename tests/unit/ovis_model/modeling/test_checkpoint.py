import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ovis_model.errors import CheckpointError
from ovis_model.modeling.checkpoint import load_model, save_checkpoint
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.tokenizer_files import load_tokenizer
from ovis_model.modeling.weight_files import read_header
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from tests.support.tiny_model import build_tokenizer, tiny_config
from tests.unit.ovis_model.modeling.conftest import REMOTE_CODE

IMAGE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


@pytest.fixture(scope="module")
def inputs(processor):
    """A prompt with an image, as `forward` takes it."""
    picture = Image.effect_noise((64, 96), 80).convert("RGB")
    prompt = processor.encode_prompt(IMAGE, images=[picture], enable_thinking=True)
    return prompt.input_ids[None], None, prompt.pixel_values, prompt.grid_thws


def logits(model, inputs):
    with torch.no_grad():
        return model(*inputs).logits


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_saved_checkpoint_loads_again_with_the_same_logits(model, processor, inputs, tmp_path):
    save_checkpoint(model, processor, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert torch.equal(logits(model, inputs), logits(again, inputs))
    assert again.token_ids == model.token_ids
    assert not again.training


def test_weights_without_a_tokenizer_load_and_say_so_when_they_need_one(
    checkpoint, inputs, tmp_path
):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(checkpoint / name, bare / name)
    model = load_model(bare)
    assert torch.equal(logits(model, inputs), logits(load_model(checkpoint), inputs))
    with pytest.raises(ValueError, match="does not know its tokenizer's ids; load it with"):
        model.generate(inputs[0], max_new_tokens=4)


def test_a_model_without_a_base_says_how_generation_ends(model, processor, tmp_path):
    save_checkpoint(model, processor, tmp_path / "saved")
    written = json.loads((tmp_path / "saved/generation_config.json").read_text(encoding="utf-8"))
    assert written["eos_token_id"] == processor.token_ids.im_end


def test_an_official_folder_loads_and_its_code_stays_unread(official, model, inputs):
    loaded = load_model(official)
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))


def test_what_is_saved_has_the_files_of_its_base(official, tmp_path):
    model, processor = load_model(official), Ovis2_5Processor.from_pretrained(official)
    saved = tmp_path / "saved"
    save_checkpoint(model, processor, saved, base=official, max_shard_size="100KB")
    own = {"config.json", "training_args.bin", "model.safetensors.index.json"}
    carried = {n for n in names(official) - own if not n.endswith(".safetensors")}
    assert names(saved) >= {*carried, *REMOTE_CODE, "README.md", "LICENSE", "ovis_processor.json"}
    for name in carried:
        assert (saved / name).read_bytes() == (official / name).read_bytes(), name
    config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_ovis2_5.Ovis2_5"
    assert "training_args.bin" not in names(saved)


def test_what_a_training_left_in_the_base_stays_there(checkpoint, model, processor, tmp_path):
    base = shutil.copytree(checkpoint, tmp_path / "base")
    for name in ("manifest.json", "lineage.json", "train_config.json", "model-00009.safetensors"):
        (base / name).write_text("{}", encoding="utf-8")
    save_checkpoint(model, processor, tmp_path / "saved", base=base)
    assert names(tmp_path / "saved") == names(checkpoint)


def test_shards_are_as_small_as_asked_and_their_index_is_complete(model, processor, tmp_path):
    save_checkpoint(model, processor, tmp_path / "saved", max_shard_size="50KB")
    shards = sorted((tmp_path / "saved").glob("model-*-of-*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    stored = {shard.name: load_file(shard) for shard in shards}
    for tensors in stored.values():
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 50_000
    index = json.loads((tmp_path / "saved/model.safetensors.index.json").read_text("utf-8"))
    place = {name: shard for shard, tensors in stored.items() for name in tensors}
    assert index["weight_map"] == place
    assert place.keys() == model.state_dict().keys()
    total = sum(t.nbytes for tensors in stored.values() for t in tensors.values())
    assert index["metadata"] == {"total_size": total}
    load_model(tmp_path / "saved")


def test_equal_models_are_equal_files(model, processor, tmp_path):
    for name in ("one", "two"):
        save_checkpoint(model, processor, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_the_saved_config_reads_in_both_spellings(model, processor, tmp_path):
    save_checkpoint(model, processor, tmp_path / "saved")
    written = json.loads((tmp_path / "saved/config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == ["Ovis2_5"]
    assert written["llm_config"]["rope_theta"] == 1_000_000
    assert written["torch_dtype"] == written["dtype"] == "float32"


def test_gathered_weights_are_written_in_place_of_the_models_own(model, processor, tmp_path):
    gathered = {name: torch.full_like(t, 0.5) for name, t in model.state_dict().items()}
    gathered = {name: tensor.bfloat16() for name, tensor in gathered.items()}
    save_checkpoint(model, processor, tmp_path / "saved", state_dict=gathered)
    loaded = load_model(tmp_path / "saved")
    assert loaded.dtype is loaded.config.dtype is torch.bfloat16
    assert all((parameter == 0.5).all() for parameter in loaded.parameters())


def test_a_checkpoint_takes_the_place_of_an_older_one(checkpoint, model, processor, tmp_path):
    target = shutil.copytree(checkpoint, tmp_path / "saved")
    (target / "left_behind.txt").write_text("old", encoding="utf-8")
    save_checkpoint(model, processor, target, base=target)
    assert names(target) == names(checkpoint) | {"left_behind.txt"}
    assert names(tmp_path) == {"saved"}


def test_a_folder_of_something_else_is_not_overwritten(model, processor, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no checkpoint, .* give a new folder"):
        save_checkpoint(model, processor, tmp_path)
    assert names(tmp_path) == {"thesis.tex"}


class Unwritable:
    def save_pretrained(self, path):
        raise OSError("no space left on device")


def test_a_save_that_fails_leaves_the_older_checkpoint(checkpoint, model, tmp_path):
    target = shutil.copytree(checkpoint, tmp_path / "saved")
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(model, Unwritable(), target)
    assert names(tmp_path) == {"saved"}
    load_model(target)


def test_weights_that_are_no_numbers_are_not_saved(model, processor, tmp_path):
    with torch.no_grad():
        model.vte.weight[3, 1] = float("inf")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*: NaN or inf.* vte\.weight\."):
        save_checkpoint(model, processor, tmp_path / "saved")
    assert not names(tmp_path)


# ---- tied embeddings ------------------------------------------------------------------------


@pytest.fixture
def tied(tmp_path):
    """Weights of a model like the 2B: embeddings and head are one, and are stored once."""
    tokenizer = build_tokenizer()
    config = tiny_config(tokenizer)
    config.llm.tie_word_embeddings = config.tie_word_embeddings = True
    model = Ovis2_5ForConditionalGeneration(config)
    save_checkpoint(model, tokenizer, tmp_path / "tied")
    return tmp_path / "tied"


def test_tied_embeddings_are_stored_once(tied):
    assert "llm.lm_head.weight" not in load_file(tied / "model.safetensors")
    loaded = load_model(tied)
    assert loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight


def test_gathered_copies_of_tied_embeddings_are_stored_once(tied, tmp_path):
    model, tokenizer = load_model(tied), load_tokenizer(tied)
    gathered = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "llm.lm_head.weight" in gathered
    save_checkpoint(model, tokenizer, tmp_path / "again", state_dict=gathered)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tied / name).read_bytes()
    gathered["llm.lm_head.weight"][0, 0] += 1
    with pytest.raises(CheckpointError, match=r"no checkpoint .*: llm\.lm_head\.weight differs"):
        save_checkpoint(model, tokenizer, tmp_path / "third", state_dict=gathered)


@pytest.mark.parametrize("difference", [0.0, 1.0])
def test_a_stored_head_must_equal_the_embeddings_it_is_tied_to(tied, difference):
    weights = load_file(tied / "model.safetensors")
    weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"] + difference
    save_file(weights, tied / "model.safetensors", metadata={"format": "pt"})
    if not difference:
        loaded = load_model(tied)
        assert loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight
        return
    with pytest.raises(CheckpointError, match=r"lm_head\.weight \(model\.safetensors\) differs"):
        load_model(tied)


# ---- precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_precision_asked_for_is_the_precision_of_all_weights(official, dtype):
    loaded = load_model(official, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}


def test_the_stored_precision_is_kept_unless_another_is_asked_for(model, processor, tmp_path):
    save_checkpoint(model.bfloat16(), processor, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "saved"), dtype="auto")
    assert again.dtype is torch.bfloat16


@pytest.mark.parametrize("cast", ["load", "module", "half", "round trip"])
def test_rotary_frequencies_stay_exact_in_half_precision(
    official, model, processor, tmp_path, cast
):
    exact = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert exact
    if cast == "load":
        changed = load_model(official, dtype=torch.bfloat16)
    elif cast == "half":
        changed = model.half()
    else:
        changed = model.to(torch.bfloat16)
    if cast == "round trip":
        save_checkpoint(changed, processor, tmp_path / "saved")
        changed = load_model(tmp_path / "saved").float()
    for name, buffer in changed.named_buffers():
        assert buffer.dtype is torch.float32
        assert torch.equal(buffer, exact[name]), name


# ---- vocabulary -----------------------------------------------------------------------------


def test_added_tokens_are_saved_and_load_again(official, tmp_path):
    model, processor = load_model(official), Ovis2_5Processor.from_pretrained(official)
    tokenizer = processor.tokenizer
    rows = model.config.llm.vocab_size
    added = [f"<|digit_{n}|>" for n in range(rows - len(tokenizer) + 3)]
    tokenizer.add_special_tokens({"additional_special_tokens": added}, False)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = torch.tensor([tokenizer.encode("".join(added[-3:]), add_special_tokens=False)])
    assert ids.tolist() == [[rows, rows + 1, rows + 2]]
    loss = model(ids, labels=ids).loss

    save_checkpoint(model, processor, tmp_path / "saved", base=official)
    loaded = load_model(tmp_path / "saved")
    assert loaded.config.vocab_size == loaded.config.llm.vocab_size == rows + 3
    assert torch.equal(loaded(ids, labels=ids).loss, loss)
    again = Ovis2_5Processor.from_pretrained(tmp_path / "saved")
    assert again.token_ids == processor.token_ids
    assert again.tokenizer.encode(added[-1], add_special_tokens=False) == [rows + 2]
    picture = Image.effect_noise((64, 96), 80).convert("RGB")
    prompt = again.encode_prompt(IMAGE, images=[picture], enable_thinking=True)
    assert (prompt.input_ids < 0).sum() == (prompt.input_ids <= -300).sum() > 2
    loaded(prompt.input_ids[None], None, prompt.pixel_values, prompt.grid_thws)


def test_more_tokens_than_rows_are_refused(official, tmp_path):
    model, processor = load_model(official), Ovis2_5Processor.from_pretrained(official)
    spare = model.config.llm.vocab_size - len(processor.tokenizer)
    processor.tokenizer.add_tokens([f"<new{n}>" for n in range(spare + 1)])
    save_checkpoint(model, processor, tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"resize_token_embeddings\(\d+\)"):
        load_model(tmp_path / "saved")


def test_a_model_that_was_loaded_by_transformers_finds_its_tokens(official, model):
    found = AutoModelForCausalLM.from_pretrained(str(official))
    prompt = torch.tensor([[1, 2, 3]])
    expected = model.generate(prompt, max_new_tokens=3)
    assert torch.equal(found.generate(prompt, max_new_tokens=3), expected)
    assert found.token_ids == model.token_ids


def test_transformers_finds_the_tokenizer_without_asking_to_run_code(official, processor):
    found = AutoTokenizer.from_pretrained(str(official), trust_remote_code=False)
    assert found.get_vocab() == processor.tokenizer.get_vocab()


# ---- damage ---------------------------------------------------------------------------------


def damage(checkpoint, folder, change):
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
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
            r"unexpected keys: extra\.weight \(model\.safetensors\)",
            id="extra",
        ),
        pytest.param(
            lambda w: w.update({"vte.weight": torch.zeros(2, 2)}),
            r"keys: vte\.weight \(model\.safetensors\) is \[2, 2\] instead of \[64, 32\]",
            id="misshapen",
        ),
        pytest.param(
            lambda w: w["vte.weight"][0].fill_(float("nan")),
            r"NaN or infinite values in vte\.weight \(model\.safetensors\)\. Restore",
            id="not a number",
        ),
        pytest.param(
            lambda w: w["vte.weight"][0].fill_(float("-inf")),
            r"NaN or infinite values in vte\.weight",
            id="infinite",
        ),
    ],
)
def test_a_damaged_tensor_is_named(checkpoint, tmp_path, change, message):
    folder = damage(checkpoint, tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
    with pytest.raises(CheckpointError, match=message):
        AutoModelForCausalLM.from_pretrained(str(folder))


def test_other_sizes_are_made_anew_for_who_asks_for_it(checkpoint, tmp_path):
    folder = damage(checkpoint, tmp_path, lambda w: w.update({"vte.weight": torch.zeros(2, 2)}))
    model, info = AutoModelForCausalLM.from_pretrained(
        str(folder), ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.vte.weight.shape == (64, 32)
    assert [name for name, *_ in info["mismatched_keys"]] == ["vte.weight"]


def test_offsets_that_overlap_are_damage(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "saved")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    stored = sorted(read_header(file).values(), key=lambda tensor: tensor.start)
    first, second = stored[:2]
    begin, end = (position - first.start for position in (second.start, second.stop))
    place = f'"data_offsets":[{begin},{end}]'.encode()
    assert content.count(place) == 1
    moved = place.replace(f"[{begin}".encode(), f"[{begin - 4}".encode()).ljust(len(place))
    file.write_bytes(content.replace(place, moved))
    with pytest.raises(CheckpointError, match=rf"changed since: {second.name} \(model"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load_model(folder, verify=False)


def test_a_value_that_half_precision_cannot_hold_is_named(checkpoint, tmp_path):
    folder = damage(checkpoint, tmp_path, lambda w: w["vte.weight"][0].fill_(1e30))
    load_model(folder)
    with pytest.raises(CheckpointError, match=r"infinite values in vte\.weight"):
        load_model(folder, dtype=torch.float16)


def test_a_flipped_bit_is_named_with_its_tensor_and_file(model, processor, tmp_path):
    save_checkpoint(model, processor, tmp_path / "saved", max_shard_size="50KB")
    index = json.loads((tmp_path / "saved/model.safetensors.index.json").read_text("utf-8"))
    shard = tmp_path / "saved" / index["weight_map"]["vte.weight"]
    content = bytearray(shard.read_bytes())
    values = load_file(shard)["vte.weight"].numpy().tobytes()
    content[content.find(values) + len(values) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"bits .*: vte\.weight \({shard.name}\)\. Restore"):
        load_model(tmp_path / "saved")
    load_model(tmp_path / "saved", verify=False)


def test_folders_that_are_no_checkpoints_say_what_is_missing(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(tmp_path)
    config = (checkpoint / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(CheckpointError, match=r"only safetensors .* Fetch the weights"):
        load_model(tmp_path)
