"""Steps, tokens, work, verdicts and changes of a plan."""

from pathlib import Path

import pytest

from ovis_model.data.dataset import ConversationDataset
from ovis_model.errors import CheckpointError, ConfigError
from ovis_model.flops import FlopCounter
from ovis_model.planning.memory import Outline, read_model_config
from ovis_model.planning.plan import find_device, make_plan
from ovis_model.planning.report import Plan
from ovis_model.planning.work import MeasuredData, batch_at_the_limits, count_steps
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.train_config import TrainConfig
from ovis_model.training.inputs import read_extracted
from ovis_model.training.training import train
from tests.support.model_variants import released
from tests.support.training_world import build_training_world, image_sample, text_sample

ROOT = Path(__file__).parents[4]
PRESETS = ROOT / "config" / "deepspeed"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The configuration of the released 9B, without weights."""
    folder = tmp_path_factory.mktemp("large")
    released("9b").save_pretrained(str(folder))
    return folder


def measure(world, config):
    inputs = read_extracted(world.data)
    processor = Ovis2_5Processor.from_pretrained(world.base).with_settings(
        pixel_limits=config.pixel_limits, frame_sampling=inputs.frame_sampling
    )
    return MeasuredData.measure(
        inputs.train, folder=world.data, media=world.data, processor=processor
    )


def plan_of(world, *, processes=1, device=None, **overrides):
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return make_plan(
        config,
        measure(world, config),
        device=device or find_device(),
        processes=processes,
        presets=PRESETS,
    )


def plan_large(large, *, memory_gb, processes=1, **overrides):
    settings = {"ovis_pretrained_path": str(large), "bf16": True, **overrides}
    device = find_device(memory_gb=memory_gb, gpu="H200")
    config = TrainConfig.parse(settings, where="test")
    return make_plan(config, None, device=device, processes=processes, presets=PRESETS)


@pytest.mark.parametrize(
    "overrides",
    [
        {"max_steps": -1, "num_train_epochs": 2},
        {"max_steps": -1, "num_train_epochs": 1.5, "per_device_train_batch_size": 3},
        {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 3},
        {"max_steps": 7},
    ],
)
def test_a_training_makes_the_steps_and_epochs_that_were_planned(tmp_path, world, overrides):
    fresh = build_training_world(tmp_path, base=world.base)
    config = TrainConfig.parse(fresh.config(**overrides), where="test")
    plan = plan_of(fresh, **overrides)
    report = train(config, **fresh.paths())
    assert plan.work.steps == report.steps
    assert plan.work.epochs == pytest.approx(report.epochs, abs=1e-3)
    assert plan.data.tokens == report.tokens
    assert plan.data.supervised_tokens == report.supervised_tokens
    assert plan.data.longest_sample_tokens == report.longest_sample_tokens
    assert plan.parameters == report.parameters
    assert plan.trainable_parameters == report.trainable_parameters
    assert plan.work.effective_batch_size == report.effective_batch_size


@pytest.mark.parametrize(
    ("samples", "rows", "accumulated", "processes", "steps"),
    [(20, 4, 1, 1, 5), (20, 4, 1, 2, 3), (21, 4, 2, 1, 3), (21, 4, 2, 4, 1), (1, 4, 8, 8, 1)],
)
def test_processes_share_the_steps_of_an_epoch(samples, rows, accumulated, processes, steps):
    config = TrainConfig(
        ovis_pretrained_path="x",
        num_train_epochs=1,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulated,
    )
    assert count_steps(config, samples, processes=processes) == (steps, 1.0)


def test_work_is_that_of_every_sample_in_every_epoch(world):
    plan = plan_of(world, max_steps=-1, num_train_epochs=2)
    config = TrainConfig.parse(world.config(), where="test")
    counter = FlopCounter(read_model_config(world.base))
    once = sum(counter.of(shape).total for shape in measure(world, config).shapes)
    assert plan.work.useful_flops == plan.work.executed_flops == 2 * once
    assert plan.work.tokens == 2 * plan.data.tokens
    again = plan_of(world, max_steps=-1, num_train_epochs=2, gradient_checkpointing=True)
    assert again.work.useful_flops == plan.work.useful_flops
    assert again.work.executed_flops > plan.work.executed_flops * 1.2


def test_hours_follow_from_the_peak_of_a_known_gpu(world):
    device = find_device(memory_gb=80, gpu="NVIDIA H100 80GB HBM3")
    plan = plan_of(world, device=device, processes=2)
    seconds = plan.work.executed_flops / (0.4 * 989e12 * 2)
    assert plan.work.hours == pytest.approx(seconds / 3600)
    assert plan_of(world, device=find_device(memory_gb=80)).work.hours is None


def test_samples_that_training_would_refuse_are_named(tmp_path, world):
    mute = text_sample(7)
    mute["conversations"] = mute["conversations"][:2]
    samples = [image_sample(0), text_sample(1), mute]
    fresh = build_training_world(tmp_path, samples=samples, base=world.base)
    plan = plan_of(fresh, multimodal_max_length=10)
    (too_long,) = plan.data.too_long
    assert too_long.startswith("image_0 (")
    assert plan.data.without_answer == ["text_7"]


def test_a_sample_s_own_limit_is_respected(tmp_path, world):
    cut = {**image_sample(0), "fit": {"max_tokens": 12}}
    fresh = build_training_world(tmp_path, samples=[cut, text_sample(1)], base=world.base)
    config = TrainConfig.parse(fresh.config(), where="test")
    assert measure(fresh, config).extents[0].num_tokens <= 12


def test_encoded_samples_kept_in_memory_are_planned_for(world):
    config = TrainConfig.parse(world.config(), where="test")
    data = measure(world, config)
    inputs = read_extracted(world.data)
    processor = Ovis2_5Processor.from_pretrained(world.base).with_settings(
        pixel_limits=config.pixel_limits, frame_sampling=inputs.frame_sampling
    )
    dataset = ConversationDataset(inputs.train, media_root=world.data, processor=processor)
    kept = 0
    for example in map(dataset.__getitem__, range(len(dataset))):
        encoded = example.encoded
        tensors = (encoded.input_ids, encoded.labels, encoded.pixel_values)
        kept += sum(tensor.nbytes for tensor in tensors if tensor is not None)
    assert data.cached_bytes == kept
    with_cache, without = (
        plan_of(world, cache_encoded_samples=cache).memory.peak_device_bytes
        for cache in (True, False)
    )
    assert with_cache - without == kept


@pytest.mark.parametrize(
    ("what", "width"),
    [({"train_modules": "llm"}, 32), ({"freeze_vision_tower": True}, 4 * 32)],
)
def test_what_is_kept_of_pictures_is_counted_and_where_it_is_refused_so_is_the_plan(
    world, what, width
):
    kept, without = (
        plan_of(world, **what, optim="adamw_torch", cache_visual_tokens=cache)
        for cache in (True, False)
    )
    more = kept.memory.peak_device_bytes - without.memory.peak_device_bytes
    assert more == kept.data.visual_tokens * width * 4
    assert "as if nothing were kept" in kept.warnings[0]
    with pytest.raises(ConfigError, match="the vision tower learns"):
        plan_of(world, cache_visual_tokens=True)


def test_what_learns_is_told_module_by_module(world):
    plan = plan_of(world, train_modules="llm:1e-4|vte", learning_rate=2e-3)
    rates = {module.module: module.learning_rates for module in plan.modules}
    assert rates == {
        "llm": [1e-4],
        "visual_tokenizer.vit": [],
        "visual_tokenizer.head": [],
        "vte": [2e-3],
    }
    assert sum(module.parameters for module in plan.modules) == plan.parameters
    assert sum(module.trainable for module in plan.modules) == plan.trainable_parameters
    with pytest.raises(ConfigError, match="nothing to train"):
        plan_of(world, train_modules="llm", freeze_llm=True)


def test_a_small_training_fits_and_needs_no_change(world):
    plan = plan_of(world)
    assert plan.fits
    assert plan.margin_bytes == plan.device.memory_bytes - plan.needed_bytes > 0
    assert (plan.changes, plan.needed_besides, plan.warnings) == ([], [], [])
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_processes_on_a_cpu_share_its_memory(world):
    plan = plan_of(world, processes=3)
    assert plan.needed_bytes == 3 * plan.memory.peak_device_bytes
    on_gpus = plan_of(world, processes=3, device=find_device(memory_gb=80))
    assert on_gpus.needed_bytes == on_gpus.memory.peak_device_bytes


def test_full_fine_tuning_of_the_9b_needs_more_than_one_h200(large):
    plan = plan_large(
        large, memory_gb=141, deepspeed=str(PRESETS / "zero1.json"), per_device_train_batch_size=2
    )
    assert not plan.fits
    states = {"weights", "gradients", "optimizer"}
    held = sum(item.device_bytes for item in plan.memory.items if item.name in states)
    assert held / 1e9 == pytest.approx(146.8, abs=0.05)
    settings = [change.setting.partition(":")[0] for change in plan.changes]
    assert settings == ["per_device_train_batch_size", "gradient_checkpointing", "deepspeed"]
    peaks = [plan.memory.peak_device_bytes, *(one.peak_device_bytes for one in plan.changes)]
    assert peaks == sorted(peaks, reverse=True)
    assert plan.needed_besides == [f"deepspeed: {PRESETS.as_posix()}/zero2_offload.json"]


def test_eight_gpus_are_enough_with_checkpointing(large):
    preset = str(PRESETS / "zero3.json")
    plan = plan_large(large, memory_gb=80, processes=8, deepspeed=preset)
    assert not plan.fits
    *others, last = plan.changes
    assert last.fits
    assert not any(change.fits for change in others)
    assert plan.needed_besides == []
    applied = plan_large(
        large, memory_gb=80, processes=8, deepspeed=preset, gradient_checkpointing=True
    )
    assert applied.fits
    assert applied.memory.peak_device_bytes == last.peak_device_bytes


def test_a_change_names_only_files_that_are_there(large, tmp_path):
    config = TrainConfig(ovis_pretrained_path=str(large), bf16=True)
    device = find_device(memory_gb=80)
    plan = make_plan(config, None, device=device, processes=8, presets=tmp_path)
    assert plan.changes
    settings = [*(change.setting for change in plan.changes), *plan.needed_besides]
    assert not any("deepspeed" in setting for setting in settings)


def test_when_nothing_suffices_that_is_said(large):
    plan = plan_large(large, memory_gb=2, multimodal_max_length=1000)
    assert len(plan.changes) == 3
    assert not any(change.fits for change in plan.changes)
    assert plan.needed_besides[-1].startswith("more or larger GPUs")


def test_missing_weights_are_a_warning_and_a_missing_config_an_error(large, tmp_path):
    plan = plan_large(large, memory_gb=141)
    assert plan.warnings[0].startswith("the weights cannot be loaded: ")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        plan_large(tmp_path, memory_gb=141)


def test_other_weights_than_the_configuration_describes_are_a_warning(world, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in world.base.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    text = (base / "config.json").read_text("utf-8")
    changed = text.replace('"visual_vocab_size": 64', '"visual_vocab_size": 128')
    (base / "config.json").write_text(changed, encoding="utf-8")
    (warning,) = plan_of(world, ovis_pretrained_path=str(base), optim="adamw_torch").warnings
    assert "its config.json describes" in warning
    (_, unknown) = plan_of(
        world, ovis_pretrained_path=str(base), optim="adamw_anyprecision"
    ).warnings
    assert "'adamw_anyprecision' is not known here" in unknown


def test_adapters_leave_little_to_hold_and_what_is_not_counted_is_said(world):
    plan = plan_of(world, lora_r=2, optim="adamw_torch")
    whole = plan_of(world, optim="adamw_torch")
    assert plan.trainable_parameters == plan.parameters - whole.parameters == 2048
    assert plan.memory.peak_device_bytes < whole.memory.peak_device_bytes
    (warning,) = plan.warnings
    assert warning.startswith("adapters keep as much here as layers that learn")
    *_, more = plan_of(world, lora_r=2, lora_variant="dora", optim="adamw_torch").warnings
    assert "not counted: leave room for twice the activations" in more


def test_without_data_the_batch_is_the_largest_that_limits_allow(large):
    config = TrainConfig(ovis_pretrained_path=str(large), per_device_train_batch_size=2)
    batch = batch_at_the_limits(config)
    assert (batch.positions, batch.patches) == (2 * 8192, 2 * 12544)
    plan = plan_large(large, memory_gb=1000)
    assert (plan.data, plan.work) == (None, None)
    assert "no data: at the limits" in plan.batch


def test_an_outline_knows_how_much_of_the_tower_learns():
    config = TrainConfig(ovis_pretrained_path="x", train_modules="visual_tokenizer.vit.last_block")
    outline = Outline.of(released("9b"), config)
    assert outline.learning.vit_blocks == 1
    attention, mlp = 4 * (1152 + 1) * 1152, 2 * 1152 * 4304 + 4304 + 1152
    assert outline.trainable == attention + mlp + 4 * 1152  # and two norms


def packed(world, **overrides):
    settings = {"packing": True, "per_device_train_batch_size": 1, **overrides}
    return plan_of(world, **settings)


def test_packed_rows_are_those_that_training_makes(tmp_path, world):
    fresh = build_training_world(tmp_path, base=world.base)
    overrides = {
        "packing": True,
        "per_device_train_batch_size": 1,
        "pack_length": 128,
        "gradient_accumulation_steps": 2,
        "max_steps": -1,
        "num_train_epochs": 2,
    }
    config = TrainConfig.parse(fresh.config(**overrides), where="test")
    plan = plan_of(fresh, **overrides)
    report = train(config, **fresh.paths())
    assert (plan.work.steps, plan.work.effective_batch_size) == (report.steps, 2)
    assert plan.packing.model_dump(include={"rows", "fill", "imbalance"}) == (
        report.packing.model_dump()
    )
    assert plan.packing.row_tokens == 128


def test_memory_is_that_of_the_largest_row(world):
    short, long = (packed(world, pack_length=length) for length in (128, 512))
    assert long.packing.rows < short.packing.rows
    assert long.memory.peak_device_bytes > short.memory.peak_device_bytes
    assert long.batch.startswith("a row of ")
    shared = packed(world, pack_length=128, processes=3)
    assert shared.packing.rows == 3 * shared.packing.rows_per_process


def test_a_sample_longer_than_a_row_is_named_and_the_others_are_planned(world):
    longest = plan_of(world).data.longest_sample_tokens
    plan = packed(world, pack_length=longest - 1)
    assert plan.data.too_long[0].endswith(f"({longest} tokens, a row has {longest - 1})")
    assert plan.packing.rows > 0


def test_shorter_rows_are_a_change_as_long_as_samples_fit(large):
    settings = {"packing": True, "pack_length": 32768, "deepspeed": str(PRESETS / "zero2.json")}
    plan = plan_large(large, memory_gb=180, per_device_train_batch_size=1, **settings)
    assert plan.packing is None
    assert plan.batch.startswith("a row of 32,768 positions, 4 samples")
    assert plan.changes[0].setting == "pack_length: 16384, gradient_accumulation_steps: 16"
    shortest = plan_large(
        large, memory_gb=150, per_device_train_batch_size=1, **{**settings, "pack_length": 8192}
    )
    assert not any("pack_length" in change.setting for change in shortest.changes)


def test_samples_with_limits_of_their_own_are_counted(tmp_path, world):
    samples = [
        {**image_sample(0), "fit": {"max_tokens": 12}},
        {**image_sample(1), "fit": {"max_pixels": 3136}},
        text_sample(2),
    ]
    plan = plan_of(build_training_world(tmp_path, samples=samples, base=world.base))
    assert (plan.data.cut, plan.data.reduced) == (1, 1)


def test_samples_that_are_left_out_of_an_epoch_are_counted(world):
    dropping = plan_of(world, per_device_train_batch_size=8, dataloader_drop_last=True)
    assert (dropping.data.samples, dropping.work.dropped) == (20, 4)
    assert plan_of(world, per_device_train_batch_size=8).work.dropped == 0
