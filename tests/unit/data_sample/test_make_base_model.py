import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ovis_model.config import PixelLimits
from ovis_model.data.annotations.formats import read_records
from ovis_model.data.media.images import load_image
from ovis_model.modeling.checkpoint import load_model
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor, pad_batch
from ovis_model.reports import sha256_of_folder
from ovis_model.tokens import ADDED_TOKENS, CLOSING_SENTENCE, TokenIds

DIGIT_PIXELS = PixelLimits(
    single_image_min_pixels=32 * 32,
    single_image_max_pixels=64 * 64,
    multiple_image_min_pixels=32 * 32,
    multiple_image_max_pixels=64 * 64,
    video_min_pixels=32 * 32,
    video_max_pixels=64 * 64,
)


@pytest.fixture(scope="module")
def tokenizer(base_model):
    return AutoTokenizer.from_pretrained(str(base_model), trust_remote_code=False)


def test_the_same_parameters_give_the_same_bytes_in_another_process(
    base_model, digits, params_file, run_script, tmp_path
):
    annotations = digits / "train" / "annotations.json"
    run_script(
        "make_base_model.py",
        *("--params", params_file, "--annotations", annotations, "--output", tmp_path / "again"),
    )
    assert sha256_of_folder(tmp_path / "again") == sha256_of_folder(base_model)


def test_the_folder_has_the_files_of_a_released_checkpoint_and_no_others(base_model):
    assert sorted(path.name for path in base_model.iterdir()) == [
        "added_tokens.json",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_transformers_alone_finds_the_tokens_by_name(base_model, tokenizer):
    added = json.loads((base_model / "added_tokens.json").read_text(encoding="utf-8"))
    first = len(json.loads((base_model / "vocab.json").read_text(encoding="utf-8")))
    assert [added[name] for name, _ in ADDED_TOKENS] == list(range(first, first + 26))
    assert all(tokenizer.convert_tokens_to_ids(name) == token for name, token in added.items())
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_skipping_special_tokens_keeps_the_thought(tokenizer):
    ids = tokenizer.encode("<|im_start|><think>\n7\n</think>\n\n7<|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\n7\n</think>\n\n7"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<ref>7</ref><box>(0.500,0.000),(0.999,0.500)</box>", id="grounding"),
        pytest.param("Ça coûte 12 €, 漢字, \U0001f642\r\n\ttab", id="letters never seen"),
        pytest.param(CLOSING_SENTENCE, id="closing sentence"),
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_are_split_one_by_one(tokenizer):
    assert tokenizer.tokenize("0.125") == ["0", ".", "1", "2", "5"]


def test_forcing_the_thought_to_close_costs_few_tokens(tokenizer):
    assert len(TokenIds.of(tokenizer).closing_sentence) <= 24


@pytest.mark.parametrize(
    ("messages", "thinking", "text"),
    [
        pytest.param(
            [{"role": "user", "content": "a <image> b"}],
            True,
            "<|im_start|>user\na  b<|im_end|>\n<|im_start|>assistant\n",
            id="a placeholder in text is no medium",
        ),
        pytest.param(
            [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image"},
                        {"type": "video"},
                        {"type": "text", "text": "What?"},
                    ],
                },
            ],
            False,
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n<image>\n<video>\nWhat?<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
            id="parts on lines of their own, empty thought when thinking is off",
        ),
        pytest.param(
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
                {"role": "user", "content": "c"},
            ],
            True,
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
            id="earlier thoughts are dropped",
        ),
    ],
)
def test_the_chat_template_writes(tokenizer, messages, thinking, text):
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    assert rendered == text


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        pytest.param({"role": "tool", "content": "x"}, "got: tool", id="unknown role"),
        pytest.param(
            {"role": "user", "content": [{"type": "audio"}]}, "got: {'type': 'audio'}", id="audio"
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "image"}]},
            "got: {'type': 'image'}",
            id="picture in an answer",
        ),
    ],
)
def test_the_chat_template_refuses(tokenizer, message, complaint):
    with pytest.raises(Exception, match=complaint):  # jinja2's own error type
        tokenizer.apply_chat_template([message], tokenize=False)


def test_the_model_is_small_and_reads_a_sample_of_every_kind(base_model, digits):
    model = load_model(base_model)
    processor = Ovis2_5Processor.from_pretrained(base_model).with_settings(
        pixel_limits=DIGIT_PIXELS
    )
    root = digits / "train"
    samples = [record.parse() for record in read_records(root / "annotations.json")]
    encoded = [
        processor.encode_sample(
            sample,
            images=[load_image(root / path) for path in sample.image],
            frames=[load_image(root / path) for path in sample.frames] or None,
        )
        for sample in samples
        if not isinstance(sample.video, str)
    ]
    assert max(len(sample.input_ids) for sample in encoded) < 128
    batch = pad_batch(encoded[::4], pad_id=processor.token_ids.pad, side="right")
    with torch.no_grad():
        output = model(**batch)
    vocab_size = model.config.llm_config.vocab_size
    # An untrained model guesses: its loss is that of a uniform choice among all tokens.
    assert output.loss.item() == pytest.approx(math.log(vocab_size), abs=0.5)
    assert model.num_parameters() < 5e6


def test_both_files_that_carry_the_chat_template_agree_with_its_source(base_model):
    template = json.loads((base_model / "chat_template.json").read_text(encoding="utf-8"))
    config = json.loads((base_model / "tokenizer_config.json").read_text(encoding="utf-8"))
    source = Path(__file__).parents[3] / "data" / "sample" / "chat_template.jinja"
    assert template["chat_template"] == config["chat_template"] == source.read_text("utf-8")
