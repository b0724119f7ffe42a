"""Every key of the train section, and of the seed's file, changes what it says it changes.

A test marked `@shows("key")` sets the key and sees the change.  A new key of TrainConfig needs
such a test here, or a line in ELSEWHERE that names one.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import TrainerCallback

from ovis_model.config import FrameSampling
from ovis_model.data.dataset import ConversationDataset, check_extents
from ovis_model.errors import ConfigError, DataError
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.train_config import OUTSIDE_PIPELINE, TrainConfig
from ovis_model.training.arguments import FIELDS, training_arguments
from ovis_model.training.environment import has_gpu, process_group
from ovis_model.training.inputs import read_extracted
from ovis_model.training.inputs_digest import NOT_AN_INPUT
from ovis_model.training.other_names import INSTEAD
from ovis_model.training.standalone import read_inputs, standalone_digest, train_standalone
from ovis_model.training.train_modules import learning_rates
from ovis_model.training.trainer import EpochSampler
from tests.support.running_trainer import prepared_trainer
from tests.support.training_world import build_training_world, image_sample, mixed_samples

ROOT = Path(__file__).parents[4]
SEED_FILE = ROOT / "config" / "train_config.json"
HERE = "tests/unit/ovis_model/training"

#: Keys whose proof is another file's: the test that sets the key and sees the change.
ELSEWHERE = {
    "auto_micro_batch": f"{HERE}/test_out_of_memory.py::test_where_nothing_can_be_halved_a_",
    "early_stopping_patience": f"{HERE}/test_model_selection.py::test_patience_survives_an_",
    "early_stopping_threshold": f"{HERE}/test_model_selection.py::test_patience_survives_an_",
    "eval_steps": f"{HERE}/test_model_selection.py::test_the_holdout_is_measured_when_the_",
    "eval_strategy": f"{HERE}/test_model_selection.py::test_the_holdout_is_measured_when_the_",
    "load_best_model_at_end": f"{HERE}/test_model_selection.py::test_the_best_weights_are_handed_",
    "metric_for_best_model": f"{HERE}/test_model_selection.py::test_a_source_of_the_holdout_can_",
    "attn_implementation": f"{HERE}/test_training.py::test_a_setting_of_speed_or_memory_",
    "nproc_per_node": "tests/unit/tasks/test_launch.py::test_torchrun_meets_on_loopback",
    "nnodes": "tests/unit/tasks/test_nodes.py::test_machines_are_told_apart_by_node_rank_alone",
    "master_addr": "tests/unit/tasks/test_nodes.py::test_machines_are_told_apart_by_node_rank",
    "master_port": "tests/unit/tasks/test_nodes.py::test_machines_are_told_apart_by_node_rank",
    "lora_r": f"{HERE}/test_adapters.py::test_the_folder_has_the_official_layout",
    "lora_alpha": f"{HERE}/test_adapters.py::test_merged_weights_and_a_reloaded_adapter",
    "lora_dropout": f"{HERE}/test_adapters.py::test_an_interrupted_training_of_adapters",
    "lora_modules": f"{HERE}/test_adapters.py::test_a_module_name_puts_adapters_on_exactly",
    "lora_variant": f"{HERE}/test_adapters.py::test_merged_weights_and_a_reloaded_adapter",
    "loss_spike_factor": "tests/faults/test_bad_steps.py::test_a_spike_ends_the_training",
    "loss_spike_window": "tests/faults/test_bad_steps.py::test_a_spike_ends_the_training",
    "hang_timeout_seconds": "tests/faults/test_bad_steps.py::test_a_process_that_hangs_is_named",
    "stages": f"{HERE}/test_stages.py::test_stages_leave_the_weights_of_trainings_behind",
    "cache_visual_tokens": f"{HERE}/test_visual_cache.py::test_each_picture_is_looked_at_once",
    "quantize_base": f"{HERE}/test_execution.py::test_a_quantised_base_learns_through",
    "packing": f"{HERE}/test_packed_rows.py::test_steps_epochs_and_rates_follow_from_the_rows",
    "sample_steps": f"{HERE}/test_generation_samples.py::test_prompts_of_the_holdout_are_",
    "num_samples": f"{HERE}/test_generation_samples.py::test_prompts_of_the_holdout_are_",
    "sample_max_new_tokens": f"{HERE}/test_generation_samples.py::test_prompts_of_the_holdout",
    "pack_length": f"{HERE}/test_packed_rows.py::test_a_row_is_as_long_as_the_longest_sample",
}
#: Keys of any configuration of the seed that are no field of TrainConfig.
SEED_KEYS_OF_TRANSFORMERS = {
    "adam_beta1",
    "data_seed",
    "dataloader_drop_last",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "do_eval",
    "do_train",
    "fp16",
    "remove_unused_columns",
    "report_to",
    "tf32",
    "torch_compile",
}
SEED_KEYS_REPLACED = {
    "LLM_MODEL",
    "VIT_MODEL",
    "dataset_text_field",
    "max_seq_length",
    "num_generations",
    "torch_dtype",
}
SHOWN = set()


def shows(*keys):
    """Mark a test as the proof of some keys."""
    SHOWN.update(keys)
    return lambda test: test


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = build_training_world(tmp_path_factory.mktemp("keys"), samples=mixed_samples() * 2)
    for path in (world.data / "media").iterdir():
        Image.new("RGB", (120, 90), path.stem).save(path)  # large enough for every limit
    return world


def parse(world, **values):
    return TrainConfig.parse(world.config(**values), where="test")


def arguments_of(world, **values):
    with process_group():
        return training_arguments(parse(world, **values), resume=world.resume)


def tokens_of(world, **values):
    """Count the tokens of a picture's, several pictures', a video's and a text's sample."""
    config = parse(world, **values)
    processor = Ovis2_5Processor.from_pretrained(config.ovis_pretrained_path)
    processor = processor.with_settings(
        pixel_limits=config.pixel_limits, frame_sampling=FrameSampling()
    )
    samples = read_extracted(world.data).train[:4]
    dataset = ConversationDataset(samples, media_root=world.data, processor=processor)
    return dict(
        zip(("single", "several", "video", "text"), dataset.extents(), strict=True)
    ), samples


# ---- every key has a proof ------------------------------------------------------------------


def test_every_key_of_the_class_and_of_the_seed_file_has_a_proof():
    seed = set(json.loads(SEED_FILE.read_text(encoding="utf-8")))
    wanted = set(TrainConfig.model_fields) | seed | SEED_KEYS_OF_TRANSFORMERS | SEED_KEYS_REPLACED
    assert sorted(wanted - SHOWN - set(ELSEWHERE)) == []


@pytest.mark.parametrize(("key", "place"), ELSEWHERE.items())
def test_a_proof_elsewhere_exists_and_names_the_key(key, place):
    path, _, test = place.partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {test}" in text
    assert key in text


# ---- what transformers does with it ---------------------------------------------------------


@shows(
    "adam_beta1",
    "dataloader_drop_last",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "report_to",
    "torch_compile",
    "weight_decay",
)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adam_beta1", 0.8),
        ("dataloader_drop_last", True),
        ("dataloader_num_workers", 2),
        ("dataloader_persistent_workers", True),
        ("gradient_accumulation_steps", 3),
        ("lr_scheduler_type", "linear"),
        ("max_grad_norm", 0.5),
        ("max_steps", 7),
        ("num_train_epochs", 1.5),
        ("per_device_train_batch_size", 2),
        ("report_to", ["tensorboard"]),
        ("torch_compile", True),
        ("weight_decay", 0.1),
    ],
)
def test_a_key_of_the_trainer_reaches_it(world, key, value):
    assert getattr(arguments_of(world), key) != value
    assert getattr(arguments_of(world, **{key: value}), key) == value


@shows("bf16", "fp16", "tf32")
def test_a_key_of_precision_reaches_the_trainer(world):
    assert not any(getattr(arguments_of(world), key) for key in ("bf16", "fp16", "tf32"))
    assert arguments_of(world, bf16=True).bf16
    assert arguments_of(world, fp16=True).fp16
    if has_gpu():
        assert arguments_of(world, tf32=True).tf32
    else:
        with pytest.raises(ConfigError, match="tf32 requires"):
            arguments_of(world, tf32=True)


@shows("dataloader_pin_memory")
def test_memory_is_pinned_for_a_gpu_unless_told_not_to(world):
    assert arguments_of(world).dataloader_pin_memory is has_gpu()
    assert not arguments_of(world, dataloader_pin_memory=False).dataloader_pin_memory


@shows("deepspeed")
def test_a_deepspeed_file_reaches_the_trainer(world):
    assert arguments_of(world).deepspeed is None
    found = arguments_of(world, deepspeed=world.deepspeed(1)).deepspeed
    assert found["zero_optimization"]["stage"] == 1


@shows("do_train", "do_eval", "remove_unused_columns")
def test_what_the_seed_says_and_happens_anyway_is_accepted_and_its_contrary_is_not(world):
    anyway = {"do_train": True, "do_eval": False, "remove_unused_columns": False}
    arguments_of(world, **anyway)
    for key in ("do_train", "remove_unused_columns"):
        with pytest.raises(ConfigError, match=rf"'{key}' cannot be set: "):
            arguments_of(world, **{key: not anyway[key]})


@shows(*INSTEAD)
@pytest.mark.parametrize(("key", "instead"), INSTEAD.items())
def test_a_key_of_other_trainers_is_refused_with_what_to_use(world, key, instead):
    assert key not in {*TrainConfig.model_fields, *FIELDS}
    with pytest.raises(ConfigError) as caught:
        arguments_of(world, **{key: 1})
    assert str(caught.value) == f"train: {key!r} is not a key here: {instead}"


@shows("save_strategy")
def test_checkpoints_after_each_epoch_can_be_chosen_and_none_cannot(world):
    assert arguments_of(world).save_strategy == "steps"
    assert arguments_of(world, save_strategy="epoch").save_strategy == "epoch"
    with pytest.raises(ConfigError, match="save_strategy is 'no'; choose one of steps, epoch"):
        arguments_of(world, save_strategy="no")


# ---- what is learned, and at which rate -----------------------------------------------------


@shows("learning_rate", "train_modules", "freeze_vision_tower", "freeze_llm")
def test_keys_of_modules_and_rates_decide_who_learns_how_fast(world):
    names = ["llm.a", "visual_tokenizer.vit.b", "visual_tokenizer.head.c", "vte.weight"]

    def rates(**values):
        return learning_rates(names, parse(world, **values))

    assert rates() == dict.fromkeys(names, 5e-3)
    assert rates(learning_rate=1e-4) == dict.fromkeys(names, 1e-4)
    assert rates(train_modules="vte:1e-2") == {"vte.weight": 1e-2}
    assert set(rates(freeze_llm=True)) == set(names[1:])
    assert set(rates(freeze_vision_tower=True)) == {names[0], *names[2:]}


@shows("gradient_checkpointing", "vit_gradient_checkpointing")
def test_keys_of_checkpointing_choose_the_blocks_that_are_computed_again(world):
    assert parse(world).checkpointed_parts == ()
    assert not arguments_of(world).activation_checkpointing
    assert parse(world, gradient_checkpointing=True).checkpointed_parts == ("llm", "vit")
    assert arguments_of(world, gradient_checkpointing=True).activation_checkpointing
    with prepared_trainer(world.config(vit_gradient_checkpointing=True), world.data) as trainer:
        assert trainer.network.checkpointed_parts == ("vit",)


class Saves(TrainerCallback):
    """Notes which checkpoints are on disk after each save."""

    def __init__(self):
        self.seen = []

    def on_save(self, args, state, control, **_):
        folders = Path(args.output_dir).glob("checkpoint-*/manifest.json")
        self.seen.append(sorted(int(path.parent.name[len("checkpoint-") :]) for path in folders))


def history_of(world, **values):
    saves = Saves()
    with prepared_trainer(world.config(**values), world.data) as trainer:
        trainer.add_callback(saves)
        trainer.train()
        return [entry for entry in trainer.state.log_history if "loss" in entry], saves.seen


def cosine(step, *, peak, warmup, steps):
    if step < warmup:
        return peak * step / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


@shows("warmup_steps", "logging_steps", "save_steps", "save_total_limit")
def test_rates_follow_the_closed_form_and_a_fifth_of_the_steps_saves_five_times(world):
    history, saves = history_of(
        world,
        max_steps=10,
        learning_rate=1e-3,
        warmup_steps=0.2,
        logging_steps=1,
        save_steps=0.2,
        save_total_limit=3,
    )
    # The rate of a line is the one its step was made with.
    assert [entry["learning_rate"] for entry in history] == pytest.approx(
        [cosine(step, peak=1e-3, warmup=2, steps=10) for step in range(10)]
    )
    # Four checkpoints; the fifth save, at the end, is the model itself.
    assert saves == [[2], [2, 4], [2, 4, 6], [4, 6, 8], [4, 6, 8]]


@shows("warmup_ratio")
def test_a_warmup_ratio_is_the_old_name_of_a_share_of_the_steps(world):
    assert arguments_of(world).get_warmup_steps(200) == 0
    assert arguments_of(world, warmup_ratio=0.03).get_warmup_steps(200) == 6
    assert arguments_of(world, warmup_ratio=None, warmup_steps=4).get_warmup_steps(200) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, r"warmup_ratio \(0.1\) and warmup_steps \(5\)"),
        ({"warmup_ratio": 3}, "warmup_ratio is a share of all steps, 0 or more and below 1, not"),
        ({"warmup_ratio": "0.1"}, "warmup_ratio is a share of all steps"),
        ({"save_steps": 2.5}, "save_steps is 2.5; give whole steps, or a share of all steps"),
        ({"logging_steps": 1.5}, "logging_steps is 1.5; give whole steps"),
        ({"save_steps": 0}, "save_steps"),
    ],
)
def test_steps_that_mean_nothing_are_refused(world, values, message):
    with pytest.raises(ConfigError, match=message):
        parse(world, **values)


@shows("seed", "data_seed")
def test_seeds_decide_the_order_and_data_seed_that_alone(world):
    def order(**values):
        with prepared_trainer(world.config(**values), world.data) as trainer:
            sampler = trainer._get_train_sampler()
            assert isinstance(sampler, EpochSampler)
            return list(sampler), torch.initial_seed()

    usual, started = order()
    other, restarted = order(seed=7)
    assert other != usual
    assert restarted != started
    same_start, start = order(data_seed=7)
    assert (same_start, start) == (other, started)


@shows("visual_vocab_size")
def test_the_visual_vocabulary_must_be_the_base_models(world):
    size = json.loads((world.base / "config.json").read_text())["visual_vocab_size"]
    with prepared_trainer(world.config(visual_vocab_size=size), world.data):
        pass
    with (
        pytest.raises(ConfigError, match=rf"visual_vocab_size is 9, but .* has {size} visual wo"),
        prepared_trainer(world.config(visual_vocab_size=9), world.data),
    ):
        pass


# ---- what is read ---------------------------------------------------------------------------


@shows(
    "single_image_min_pixels",
    "single_image_max_pixels",
    "multiple_image_min_pixels",
    "multiple_image_max_pixels",
    "video_min_pixels",
    "video_max_pixels",
)
@pytest.mark.parametrize("side", ["min", "max"])
@pytest.mark.parametrize(
    ("kind", "changed"),
    [("single_image", "single"), ("multiple_image", "several"), ("video",) * 2],
)
def test_a_pixel_limit_changes_the_tokens_of_its_kind_alone(world, kind, changed, side):
    usual, _ = tokens_of(world)
    limits = {"min": {}, "max": {f"{kind}_max_pixels": 32 * 32}}
    limits["min"] = {f"{kind}_min_pixels": 256 * 256, f"{kind}_max_pixels": 256 * 256}
    limited, _ = tokens_of(world, **limits[side])
    assert {name for name in usual if usual[name] != limited[name]} == {changed}
    more = limited[changed].num_tokens > usual[changed].num_tokens
    assert more is (side == "min")


@shows("multimodal_max_length", "text_max_length")
@pytest.mark.parametrize(
    ("key", "named", "spared"),
    [("multimodal_max_length", "image_0", "text_0"), ("text_max_length", "text_0", "image_0")],
)
def test_a_length_limit_is_for_its_kind_of_sample(world, key, named, spared):
    extents, samples = tokens_of(world)
    config = parse(world)
    limits = {"multimodal_max_length": 4096, "text_max_length": 4096, key: 10}
    assert getattr(config, key) > 10
    with pytest.raises(DataError) as caught:
        check_extents(samples, list(extents.values()), **limits)
    assert named in str(caught.value)
    assert spared not in str(caught.value)


@shows("cache_encoded_samples")
def test_encoded_samples_are_kept_only_on_request(world):
    for keep in (False, True):
        config = world.config(cache_encoded_samples=keep)
        with prepared_trainer(config, world.data) as trainer:
            dataset = trainer.train_dataset
            assert (dataset[0] is dataset[0]) is keep


@shows("ovis_pretrained_path", "model_path")
def test_the_base_model_has_two_names_and_is_read_from_where_they_say(world):
    seed = {**world.config(), "model_path": "here"}
    del seed["ovis_pretrained_path"]
    assert TrainConfig.parse(seed, where="test").ovis_pretrained_path == "here"
    with pytest.raises(ConfigError, match="name two base models"):
        parse(world, model_path="elsewhere")


@shows("stage", "data_type")
@pytest.mark.parametrize(
    ("values", "message"),
    [({"stage": 1}, "stage 1 has no effect here"), ({"data_type": "caption"}, "'conversation'")],
)
def test_a_stage_or_type_of_data_without_an_effect_is_refused(world, values, message):
    with pytest.raises(ConfigError, match=message):
        parse(world, **values)


# ---- outside the pipeline -------------------------------------------------------------------


@pytest.fixture
def standalone(world, tmp_path):
    annotations = tmp_path / "train_data.json"
    annotations.write_text(json.dumps([image_sample(0), image_sample(1)]))

    def config(**values):
        places = {"data_path": str(annotations), "image_folder": str(world.data)}
        output = str(tmp_path / "model")
        return parse(world, **{**places, "output_dir": output, "max_steps": 1, **values})

    return config


@shows("data_path", "image_folder", "eval_data_path", "min_frames", "max_frames")
def test_keys_of_places_and_frames_decide_what_is_read(standalone, tmp_path):
    read = read_inputs(standalone(), where="test")
    assert [sample.id for sample in read.train] == ["image_0", "image_1"]
    assert (list(read.holdout), read.frame_sampling) == ([], FrameSampling())
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps(image_sample(2)))
    values = {"eval_data_path": str(held), "min_frames": 2, "max_frames": 3}
    read = read_inputs(standalone(image_folder="pictures", **values), where="test")
    assert [sample.id for sample in read.holdout] == ["image_2"]
    assert read.frame_sampling == FrameSampling(min_frames=2, max_frames=3)
    assert read.media_root == Path("pictures")
    with pytest.raises(ConfigError, match=r"min_frames \(9\) is above max_frames \(8\)"):
        read_inputs(standalone(min_frames=9), where="test")


@shows("output_dir", "overwrite_output_dir", "data_name")
def test_a_finished_model_is_replaced_on_request_only(standalone, tmp_path):
    report, place = train_standalone(standalone(data_name="squares"), where="test")
    assert (report.data_name, place) == ("squares", tmp_path / "model.training" / "train.json")
    manifest = (tmp_path / "model" / "manifest.json").read_text()
    again = standalone(learning_rate=1e-3)
    with pytest.raises(ConfigError, match=r"output_dir '.*model' holds a finished model; give an"):
        train_standalone(again, where="test")
    assert (tmp_path / "model" / "manifest.json").read_text() == manifest
    train_standalone(again.model_copy(update={"overwrite_output_dir": True}), where="test")
    assert (tmp_path / "model" / "manifest.json").read_text() != manifest


def test_another_setting_or_file_is_another_training_outside_the_pipeline(standalone, tmp_path):
    def digest(**values):
        config = standalone(**values)
        return standalone_digest(config, read_inputs(config, where="test"))

    usual = digest()
    assert digest(overwrite_output_dir=True, save_steps=3) == usual
    assert digest(learning_rate=1e-3) != usual
    (tmp_path / "held.json").write_text(json.dumps([image_sample(2)]))
    assert digest(eval_data_path=str(tmp_path / "held.json")) != usual
    config = standalone()
    other = replace(read_inputs(config, where="test"), digest="other")
    assert standalone_digest(config, other) != usual


def test_keys_for_outside_the_pipeline_are_keys():
    assert set(OUTSIDE_PIPELINE) <= set(TrainConfig.model_fields)
    assert set(TrainConfig.model_fields) >= NOT_AN_INPUT
