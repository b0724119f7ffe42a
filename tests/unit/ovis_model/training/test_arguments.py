import json

import pytest

from ovis_model.errors import ConfigError
from ovis_model.train_config import TrainConfig
from ovis_model.training.arguments import deepspeed_config, training_arguments, zero_stage
from ovis_model.training.environment import process_group


def build(tmp_path, **values):
    config = TrainConfig.parse({"ovis_pretrained_path": "base", **values}, where="test")
    with process_group():
        return training_arguments(config, resume=tmp_path)


def written(tmp_path, settings):
    path = tmp_path / "ds.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return str(path)


def test_our_keys_and_any_key_of_transformers_reach_the_trainer(tmp_path):
    arguments = build(tmp_path, learning_rate=3e-4, adam_beta2=0.95, warmup_steps=0.1)
    assert (arguments.learning_rate, arguments.adam_beta2) == (3e-4, 0.95)
    assert arguments.get_warmup_steps(200) == 20
    assert arguments.output_dir == str(tmp_path)
    assert arguments.report_to == []
    assert not arguments.logging_nan_inf_filter


def test_gradient_checkpointing_is_passed_under_its_new_name(tmp_path):
    arguments = build(tmp_path, gradient_checkpointing=True)
    assert arguments.activation_checkpointing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ({"adam_beta22": 1}, "unknown key 'adam_beta22'; did you mean 'adam_beta2'?"),
        ({"xyzzy": 1}, "unknown key 'xyzzy'; no known key is close"),
        ({"adam_beta2": "0.9"}, "adam_beta2: expected a number, got the text '0.9'"),
        ({"push_to_hub": True}, "'push_to_hub' cannot be set: models are published by"),
        ({"lr_scheduler_type": "cosinus"}, "train: cosinus is not a valid SchedulerType"),
        ({"train_sampling_strategy": "sorted"}, "choose one of random, sequential, group_by_len"),
    ],
)
def test_a_key_that_cannot_be_used_is_an_error_that_says_why(tmp_path, values, message):
    with pytest.raises(ConfigError) as caught:
        build(tmp_path, **values)
    assert message in str(caught.value)


def test_every_bad_key_is_reported_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"'learning_rat'.*; .*'bf61'"):
        build(tmp_path, learning_rat=1, bf61=True)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_deepspeed_file_needs_no_more_than_its_stage(tmp_path, stage):
    path = written(tmp_path, {"zero_optimization": {"stage": stage}})
    assert zero_stage(build(tmp_path, deepspeed=path)) == stage


def test_a_deepspeed_file_without_a_stage_means_stage_zero(tmp_path):
    settings = deepspeed_config(written(tmp_path, {}))
    assert settings["zero_optimization"] == {"stage": 0}


def test_stage_three_can_always_be_saved(tmp_path):
    settings = deepspeed_config(written(tmp_path, {"zero_optimization": {"stage": 3}}))
    assert settings["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"type": "AdamW"}}, "has a section 'optimizer'; remove it"),
        ({"scheduler": {"type": "WarmupLR"}}, "has a section 'scheduler'; remove it"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_a_deepspeed_file_that_cannot_be_used_is_explained(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        deepspeed_config(written(tmp_path, settings))


def test_a_missing_deepspeed_file_is_named():
    with pytest.raises(ConfigError, match=r"there is no file 'config/zero9.json'; config/deep"):
        deepspeed_config("config/zero9.json")


def test_no_deepspeed_key_means_no_deepspeed(tmp_path):
    arguments = build(tmp_path)
    assert arguments.deepspeed is None
    assert zero_stage(arguments) is None
