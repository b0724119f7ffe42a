"""The page of a training tells what the optimizer did, and would tell if it did otherwise."""

import html
import re

import pytest
import torch
from safetensors.torch import load_file

from ovis_model.processing.conversation import format_conversation
from ovis_model.training.destination import Destination
from ovis_model.training.xray import (
    ModuleRow,
    exhibits,
    largest_changes,
    read_rows,
    read_tables,
    write_page,
    write_tables,
    write_xray,
)
from tests.support.running_trainer import prepared_trainer
from tests.support.training_world import build_training_world, mixed_samples


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("xray"), samples=mixed_samples())


def rows_of(world, tamper=lambda weights: None, **values):
    with prepared_trainer(world.config(max_steps=1, **values), world.data) as trainer:
        trainer.train()
        weights = trainer.gathered_weights()
        tamper(weights)
        return read_rows(trainer, weights, world.base)


@pytest.mark.parametrize("stage", [None, 2, 3])
def test_rates_decays_and_changes_are_those_of_the_engine(world, stage):
    rows = rows_of(
        world,
        train_modules="llm:1e-3|visual_tokenizer.head:2e-3",
        weight_decay=0.1,
        deepspeed=None if stage is None else world.deepspeed(stage),
    )
    told = {(row.module, row.learning_rate, row.weight_decay): row.verdict for row in rows}
    assert told == {
        ("llm", 1e-3, 0.1): "16 of 16 tensors moved",
        ("llm", 1e-3, 0.0): "9 of 9 tensors moved",
        ("visual_tokenizer.vit", None, None): "frozen",
        ("visual_tokenizer.head", 2e-3, 0.1): "1 of 1 tensors moved",
        ("visual_tokenizer.head", 2e-3, 0.0): "2 of 2 tensors moved",
        ("vte", None, None): "frozen",
    }
    # Adam's first step is as long as the rate, and the decay pulls a little.
    assert rows[0].largest_change == pytest.approx(1e-3, rel=0.2)


def test_a_frozen_weight_that_moves_and_a_trained_one_that_does_not_are_told(world):
    base = load_file(world.base / "model.safetensors")

    def tamper(weights):
        weights["vte.weight"] = weights["vte.weight"] + 1
        for name in weights:
            if name.startswith("visual_tokenizer.head."):
                weights[name] = base[name]

    rows = rows_of(world, tamper, train_modules="visual_tokenizer.head")
    told = {row.module: row.verdict for row in rows}
    assert told["vte"] == "moved though frozen"
    assert told["visual_tokenizer.head"] == "did not move"


def test_a_rate_of_zero_is_no_fault(world):
    rows = rows_of(world, train_modules="vte|llm:0")
    assert {row.verdict for row in rows if row.module == "llm"} == {"rate 0"}


def test_adapters_have_rows_of_their_own_beside_weights_that_stay(world):
    told = {row.module: row for row in rows_of(world, lora_r=2, lora_modules="llm")}
    assert told["llm"].verdict == "frozen"
    assert told["llm adapters"].moved > 0
    assert told["llm adapters"].largest_change > 0


def test_loading_in_16_bits_is_no_change(world):
    base = load_file(world.base / "model.safetensors")
    half = {name: tensor.to(torch.bfloat16) for name, tensor in base.items()}
    assert set(largest_changes(half, world.base).values()) == {0.0}


def test_the_masks_are_the_labels_that_were_trained_on(world):
    with prepared_trainer(world.config(max_steps=1), world.data) as trainer:
        dataset = trainer.train_dataset
        shown = exhibits(dataset)
        assert [one["id"] for one in shown] == ["image_0", "several_1", "video_0", "text_0"]
        for one, sample in zip(shown, dataset.samples, strict=True):
            counts = dict.fromkeys(("supervised", "read_only", "visual", "cut"), 0)
            for piece in one["mask"]:
                counts[piece.kind] += piece.num_tokens
            assert counts["supervised"] == one["num_supervised"] > 0
            assert sum(counts.values()) == one["num_tokens"]
            _, labels = format_conversation(sample.conversations, dataset.processor.tokenizer)
            assert counts["supervised"] == sum(label >= 0 for label in labels)


def test_a_later_stage_shows_the_tables_of_the_earlier_ones(world, tmp_path):
    row = ModuleRow("llm", 1e-3, 0.0, 5, 2, 1, 0.5)
    write_tables(tmp_path / "before.json", [("stage 1 of 2", [row])])
    assert list(read_tables(tmp_path / "before.json")) == [("stage 1 of 2", [row])]
    where = Destination(
        *(tmp_path / name for name in ("model", "resume", "log", "csv")),
        xray=tmp_path / "page.html",
        xray_before=tmp_path / "before.json",
        title="stage 2 of 2",
    )
    with prepared_trainer(world.config(max_steps=1), world.data) as trainer:
        trainer.train()
        write_xray(trainer, trainer.gathered_weights(), world.base, where)
    page = where.xray.read_text(encoding="utf-8")
    assert page.index("stage 1 of 2") < page.index("1 of 2 tensors moved") < page.index("stage 2")


def test_what_comes_from_data_is_text(tmp_path):
    hostile = "<script>x</script>"
    shown = {"id": hostile, "source": hostile, "num_tokens": 1, "num_supervised": 1, "mask": []}
    write_page(tmp_path / "page.html", [(hostile, [])], [shown], num_samples=1)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert re.findall(re.escape(html.escape(hostile)), page) == [html.escape(hostile)] * 3
