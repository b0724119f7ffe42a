import json

import pytest
from PIL import Image
from safetensors.torch import load_file

from ovis_model.data.schema import Sample
from ovis_model.errors import CheckpointError, ConfigError, DataError
from ovis_model.reports import sha256_of_folder
from ovis_model.train_config import TrainConfig
from ovis_model.training import checkpoints
from ovis_model.training.checkpoints import RunLayout
from ovis_model.training.model_selection import (
    Evaluation,
    best,
    check_holdout,
    evaluations,
    num_without_progress,
)
from ovis_model.training.training import train
from tests.support.training_world import (
    TrainingWorld,
    build_training_world,
    image_sample,
    text_sample,
)

#: A rate so high that the loss goes up and down.
RESTLESS = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "max_steps": 10}
BY_STEPS = {"eval_strategy": "steps", "eval_steps": 2}


def run(world: TrainingWorld, **overrides):
    config = TrainConfig.parse(world.config(**overrides), where="test")
    return train(config, **world.paths(), inputs_digest="digest")


def curve(world: TrainingWorld, name="eval_loss") -> dict[int, float]:
    lines = [json.loads(line) for line in world.metrics.read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def seen(*losses: float) -> list[Evaluation]:
    return [Evaluation(step, loss) for step, loss in enumerate(losses, start=1)]


@pytest.fixture
def world(tmp_path):
    return build_training_world(tmp_path)


def test_evaluations_are_found_in_a_log_of_everything():
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "eval_loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert evaluations(history, "eval_loss") == [Evaluation(2, 2.0)]


def test_the_first_of_equally_good_evaluations_is_the_best():
    assert best(seen(3.0, 1.0, 2.0, 1.0)) == Evaluation(2, 1.0)
    assert best([]) is None


@pytest.mark.parametrize(
    ("losses", "threshold", "count"),
    [
        ((2.0,), 0.0, 0),
        ((2.0, 1.0, 1.5, 1.2), 0.0, 2),
        ((2.0, 1.0, 1.5, 0.9), 0.0, 0),
        ((2.0, 1.0, 1.0), 0.0, 1),
        ((2.0, 1.9, 1.8), 0.15, 2),
    ],
)
def test_progress_is_a_loss_below_all_before_by_more_than_the_threshold(losses, threshold, count):
    assert num_without_progress(seen(*losses), threshold) == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param(
            {"load_best_model_at_end": True, "early_stopping_patience": 2},
            "load_best_model_at_end, early_stopping_patience: nothing is measured while training",
            id="nothing to choose by",
        ),
        pytest.param(
            {"eval_steps": 5}, "eval_steps is 5, but eval_strategy is 'no'", id="never evaluated"
        ),
        pytest.param(
            {"eval_strategy": "epoch", "eval_steps": 5},
            "say eval_strategy: steps, or remove eval_steps",
            id="steps between epochs",
        ),
        pytest.param(
            {"eval_strategy": "steps", "eval_steps": 2.5},
            "eval_steps is 2.5; give whole steps",
            id="half a step",
        ),
        pytest.param(
            {**BY_STEPS, "metric_for_best_model": "eval_loss/answer"},
            "metric_for_best_model chooses nothing",
            id="nothing to choose",
        ),
    ],
)
def test_keys_that_would_have_no_effect_are_refused(world, values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse(world.config(**values), where="test")


def holdout(*sources):
    return [Sample.model_validate({**text_sample(0), "source": source}) for source in sources]


def test_a_source_of_the_holdout_can_decide(world):
    values = {**BY_STEPS, "load_best_model_at_end": True}
    for metric in ("eval_loss/ocr", "loss/ocr", "eval_loss/answer"):
        config = TrainConfig.parse(
            world.config(**values, metric_for_best_model=metric), where="test"
        )
        check_holdout(config, holdout("ocr", None))
    config = TrainConfig.parse(world.config(**values, metric_for_best_model="vqa"), where="test")
    with pytest.raises(ConfigError, match=r"is 'vqa', but the holdout tells eval_loss, .*ocr;"):
        check_holdout(config, holdout("ocr"))


def test_an_empty_holdout_is_refused_before_the_model_is_loaded(world):
    (world.data / "holdout.jsonl").write_text("")
    manifest = json.loads((world.data / "manifest.json").read_text())
    manifest["files"]["holdout.jsonl"]["sha256"] = (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    (world.data / "manifest.json").write_text(json.dumps(manifest))
    (world.base / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"eval_strategy: steps needs held out samples and ther"):
        run(world, **BY_STEPS)


def test_measuring_the_holdout_leaves_the_weights_as_they_are(world):
    run(world, max_steps=4)
    weights = load_file(world.output / "model.safetensors")
    run(world, max_steps=4, eval_strategy="steps", eval_steps=1)
    assert len(curve(world)) == 4
    measured = load_file(world.output / "model.safetensors")
    assert all(tensor.equal(measured[name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        pytest.param({"eval_strategy": "steps", "eval_steps": 0.2}, [2, 4, 6, 8, 10], id="share"),
        pytest.param({"eval_strategy": "steps", "eval_steps": 4}, [4, 8, 10], id="and the last"),
        pytest.param({"eval_strategy": "epoch"}, [5, 10], id="epochs"),
    ],
)
def test_the_holdout_is_measured_when_the_configuration_says(world, settings, steps):
    report = run(world, max_steps=10, **settings)
    assert list(curve(world)) == steps
    assert report.holdout_loss == curve(world)[10]


@pytest.mark.parametrize("stage", [None, 2, 3])
def test_the_best_weights_are_handed_over_though_newer_checkpoints_were_kept(world, stage):
    deepspeed = {} if stage is None else {"deepspeed": world.deepspeed(stage)}
    report = run(
        world,
        **RESTLESS,
        **BY_STEPS,
        **deepspeed,
        load_best_model_at_end=True,
        save_steps=3,
        save_total_limit=1,
    )
    losses = curve(world)
    assert report.weights_step == min(losses, key=losses.__getitem__) < report.steps == 10
    assert report.holdout_loss == pytest.approx(min(losses.values()), abs=2e-6)
    manifest = json.loads((world.output / "manifest.json").read_text())
    assert manifest["steps"] == report.weights_step


def test_a_damaged_best_checkpoint_is_named(tmp_path):
    folder = checkpoints.folder_of(tmp_path, 4)
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint-4 cannot be used: it has no manifest"):
        checkpoints.require_whole(folder)
    (folder / "weights").write_bytes(b"1")
    layout = RunLayout(world_size=1, zero_stage=None, batch_size=4, order="random")
    checkpoints.commit(folder, step=4, layout=layout)
    checkpoints.require_whole(folder)
    (folder / "weights").write_bytes(b"2")
    with pytest.raises(
        CheckpointError, match=r"weights has changed since it was written\. Delete"
    ):
        checkpoints.require_whole(folder)


def test_patience_survives_an_interruption(tmp_path):
    late = {**image_sample(0), "id": "late", "image": ["media/late.png"]}
    samples = [*(image_sample(number) for number in range(19)), late]
    world = build_training_world(tmp_path, samples=samples)
    picture = world.data / "media" / "late.png"
    Image.new("RGB", (40, 36), "red").save(picture)
    whole = picture.read_bytes()
    settings = {
        **RESTLESS,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "early_stopping_patience": 4,
        "early_stopping_threshold": 100.0,  # nothing but the first loss is progress
        "train_sampling_strategy": "sequential",
        "save_steps": 1,
        "logging_steps": 1,
        "cache_encoded_samples": False,
    }
    uninterrupted = run(world, **settings)
    assert uninterrupted.steps == 5
    digest = sha256_of_folder(world.output)
    losses = curve(world)

    picture.write_bytes(whole[:-30])  # in the last batch of the first epoch
    with pytest.raises(DataError, match="late"):
        run(world, **settings)
    assert 1 < len(curve(world)) < 5
    picture.write_bytes(whole)
    assert run(world, **settings) == uninterrupted
    assert curve(world) == losses
    assert sha256_of_folder(world.output) == digest
