import pytest
import torch
from transformers import TrainingArguments

from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import Sample
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.train_config import TrainConfig
from ovis_model.training.holdout import Holdout
from tests.support.tiny_model import TINY_PIXELS
from tests.support.training_world import build_training_world, mixed_samples


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build_training_world(tmp_path_factory.mktemp("holdout"))


@pytest.fixture(scope="module")
def model(world):
    return load_model(world.base)


@pytest.fixture(scope="module")
def samples():
    sources = ("ocr", "vqa", None, "answer")
    named = zip(mixed_samples(), sources, strict=True)
    return [Sample.model_validate({**sample, "source": source}) for sample, source in named]


@pytest.fixture
def holdout(world, samples, tmp_path):
    processor = Ovis2_5Processor.from_pretrained(world.base).with_settings(
        pixel_limits=TINY_PIXELS
    )
    dataset = ConversationDataset(samples, media_root=world.data, processor=processor)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])

    def build(only=dataset, **settings):
        config = TrainConfig.parse(world.config(**settings), where="test")
        return Holdout(only, config, arguments)

    build.dataset = dataset
    return build


@pytest.fixture
def by_hand(model, holdout):
    """Sum of losses and number of tokens of each sample, read from all logits."""
    model.eval()
    found = []
    for example in holdout.dataset:
        one = example.encoded
        with torch.no_grad():
            logits = model(one.input_ids[None], None, one.pixel_values, one.grid_thws).logits[0]
        labels = one.labels[1:]
        learned = labels != -100
        loss = torch.nn.functional.cross_entropy(
            logits[:-1][learned], labels[learned], reduction="sum"
        )
        found.append((float(loss), int(learned.sum())))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"per_device_train_batch_size": 1}, id="one by one"),
        pytest.param({"per_device_train_batch_size": 3}, id="padded"),
        pytest.param({"per_device_eval_batch_size": 4}, id="its own batch size"),
        pytest.param(
            {"packing": True, "per_device_train_batch_size": 1, "pack_length": 200}, id="packed"
        ),
        pytest.param(
            {"packing": True, "per_device_train_batch_size": 1, "pack_length": 8},
            id="longer than a row",
        ),
    ],
)
def test_the_loss_is_per_token_of_all_samples_however_they_are_batched(
    holdout, model, by_hand, settings
):
    losses = holdout(**settings).measure(model)
    total, tokens = (sum(values) for values in zip(*by_hand, strict=True))
    assert losses["eval_loss"] == pytest.approx(total / tokens, abs=1e-5)
    for name, sample in (("ocr", 0), ("vqa", 1), ("source_answer", 3)):
        loss, count = by_hand[sample]
        assert losses[f"eval_loss/{name}"] == pytest.approx(loss / count, abs=1e-5)
    assert set(losses) - {"eval_loss/ocr", "eval_loss/vqa", "eval_loss/source_answer"} == {
        "eval_loss",
        "eval_loss/answer",
        "eval_loss/thinking",
    }


def test_no_samples_have_no_loss(holdout, model, world):
    none = ConversationDataset([], media_root=world.data, processor=holdout.dataset.processor)
    assert holdout(none).measure(model) == {}
