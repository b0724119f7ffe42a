"""Whole trainings side by side: the reference computes what ours does, and lies are found out."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks.__main__ import main, wrong_of
from benchmarks.machine import Machine
from benchmarks.suite import Agreement
from benchmarks.training import follow_up
from benchmarks.training.expected import Expected, expect, measure
from benchmarks.training.race import Result, judge, run_race
from benchmarks.training.reference_data import ReferenceCollator, ReferenceDataset
from benchmarks.training.reference_model import load_reference
from benchmarks.training.trainers import Epoch
from benchmarks.training.variants import PADDED, Race, Variant, races
from benchmarks.training.world import build_world
from ovis_model.data.collator import DataCollatorForMultimodalDataset
from ovis_model.data.dataset import ConversationDataset
from ovis_model.modeling.checkpoint import load_model
from ovis_model.modeling.modeling_siglip2_navit import normalize_patches
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor

MACHINE = Machine("", "", 2, 0.0, "", "", "", "", 1, 100.0, 400.0, 40.0)
ALL = {one.name: one for race in races() for one in race.variants}


@pytest.fixture(scope="module")
def world():
    return build_world(small=True)


@pytest.fixture(scope="module")
def batches(world):
    """The first two samples, as the reference makes a batch of them and as ours does."""
    reference = ReferenceDataset(world)
    processor = Ovis2_5Processor.from_pretrained(world.base)
    dataset = ConversationDataset(
        measure(world).samples, media_root=world.root, processor=processor
    )
    collate = DataCollatorForMultimodalDataset(pad_id=processor.token_ids.pad)
    theirs = ReferenceCollator(reference.tokenizer)([reference[0], reference[1]])
    return theirs, collate([dataset[0], dataset[1]])


def test_both_make_the_same_batch(batches):
    theirs, ours = batches
    for name in ("input_ids", "labels", "attention_mask", "grid_thws"):
        assert torch.equal(theirs[name], ours[name])
    assert torch.equal(theirs["pixel_values"], normalize_patches(ours["pixel_values"]))


def test_both_find_the_same_loss_and_gradients(world, batches):
    theirs, ours = batches
    arguments = {name: one for name, one in ours.items() if isinstance(one, torch.Tensor)}
    found = []
    for model, batch in (
        (load_reference(world.base), theirs),
        (load_model(world.base, dtype=torch.float32), {**arguments, "use_cache": False}),
    ):
        loss = model.train()(**batch).loss
        loss.backward()
        grads = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found.append((loss, grads))
    (loss, grads), (our_loss, our_grads) = found
    assert our_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert grads.keys() == our_grads.keys()
    for name, grad in grads.items():
        assert torch.linalg.vector_norm(our_grads[name] - grad) <= 1e-4 * (
            torch.linalg.vector_norm(grad)
        )


def test_a_batch_without_pictures_reaches_every_parameter_of_the_reference(world, batches):
    theirs, _ = batches
    text = (theirs["input_ids"] < 0).any(dim=0).logical_not().nonzero()[:, 0][:5]
    batch = {name: theirs[name][:, text] for name in ("input_ids", "labels", "attention_mask")}
    model = load_reference(world.base)
    model(**batch).logits.sum().backward()
    assert model.vte.weight.grad is not None
    assert not model.visual_tokenizer.head[0].weight.grad.any()


def test_a_batch_of_equal_lengths_gets_a_column_of_padding_all_the_same(world):
    dataset = ReferenceDataset(world)
    collate = ReferenceCollator(dataset.tokenizer)
    assert collate([dataset[0]])["input_ids"].shape[1] == len(dataset[0]["input_ids"]) + 1


def test_an_epoch_is_planned_before_it_begins(world):
    padded, packed = (expect(ALL[name], world) for name in ("ours, padded", "ours, packed"))
    official = expect(ALL["official way, padded"], world)
    assert (padded.samples, padded.micro_batches, packed.micro_batches) == (4, 2, 1)
    assert padded.positions > packed.positions == packed.tokens == padded.tokens
    assert padded.useful_flops == packed.useful_flops == official.useful_flops
    assert official.peak_bytes is None
    frozen = expect(ALL["ours, packed, frozen vision"], world)
    assert frozen.useful_flops < packed.useful_flops
    assert frozen.peak_bytes < packed.peak_bytes


def test_a_small_race_prints_its_tables_and_writes_a_line_per_trainer(
    world, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    lines = tmp_path / "rows.jsonl"
    code = main(["training", "--smoke", "--only", "T1", "--json", str(lines)])
    printed = capsys.readouterr().out
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert code == 0
    assert "| T1   | speed: ours, padded against official way, padded" in printed
    assert "| ours, padded | " in printed.partition("planned peak against")[2]
    races_run = [row for row in rows if row["table"] == "races"]
    assert [row["variant"] for row in races_run] == ["official way, padded", "ours, padded"]
    assert all(row["equal"] and row["workload_sha256"] == world.sha256 for row in races_run)
    assert races_run[0]["losses"][0] > races_run[0]["losses"][-1]


def test_a_trainer_that_fails_is_named_with_what_it_said(world):
    broken = Variant("a typo", "ours", {**PADDED, "learning_rate": -1.0})
    race = Race("broken", (Variant("ours", "ours", PADDED), broken))
    with pytest.raises(Exception, match="learning_rate"):
        run_race(race, world, rounds=1)
    broken = Variant("no such attention", "ours", {**PADDED, "attn_implementation": "magic"})
    with pytest.raises(RuntimeError, match=r"(?s)the trainer 'no such attention' failed:.*magic"):
        run_race(Race("broken", (broken,)), world, rounds=1)


def epochs(*losses, seconds=1.0, peak=3 * 10**9):
    return tuple(Epoch(seconds, 0.9 * seconds, seconds, loss, peak) for loss in losses)


EXPECTED = Expected(8, 16, 4000, 2000, 1000, 6000, 4.5e10, 3 * 10**9)


def result(name, found, agreement=None):
    variant = ALL[name]
    race = next(race.name for race in races() if variant in race.variants)
    equal = Agreement(True, "error 0e+00 of 1e-04")
    return Result(race, "", variant, found, agreement or equal, EXPECTED)


def goals_of(*results, small=False):
    return follow_up.goals_of([], results, MACHINE, small=small)


def test_losses_decide_whether_a_trainer_computes_what_it_should():
    frozen = ALL["ours, packed, frozen vision"]
    cached = replace(frozen, name="the same", like=frozen.name, like_at_first=False)
    losses = {
        "ours, packed": epochs(12.0, 11.0),
        frozen.name: epochs(12.0, 11.5),
        cached.name: epochs(12.0, 11.5),
    }
    assert judge(frozen, losses).equal
    assert judge(cached, losses).equal
    assert not judge(cached, {**losses, cached.name: epochs(12.0, 11.0)}).equal
    assert not judge(frozen, {**losses, frozen.name: epochs(12.1, 11.5)}).equal
    assert not judge(cached, {**losses, cached.name: epochs(12.0, float("nan"))}).equal


def test_the_worse_quartile_is_judged_and_the_plan_by_its_distance():
    base = result("official way, padded", epochs(12, 11, 10, 9, seconds=2.0, peak=6 * 10**9))
    ours = result("ours, padded", epochs(12, 11, 10, 9, seconds=1.0))
    slow = replace(ours, epochs=(*ours.epochs[:2], *epochs(10.0, 9.0, seconds=1.2)))
    by_goal = {goal.goal: goal for goal in goals_of(base, ours)}
    assert (by_goal["T1"].measured, by_goal["T1"].verdict) == (2.0, "PASS")
    assert (by_goal["T3"].measured, by_goal["T3"].verdict) == (0.5, "PASS")
    assert (by_goal["plan"].measured, by_goal["plan"].verdict) == (0.0, "PASS")
    goals = {goal.goal: goal for goal in goals_of(base, slow)}
    assert goals["T1"].verdict == "MISS"
    small = goals_of(base, ours, small=True)
    assert {goal.verdict for goal in small} == {""}


def test_nothing_is_claimed_of_a_trainer_whose_losses_are_wrong():
    base = result("official way, padded", epochs(12, 11))
    wrong = result("ours, padded", epochs(12, 12), Agreement(False, "error 9e-02 of 1e-04"))
    goals = goals_of(base, wrong)
    assert {goal.goal for goal in goals} == {"plan"}
    table = follow_up.text([base, wrong], goals, MACHINE)
    assert "WRONG: error 9e-02 of 1e-04" in table
    assert wrong_of([base, wrong]) == [
        "equal batches: ours, padded is WRONG (error 9e-02 of 1e-04)"
    ]


def test_the_share_of_the_ceiling_is_useful_work_over_the_time_of_the_passes():
    packed = result("ours, packed", epochs(12, 11, seconds=1.0))
    assert follow_up.share_of_ceiling(packed, MACHINE) == pytest.approx(100 * 45 / 0.9 / 100)
    half = result("ours, packed, bf16", epochs(12, 11, seconds=1.0))
    assert follow_up.share_of_ceiling(half, MACHINE) == pytest.approx(100 * 45 / 0.9 / 400)
