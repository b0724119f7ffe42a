"""A small excerpt of the reference's numbers travels with the repository: anyone can check.

The weights are random; nothing of a released model is in them.  `cut_excerpt.py` made it.
"""

import gzip
import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load, load_file

from ovis_model.data.truncation import truncate
from ovis_model.modeling.configuration_ovis2_5 import Ovis2_5Config
from ovis_model.modeling.modeling_ovis2_5 import Ovis2_5ForConditionalGeneration
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.frame_sampling import sample_frame_indices
from ovis_model.processing.image_processing_ovis2_5 import Ovis2_5ImageProcessor, smart_resize
from ovis_model.processing.processing_ovis2_5 import EncodedSample, pad_batch
from ovis_model.processing.visual_tokens import expand_placeholders
from ovis_model.tokens import TokenIds

from .conftest import GOLDEN, assert_logits, needs_golden
from .cut_excerpt import EVERY_NTH_LOGIT, cut

EXCERPT = Path(__file__).parent / "excerpt"
NUMBERS = json.loads((EXCERPT / "numbers.json").read_text(encoding="utf-8"))


def named(cases):
    return [pytest.param(case, id=case["name"]) for case in cases]


# ---- the excerpt itself ---------------------------------------------------------------------


def contents(folder):
    """Every file's bytes; of a compressed one what is inside, which no version of zlib changes."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): (
            gzip.decompress(content) if path.suffix == ".gz" else content
        )
        for path, content in files.items()
    }


@needs_golden
def test_the_excerpt_is_what_the_script_cuts(tmp_path):
    cut(GOLDEN, tmp_path / "excerpt")
    assert contents(tmp_path / "excerpt") == contents(EXCERPT)


def test_the_excerpt_stays_small():
    sizes = [path.stat().st_size for path in EXCERPT.rglob("*") if path.is_file()]
    assert sum(sizes) < 2_000_000


# ---- pictures, merge, logits, loss, gradients -----------------------------------------------


@pytest.fixture(scope="module")
def tied():
    return Ovis2_5ForConditionalGeneration.from_pretrained(
        str(EXCERPT / "tied"), dtype=torch.float32, local_files_only=True
    ).eval()


@pytest.fixture(scope="module")
def stored():
    return load_file(EXCERPT / "tied" / "case.safetensors")


def inputs_of(stored):
    names = ("input_ids", "pixel_values", "grid_thws")
    return {name: stored[name] for name in names}


def test_logits_loss_and_gradients_equal_the_reference(tied, stored):
    """From bytes through vision tower, visual words and merge to the language model's head."""
    inputs = inputs_of(stored)
    assert_logits(tied(**inputs).logits[:, ::EVERY_NTH_LOGIT], stored["logits"])
    loss = tied(**inputs, labels=stored["labels"]).loss
    assert loss.item() == pytest.approx(NUMBERS["tied"]["loss"], rel=5e-6)
    loss.backward()
    expected = NUMBERS["tied"]["grad_l2"]
    unused = {name for name, norm in expected.items() if norm is None}
    gradients = {n: p.grad for n, p in tied.named_parameters() if p.grad is not None}
    assert set(gradients) == set(expected) - unused
    for name, gradient in gradients.items():
        assert gradient.double().norm().item() == pytest.approx(expected[name], rel=1e-4), name


def test_greedy_ids_equal_the_reference(tied, stored):
    ids = stored["input_ids"]
    new_ids = tied.generate(
        **inputs_of(stored),
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        eos_token_id=-1,
        pad_token_id=0,
    )
    assert new_ids[0].tolist() == NUMBERS["tied"]["greedy_output_ids_8"]


@pytest.mark.parametrize("case", named(NUMBERS["media"]))
def test_pixels_equal_the_reference(case):
    frames = [Image.open(EXCERPT / "media" / name) for name in case["files"]]
    patches, grid = Ovis2_5ImageProcessor().preprocess(
        frames, min_pixels=case["min_pixels"], max_pixels=case["max_pixels"]
    )
    assert [list(grid)] == case["grid_thw"]
    values = normalize_patches(patches).numpy().tobytes()
    assert hashlib.sha256(values).hexdigest() == case["pixel_values_sha256"]


def test_sizes_equal_the_reference():
    for height, width, factor, low, high, rows, columns, tag in NUMBERS["sizes"]:
        arguments = {"factor": factor, "min_pixels": low, "max_pixels": high}
        if "raises" in tag:
            with pytest.raises(ValueError, match="has no pixels"):
                smart_resize(height, width, **arguments)
        elif "ZERO_SIDE" in tag:  # DIVERGES(resize-zero-side)
            assert min(smart_resize(height, width, **arguments)) == factor
        else:
            assert smart_resize(height, width, **arguments) == (rows, columns), tag


def test_frames_equal_the_reference():
    for num_frames, low, high, expected in NUMBERS["frames"]:
        assert sample_frame_indices(num_frames, min_frames=low, max_frames=high) == expected


# ---- ids and labels -------------------------------------------------------------------------


def test_placeholders_expand_as_in_the_reference():
    for case in NUMBERS["placeholders"]:
        grids = [tuple(grid) for grid in case["grid_thws"]]
        ids, labels = expand_placeholders(case["raw"], case["raw"], grids)
        assert [int(token) for token in ids] == case["input_ids"]
        assert [int(label) for label in labels] == case["labels"]


def encoded(sample):
    """Build a sample of the fixture around patches that hold nothing."""
    grids = None if sample["grid_thws"] is None else torch.tensor(sample["grid_thws"])
    num_patches = 0 if grids is None else int(grids.prod(dim=1).sum())
    return EncodedSample(
        input_ids=torch.tensor(sample["input_ids"]),
        labels=torch.tensor(sample["labels"]),
        pixel_values=None if grids is None else torch.zeros(num_patches, 768, dtype=torch.uint8),
        grid_thws=grids,
    )


def test_cuts_fall_where_the_reference_makes_them_or_later():
    """DIVERGES(truncation-complete-images)."""
    later = 0
    for values in NUMBERS["samples"]:
        sample = encoded(values)
        for max_length, length, num_media, num_patches in values["cuts"]:
            shorter = truncate(sample, max_length)
            media = (0, 0)
            if shorter.grid_thws is not None:
                media = (len(shorter.grid_thws), len(shorter.pixel_values))
            if (len(shorter.input_ids), *media) != (length, num_media, num_patches):
                later += 1
                assert length < len(shorter.input_ids) <= max_length
                assert media > (num_media, num_patches)
    assert later == 9  # inside the second and third of three images that stand side by side


def test_a_batch_of_the_reference_samples_is_padded_on_the_right():
    samples = [encoded(values) for values in NUMBERS["samples"]]
    batch = pad_batch(samples, pad_id=0, side="right")
    for row, values in enumerate(NUMBERS["samples"]):
        length = len(values["input_ids"])
        assert batch["input_ids"][row, :length].tolist() == values["input_ids"]
        assert batch["labels"][row, :length].tolist() == values["labels"]
        assert not batch["attention_mask"][row, length:].any()
        assert (batch["labels"][row, length:] == -100).all()


# ---- generation -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer():
    """The language model of the untied checkpoint; its vision tower is not in the excerpt."""
    folder, numbers = EXCERPT / "generation", NUMBERS["generation"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = Ovis2_5ForConditionalGeneration(Ovis2_5Config.from_dict(config)).eval()
    weights = load(gzip.decompress((folder / "llm.safetensors.gz").read_bytes()))
    rows, values = weights.pop("embed_rows"), weights.pop("embed_values")
    table = torch.full_like(model.get_input_embeddings().weight, torch.nan)  # never looked up
    table[rows] = values
    weights["llm.model.embed_tokens.weight"] = table
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith("llm.")]
    special = numbers["special_ids"]
    model.token_ids = TokenIds(
        im_start=-1,
        im_end=special["<|im_end|>"],
        pad=special["<|endoftext|>(pad)"],
        think_open=special["<think>"],
        think_close=special["</think>"],
        closing_sentence=tuple(numbers["closing_sentence"]),
    )
    return model


@pytest.mark.parametrize("case", named(NUMBERS["generation"]["cases"]))
def test_thinking_and_its_budget_equal_the_reference(case, writer):
    arguments = dict(case["generate_kwargs"])
    thinking = arguments.pop("enable_thinking", False)
    bounded = arguments.pop("enable_thinking_budget", False)
    budget = arguments.pop("thinking_budget", None)
    prompt = torch.tensor([NUMBERS["generation"]["prompts"][case["prompt"]]])
    new_ids = writer.generate(
        prompt, **arguments, thinking_budget=budget if thinking and bounded else None
    )
    assert new_ids[0].tolist() == case["output_ids"]
