"""What is learned of each kind of sample, written by hand, in the batch that the model gets."""

import pytest
from PIL import Image

from ovis_model.data.collator import NUM_SUPERVISED, DataCollatorForMultimodalDataset
from ovis_model.data.dataset import ConversationDataset
from ovis_model.data.schema import parse_sample
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.tokens import IGNORE_ID
from tests.support.tiny_model import build_tiny_checkpoint

USER, GPT = "<|im_start|>user\n", "<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"
THOUGHT = "<think>\nA loop.\n</think>\n\n8"
BOX = "<ref>red</ref><box>(0.100,0.200),(0.300,0.400)</box>"
POINT = "<point>(0.125,0.500)</point>"

#: Media, turns, what is learned, and all text that is read; "*" stands for pictures.
KINDS = {
    "one image": (
        {"image": "a.png"},
        [("human", "<image>\nWhat?"), ("gpt", "8")],
        ["8<|im_end|>"],
        f"{USER}*\nWhat?<|im_end|>\n{GPT}{NO_THOUGHT}8<|im_end|>",
    ),
    "several images": (
        {"image": ["a.png", "b.png"]},
        [("human", "<image>\n<image>\nBoth?"), ("gpt", "8")],
        ["8<|im_end|>"],
        f"{USER}*\n*\nBoth?<|im_end|>\n{GPT}{NO_THOUGHT}8<|im_end|>",
    ),
    "an image in the middle of a text": (
        {"image": "a.png"},
        [("human", "Is <image> an 8?"), ("gpt", "Yes")],
        ["Yes<|im_end|>"],
        f"{USER}Is * an 8?<|im_end|>\n{GPT}{NO_THOUGHT}Yes<|im_end|>",
    ),
    "a video": (
        {"video": ["a.png", "b.png"]},
        [("human", "<video>\nWhat?"), ("gpt", THOUGHT)],
        [f"{THOUGHT}<|im_end|>"],
        f"{USER}*\nWhat?<|im_end|>\n{GPT}{THOUGHT}<|im_end|>",
    ),
    "text alone": (
        {},
        [("human", "Hi"), ("gpt", "Ho")],
        ["Ho<|im_end|>"],
        f"{USER}Hi<|im_end|>\n{GPT}{NO_THOUGHT}Ho<|im_end|>",
    ),
    "a system prompt": (
        {"image": "a.png"},
        [("system", "Be brief."), ("human", "<image>\nWhat?"), ("gpt", "8")],
        ["8<|im_end|>"],
        (
            f"<|im_start|>system\nBe brief.<|im_end|>\n{USER}*\nWhat?<|im_end|>\n"
            f"{GPT}{NO_THOUGHT}8<|im_end|>"
        ),
    ),
    "a thought": (
        {},
        [("human", "What?"), ("gpt", THOUGHT)],
        [f"{THOUGHT}<|im_end|>"],
        f"{USER}What?<|im_end|>\n{GPT}{THOUGHT}<|im_end|>",
    ),
    "an empty thought that was written": (
        {},
        [("human", "What?"), ("gpt", f"{NO_THOUGHT}8")],
        [f"{NO_THOUGHT}8<|im_end|>"],
        f"{USER}What?<|im_end|>\n{GPT}{NO_THOUGHT}8<|im_end|>",
    ),
    "several turns, with and without a thought": (
        {"image": "a.png"},
        [("human", "<image>\nA?"), ("gpt", THOUGHT), ("human", "B?"), ("gpt", "7")],
        [f"{THOUGHT}<|im_end|>", "7<|im_end|>"],
        (
            f"{USER}*\nA?<|im_end|>\n{GPT}{THOUGHT}<|im_end|>\n"
            f"{USER}B?<|im_end|>\n{GPT}{NO_THOUGHT}7<|im_end|>"
        ),
    ),
    "an answer that is only read": (
        {},
        [("human", "A?"), ("ignored_gpt", "no"), ("human", "B?"), ("gpt", "yes")],
        ["yes<|im_end|>"],
        f"{USER}A?<|im_end|>\n{GPT}no<|im_end|>\n{USER}B?<|im_end|>\n{GPT}{NO_THOUGHT}yes<|im_end|>",
    ),
    "a box": (
        {"image": "a.png"},
        [("human", "<image>\nFind <ref>red</ref>."), ("gpt", BOX)],
        [f"{BOX}<|im_end|>"],
        f"{USER}*\nFind <ref>red</ref>.<|im_end|>\n{GPT}{NO_THOUGHT}{BOX}<|im_end|>",
    ),
    "a point": (
        {"image": "a.png"},
        [("human", "<image>\nFind red."), ("gpt", POINT)],
        [f"{POINT}<|im_end|>"],
        f"{USER}*\nFind red.<|im_end|>\n{GPT}{NO_THOUGHT}{POINT}<|im_end|>",
    ),
}

#: Makes the sample under test the shorter one of its batch, which is padded.
LONGER = [{"from": "human", "value": "Hi " * 200}, {"from": "gpt", "value": "Ho"}]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(folder / name)
    return folder, Ovis2_5Processor.from_pretrained(build_tiny_checkpoint(folder / "base"))


def runs_of(ids, labels, tokenizer):
    """Return the learned runs and all text, with one "*" for each medium."""
    decode = tokenizer.backend_tokenizer.decode
    learned, run, text, plain = [], [], "", []
    for token, label in zip([*ids, -1], [*labels, IGNORE_ID], strict=True):
        if label != IGNORE_ID:
            assert label == token
            run.append(label)
        elif run:
            learned.append(decode(run, skip_special_tokens=False))
            run = []
        if token >= 0:
            plain.append(token)
        elif plain:
            text += decode(plain, skip_special_tokens=False) + "*"
            plain = []
    return learned, text.removesuffix("*")


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_answers_of_each_kind_are_learned(world, kind):
    folder, processor = world
    media, turns, learned, read = KINDS[kind]
    conversation = [{"from": role, "value": value} for role, value in turns]
    sample = parse_sample({"id": kind, **media, "conversations": conversation})
    longer = parse_sample({"id": "longer", "conversations": LONGER})
    dataset = ConversationDataset([sample, longer], media_root=folder, processor=processor)
    collate = DataCollatorForMultimodalDataset(pad_id=processor.token_ids.pad)
    batch = collate([dataset[0], dataset[1]])

    length = len(dataset[0].encoded.input_ids)
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert set(labels[length:]) <= {IGNORE_ID}  # padding
    assert runs_of(ids[:length], labels[:length], processor.tokenizer) == (learned, read)
    assert batch[NUM_SUPERVISED] == int((batch["labels"] != IGNORE_ID).sum())
