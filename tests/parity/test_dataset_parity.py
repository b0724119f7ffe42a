"""Whole samples: encoded, cut at every length and put into batches as the reference does it."""

import hashlib
import json
from functools import lru_cache

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.config import FrameSampling, PixelLimits
from ovis_model.data.collator import DataCollatorForMultimodalDataset
from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import parse_sample
from ovis_model.data.truncation import truncate
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.tokens import IGNORE_ID

from .conftest import GOLDEN, needs_golden, read

pytestmark = needs_golden

DATASET = read("dataset/dataset.json")
COLLATOR = read("dataset/collator.json")


@pytest.fixture(scope="module")
def encoded(processor):
    """Encode every sample of the fixture under one of its configurations."""
    return lru_cache(lambda config: dataset_under(processor, config))


def dataset_under(processor, config):
    settings = dict(DATASET["configs"][config])
    sampling = FrameSampling(**{name: settings.pop(name) for name in ("min_frames", "max_frames")})
    processor = processor.with_settings(
        pixel_limits=PixelLimits(**settings), frame_sampling=sampling
    )
    samples = json.loads((GOLDEN / "dataset" / DATASET["samples_file"]).read_text("utf-8"))
    for sample in samples:
        if frames := sample.pop("video_frames", None):
            # Extraction thins a video; a dataset takes the frames it is given.
            indices = processor.sample_frames(len(frames))
            sample["video"] = [frames[index] for index in indices]
    return ConversationDataset(
        [parse_sample(sample) for sample in samples],
        media_root=GOLDEN / "dataset" / DATASET["image_dir"],
        processor=processor,
        cache=True,
    )


def digest_of(pixel_values):
    if pixel_values is None:
        return None
    return hashlib.sha256(normalize_patches(pixel_values).numpy().tobytes()).hexdigest()


def rows_or_none(tensor):
    return None if tensor is None else tensor.tolist()


# ---- samples --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(item, id=f"config{item['config']}-sample{item['sample']}")
        for item in DATASET.get("items", [])
    ],
)
def test_samples_are_encoded_equally(item, encoded):
    sample = encoded(item["config"])[item["sample"]].encoded
    assert sample.input_ids.tolist() == item["input_ids"]
    assert sample.labels.tolist() == item["labels"]
    assert rows_or_none(sample.grid_thws) == item["grid_thws"]
    assert digest_of(sample.pixel_values) == item["pixel_values_sha256"]
    num_patches = 0 if sample.pixel_values is None else len(sample.pixel_values)
    assert num_patches == (item["num_patches"] or 0)


# ---- truncation -----------------------------------------------------------------------------

TABLES = (
    [pytest.param(table, id=f"sample{table['sample']}") for table in DATASET["truncation"]]
    if (DATASET)
    else []
)


def rows_of(table):
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def cuts_adjacent_media(sample, row):
    """Tell whether the reference drops whole media: the cut falls into one right after another."""
    kept = sample.input_ids[: row["max_length"]].tolist()
    whole = sum(token in (-302, -304) for token in kept)
    return whole > row["num_images_kept"]


@pytest.mark.parametrize("table", TABLES)
def test_samples_are_cut_equally_at_every_length(table, encoded):
    sample = encoded(DATASET["truncation_config"])[table["sample"]].encoded
    rows = rows_of(table)
    assert len(sample.input_ids) == table["untruncated_length"] == len(rows) - 1
    for row in rows:
        assert row["reference_error"] is None
        if cuts_adjacent_media(sample, row):
            continue
        cut = truncate(sample, row["max_length"])
        assert_is_beginning(cut, sample, row["out_length"], row["num_images_kept"])
        num_patches = 0 if cut.pixel_values is None else len(cut.pixel_values)
        assert num_patches == row["num_patches_kept"]
        nothing_learned = not (cut.labels[1:] != IGNORE_ID).any()
        assert nothing_learned == row["no_trainable_label_after_shift"]


def assert_is_beginning(cut, sample, length, num_media):
    assert torch.equal(cut.input_ids, sample.input_ids[:length])
    assert torch.equal(cut.labels, sample.labels[:length])
    if num_media == 0:
        assert cut.pixel_values is None
        assert cut.grid_thws is None
        return
    assert torch.equal(cut.grid_thws, sample.grid_thws[:num_media])
    num_patches = int(cut.grid_thws.prod(dim=1).sum())
    assert torch.equal(cut.pixel_values, sample.pixel_values[:num_patches])


def test_a_cut_keeps_whole_images_that_the_reference_drops(encoded):
    """DIVERGES(truncation-complete-images)."""
    better = {}
    for table in DATASET["truncation"]:
        sample = encoded(DATASET["truncation_config"])[table["sample"]].encoded
        for row in rows_of(table):
            if not cuts_adjacent_media(sample, row):
                continue
            cut = truncate(sample, row["max_length"])
            assert row["out_length"] < len(cut.input_ids) <= row["max_length"]
            assert int(cut.input_ids[-1]) == -302  # right after the last whole image
            assert len(cut.grid_thws) > row["num_images_kept"]
            assert_is_beginning(cut, sample, len(cut.input_ids), len(cut.grid_thws))
            better.setdefault(table["sample"], []).append(row["max_length"])
    # Three images stand side by side: cut inside the second, and inside the third.
    assert better == {2: [10, 11, 12, 13, 15, 16, 17, 18, 19]}


# ---- batches --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"batch{c['batch']}") for c in COLLATOR.get("batches", [])]
)
def test_batches_are_put_together_equally(case, encoded):
    """DIVERGES(extra-pad-column): without padding the reference still adds a column of it."""
    dataset = encoded(COLLATOR["config"])
    collator = DataCollatorForMultimodalDataset(pad_id=COLLATOR["pad_token_id"])
    examples = [dataset[index] for index in case["samples"]]
    batch = collator(examples)
    stored = load_file(GOLDEN / "dataset" / "collator.safetensors")
    theirs = {
        name: stored.get(f"batch{case['batch']}.{name}")
        for name in ("input_ids", "labels", "attention_mask", "grid_thws")
    }
    assert list(theirs["input_ids"].shape) == case["shape"]
    longest = max(len(example.encoded.input_ids) for example in examples)
    extra = case["shape"][1] - longest
    assert extra == int(case["reference_appended_extra_pad_column"])
    for name in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(batch[name], theirs[name][:, :longest])
        assert batch[name].dtype == theirs[name].dtype
    assert not theirs["attention_mask"][:, longest:].any()
    assert (theirs["labels"][:, longest:] == IGNORE_ID).all()
    assert rows_or_none(batch.get("grid_thws")) == rows_or_none(theirs["grid_thws"])
    pixel_values = batch.get("pixel_values")
    shape = None if pixel_values is None else list(pixel_values.shape)
    assert shape == case["pixel_values_shape"]
    assert digest_of(pixel_values) == case["pixel_values_sha256"]
