"""The seed's own words: its inference code runs as written, its default values are ours.

The blocks are read out of the seed's document.  They run in a folder in which their file names
and "AIDC-AI/Ovis2.5-9B" exist, that model being a tiny one that was taught to answer their
questions.
"""

import inspect
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from ovis_model.config import PixelLimits, ThinkingConfig
from ovis_model.data.schema import parse_sample
from ovis_model.inference.defaults import BUDGET, MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING
from ovis_model.inference.ovis25_inference import Ovis25Inference
from ovis_model.inference.results import GroundingResult
from ovis_model.modeling.checkpoint import load_model, save_checkpoint
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, pad_batch
from ovis_model.train_config import TrainConfig
from tests.support.tiny_model import build_tiny_checkpoint

SEED = Path(__file__).parents[2] / "shared" / "reference" / "seed.md"
pytestmark = pytest.mark.skipif(not SEED.is_file(), reason="the seed's document is not here")

SEED_IMPORT = "from src_theo.inference_ovis25 import"
OUR_IMPORT = "from ovis_model.inference.ovis25_inference import"
MODEL = "AIDC-AI/Ovis2.5-9B"
IMAGES = ("image.jpg", "path/to/image.jpg")
#: What the tiny model is taught; questions as the blocks ask them.
LESSONS = {
    "Describe this image in detail.": "<think>\nIt is red.\n</think>\n\nA red square.",
    "Describe this image.": "A red square.",
    "Analyze this complex diagram.": "<think>\nOne colour.\n</think>\n\nIt is red.",
    "Tell me a story about this image.": "<think>\nA tale.\n</think>\n\nIt was red.",
    "Find the <ref>red apple</ref> in the image. Please provide the bounding box coordinates.": (
        "<ref>red apple</ref><box>(0.100,0.200),(0.300,0.400)</box>"
    ),
}
TEACHING_STEPS = 160


def section(title):
    text = SEED.read_text(encoding="utf-8")
    return re.search(rf"^## {title}$(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]


def blocks(title, language):
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


def teach(model, processor, image):
    samples = [
        parse_sample(
            {
                "id": question,
                "image": "image.jpg",
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": answer},
                ],
            }
        )
        for question, answer in LESSONS.items()
    ]
    encoded = [processor.encode_sample(sample, images=[image]) for sample in samples]
    batch = pad_batch(encoded, pad_id=processor.token_ids.pad, side="right")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=TEACHING_STEPS
    )
    model.train()
    for _ in range(TEACHING_STEPS):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()

    return loss.item()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seed")
    image = Image.new("RGB", (64, 48), "red")
    for name in IMAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    base = build_tiny_checkpoint(folder / "base")
    model, processor = load_model(base), Ovis2_5Processor.from_pretrained(base)
    torch.manual_seed(0)
    assert teach(model, processor, image) < 0.01
    save_checkpoint(model, processor, folder / MODEL)
    return folder


def test_every_block_of_inference_code_runs_as_written(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    torch.manual_seed(0)
    quick = blocks("Quick Start", "python")
    modes = blocks("Inference Modes", "python")
    assert (len(quick), len(modes)) == (1, 4)
    names = {}
    said = []
    for block in [*quick, *modes]:
        code = block.replace(SEED_IMPORT, OUR_IMPORT)
        names.pop("response", None)
        exec(compile(code, SEED.name, "exec"), names)
        said.append((names.get("response"), capsys.readouterr().out))
    (described, printed), (plain, _), (analyzed, _), (none, streamed), (found, _) = said
    assert printed == f"{described}\n"
    assert (described.thinking, described.answer) == ("It is red.", "A red square.")
    assert plain == "A red square."
    assert analyzed.thinking == "One colour."
    assert none is None
    assert streamed == LESSONS["Tell me a story about this image."]
    assert isinstance(found, GroundingResult)
    assert "<box>(0.100,0.200),(0.300,0.400)</box>" in found
    assert found.pixel_boxes == [pytest.approx((6.4, 9.6, 19.2, 19.2))]


def test_the_default_parameters_are_ours():
    text = next(block for block in blocks("Quick Start", "bash") if "OVIS25_MODEL" in block)
    values = {}
    for line in text.splitlines():
        if found := re.match(r"(\w+) ?= ?(.+?)(?:\s+#.*)?$", line):
            values[found[1]] = found[2].strip('"')
    fields = {**TrainConfig.model_fields, **PixelLimits.model_fields}
    for name in ("MULTIMODAL_MAX_LENGTH", "TEXT_MAX_LENGTH"):
        assert int(values[name]) == fields[name.lower()].default, name
    pixels = [name for name in values if name.endswith("_PIXELS")]
    assert len(pixels) == 5
    for name in pixels:
        assert int(values[name]) == fields[name.lower()].default, name
    thinking = ThinkingConfig()
    assert thinking.enable_thinking is (values["enable_thinking"] == "True")
    assert thinking.enable_thinking_budget is (values["enable_thinking_budget"] == "True")
    assert int(values["thinking_budget"]) == thinking.thinking_budget == BUDGET
    without, with_thinking = map(int, re.findall(r"\d+", values["max_new_tokens"]))
    assert without == MAX_NEW_TOKENS
    # 3096 is a typo: the seed's examples say 3072, the budget and room for an answer.
    assert (with_thinking, MAX_NEW_TOKENS_THINKING) == (3096, 3072)
    assert thinking.max_new_tokens == MAX_NEW_TOKENS_THINKING
    parameters = inspect.signature(Ovis25Inference).parameters
    assert parameters["model_path"].default == values["OVIS25_MODEL"] == MODEL
