"""Every stage of the vision tower and of the visual vocabulary equals the reference's."""

import pytest
import torch

from ovis_model.modeling.modeling_siglip2_navit import (
    FrameIndex,
    normalize_patches,
    rope_angles,
    window_index,
)

from .conftest import assert_close, cases, needs_golden, tensors

pytestmark = needs_golden


def patches_of(case, stored):
    values = stored.get("pixel_values_u8")
    if values is None:
        tile = stored["pixel_values_u8_tile"]
        values = tile.repeat(-(-case["num_patches"] // len(tile)), 1)[: case["num_patches"]]
    return values


def rows_of(stored, name):
    """Return a stored tensor, and which rows of the whole one it holds."""
    if name in stored:
        return stored[name], slice(None)
    if f"{name}@rows" in stored:
        return stored[f"{name}@rows"], stored["row_index"]
    return stored[f"{name}@merged_rows"], stored["merged_row_index"]


def assert_equal_rows(ours, stored, name, *, elementwise=False, **limits):
    theirs, rows = rows_of(stored, name)
    if elementwise:
        assert torch.allclose(ours[rows], theirs, rtol=1e-5, atol=1e-6)
    else:
        assert_close(ours[rows], theirs, **limits)


def per_medium(function, grids):
    """Stack what a function returns for one frame of each medium, once per frame."""
    return torch.cat([function(h, w).repeat(t, 1) for t, h, w in grids.tolist()])


@pytest.mark.parametrize("case", cases("vit"))
@torch.no_grad()
def test_patches_positions_and_their_sum_are_equal(case, model):
    stored = tensors("vit", case)
    patches, grids = patches_of(case, stored), stored["grid_thws"]
    embeddings = model.visual_tokenizer.vit.vision_model.embeddings
    frames = FrameIndex.of([tuple(grid) for grid in grids.tolist()], patches.device)
    embedded = embeddings(patches, frames)
    positions = per_medium(embeddings.position_table, grids)
    assert_equal_rows(embedded, stored, "embeddings", elementwise=True)
    assert_equal_rows(positions, stored, "pos_embeds", elementwise=True)
    if "patch_embeds" in stored:
        theirs = stored["patch_embeds"]
        assert torch.allclose(embedded - positions, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", cases("vit"))
def test_rotary_angles_are_equal(case, model):
    stored = tensors("vit", case)
    config = model.visual_tokenizer.vit.config
    angles = per_medium(
        lambda h, w: rope_angles(h, w, config.head_dim, config.hidden_stride),
        stored["grid_thws"],
    )
    assert_equal_rows(angles, stored, "rope_freqs_merge_order", elementwise=True)


@pytest.mark.parametrize("case", cases("vit"))
def test_frames_and_windows_are_cut_at_the_same_places(case, model):
    stored = tensors("vit", case)
    grids = [tuple(grid) for grid in stored["grid_thws"].tolist()]
    lengths = FrameIndex.of(grids, torch.device("cpu")).lengths
    assert [0, *torch.tensor(lengths).cumsum(0).tolist()] == stored["cu_seqlens"].tolist()
    order, sizes = window_index(grids, model.visual_tokenizer.vit.config)
    assert torch.equal(order, stored["window_index"])
    ends = [0, *torch.tensor(sizes).cumsum(0).tolist()]
    assert ends == stored["cu_window_seqlens"].tolist()
    # The reference first lists empty windows as well; ours never makes them.
    assert ends == stored["cu_window_seqlens_raw"].unique_consecutive().tolist()


@pytest.mark.parametrize("case", cases("vit"))
@torch.no_grad()
def test_every_block_of_the_tower_is_equal(case, model, windows):
    windows(case["fullatt_block_indexes"])
    stored = tensors("vit", case)
    tower = model.visual_tokenizer.vit.vision_model
    blocks: list[torch.Tensor] = []
    tower(patches_of(case, stored), stored["grid_thws"], blocks)
    assert len(blocks) == model.config.vit.num_hidden_layers
    for number, block in enumerate(blocks):
        assert_equal_rows(block, stored, f"hidden_states.{number}")
    # Not part of the model's output, but its weights travel with every checkpoint.
    assert_equal_rows(tower.post_layernorm(blocks[-1]), stored, "last_hidden_state_post_ln")


@pytest.mark.parametrize("case", cases("vit"))
@torch.no_grad()
def test_features_scores_words_and_embeddings_are_equal(case, model, windows):
    windows(case["fullatt_block_indexes"])
    stored = tensors("vit", case)
    patches, grids = patches_of(case, stored), stored["grid_thws"]
    visual_tokenizer = model.visual_tokenizer
    features = visual_tokenizer.vit(patches, grids)
    assert_equal_rows(features, stored, "features")
    if "head_linear" in stored:
        assert_close(visual_tokenizer.head[0](features), stored["head_linear"])
        assert_close(visual_tokenizer.head(features), stored["head_logits"])
    words, rows = rows_of(stored, "visual_tokens")
    assert not words[:, -4:].any()  # ours leaves the four indicators out
    ours = visual_tokenizer(patches, grids)
    assert_close(ours[rows], words[:, :-4], of_max=0, atol=5e-6)
    assert_equal_rows(model.vte(ours), stored, "visual_embeds", of_max=0, atol=2e-5)


@pytest.mark.parametrize("case", cases("vit"))
@torch.no_grad()
def test_bytes_and_the_reference_floats_give_the_same_features(case, model):
    stored = tensors("vit", case)
    patches, grids = patches_of(case, stored), stored["grid_thws"]
    scale = torch.tensor(0.00392156862745098, dtype=torch.float64)
    floats = ((patches.double() * scale).float() - 0.5) / 0.5
    assert torch.equal(normalize_patches(patches), floats)
    tower = model.visual_tokenizer.vit
    assert torch.equal(tower(patches, grids), tower(floats, grids))
