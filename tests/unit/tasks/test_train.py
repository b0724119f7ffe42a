"""A training is known by its inputs: what changes the result changes the digest, no more."""

import pytest

from ovis_model.errors import ConfigError, StageError
from ovis_model.train_config import TrainConfig
from ovis_model.training.micro_batch import Reduction, all_reductions, remember
from tasks import train
from tasks.train import dataset_digests, inputs_digest, until_it_fits


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    extracted, base = tmp_path / "extracted", tmp_path / "base"
    for folder in (extracted, base):
        folder.mkdir()
    (extracted / "manifest.json").write_text("{}", encoding="utf-8")
    (base / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(train, "EXTRACTED", extracted)

    def digest(**changes):
        config = TrainConfig(ovis_pretrained_path=str(base), **changes)
        return inputs_digest(config, dataset_digests(config))

    return digest, extracted, base


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"learning_rate": 3e-5}, id="a rate"),
        pytest.param({"seed": 1}, id="the seed"),
        pytest.param({"adam_beta2": 0.95}, id="a field of TrainingArguments"),
    ],
)
def test_another_setting_is_another_training(inputs, change):
    digest, _, _ = inputs
    assert digest(**change) != digest()


@pytest.mark.parametrize("change", [{"save_steps": 7}, {"dataloader_num_workers": 2}])
def test_a_setting_that_changes_no_result_resumes_the_same_training(inputs, change):
    digest, _, _ = inputs
    assert digest(**change) == digest()


def test_other_data_or_another_base_model_is_another_training(inputs):
    digest, extracted, base = inputs
    first = digest()
    (extracted / "manifest.json").write_text('{"files": {}}', encoding="utf-8")
    second = digest()
    (base / "config.json").write_text('{"vocab_size": 1}', encoding="utf-8")
    assert len({first, second, digest()}) == 3


def test_a_missing_base_model_says_that_nothing_is_downloaded():
    config = TrainConfig(ovis_pretrained_path="AIDC-AI/Ovis2.5-2B")
    with pytest.raises(ConfigError, match=r"no folder 'AIDC-AI/Ovis2\.5-2B'; nothing is "):
        dataset_digests(config)


def a_reduction(size: int) -> Reduction:
    return Reduction(
        step=1, process=0, per_device_train_batch_size=size, gradient_accumulation_steps=2
    )


def test_training_is_tried_again_as_long_as_micro_batches_become_smaller(tmp_path, capsys):
    attempts = []

    def attempt():
        attempts.append(len(all_reductions(tmp_path)))
        if len(attempts) < 3:
            remember(tmp_path / "stage-1" / "checkpoints", a_reduction(8 // len(attempts)))
            raise StageError("out of memory")

    until_it_fits(tmp_path, attempt)
    assert attempts == [0, 1, 2]
    assert "goes on from the last checkpoint with per_device_train_batch_size 4\n" in (
        capsys.readouterr().out
    )


def test_another_failure_is_not_tried_again(tmp_path):
    remember(tmp_path, a_reduction(4))  # of an earlier start

    def attempt():
        raise StageError("no such file")

    with pytest.raises(StageError, match="no such file"):
        until_it_fits(tmp_path, attempt)
