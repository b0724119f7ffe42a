import json
from collections import Counter

import pytest
import torch

from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.loss_groups import LossGroups
from ovis_model.data.schema import Sample
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.tokens import IGNORE_ID
from ovis_model.train_config import TrainConfig
from ovis_model.training.group_losses import GroupLosses
from ovis_model.training.training import train
from tests.support.tiny_model import TINY_PIXELS
from tests.support.training_world import build_training_world, mixed_samples


def encode(world, samples):
    processor = Ovis2_5Processor.from_pretrained(world.base).with_settings(
        pixel_limits=TINY_PIXELS
    )
    parsed = [Sample.model_validate(sample) for sample in samples]
    return ConversationDataset(parsed, media_root=world.data, processor=processor)


def test_means_are_over_the_tokens_of_a_group_and_begin_anew_when_asked():
    losses = GroupLosses()
    groups = LossGroups(("ocr", None), torch.tensor([0, 1, 1, 3]))
    losses.add(torch.tensor([4.0, 1.0, 1.0, 2.0]), groups)
    losses.add(torch.tensor([3.0]), LossGroups(("thinking",), torch.tensor([1])))
    assert losses.means("loss") == {
        "loss": pytest.approx(11 / 5),
        "loss/answer": pytest.approx(7 / 4),
        "loss/ocr": pytest.approx(2.0),
        "loss/source_thinking": pytest.approx(3.0),
        "loss/thinking": pytest.approx(4.0),
    }
    assert losses.means("loss") == {}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"per_device_train_batch_size": 4}, id="padded"),
        pytest.param(
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, id="accumulated"
        ),
        pytest.param(
            {"per_device_train_batch_size": 1, "packing": True, "pack_length": 512}, id="packed"
        ),
    ],
)
def test_the_losses_of_the_groups_make_up_the_loss_of_the_step(tmp_path, settings):
    samples = [{**one, "source": name} for one, name in zip(mixed_samples(), "aabb", strict=True)]
    world = build_training_world(tmp_path, samples=samples)
    values = world.config(max_steps=1, **settings)
    train(TrainConfig.parse(values, where="test"), **world.paths())
    (line,) = [json.loads(line) for line in world.metrics.read_text().splitlines()]

    tokens = Counter()
    for example in encode(world, samples):
        learned = int((example.encoded.labels != IGNORE_ID).sum())
        thought = int(example.thinking.sum())
        tokens += Counter(
            {example.source: learned, "thinking": thought, "answer": learned - thought}
        )
    assert min(tokens.values()) > 10
    for names in (("a", "b"), ("thinking", "answer")):
        total = sum(line[f"loss/{name}"] * tokens[name] for name in names)
        assert line["loss"] == pytest.approx(total / sum(tokens[name] for name in names), abs=1e-5)
