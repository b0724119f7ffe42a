"""Ids, labels and prompts equal the reference's exactly."""

from types import SimpleNamespace

import pytest
from jinja2 import TemplateError

from ovis_model.data.schema import parse_sample
from ovis_model.errors import DataError
from ovis_model.processing.conversation import format_conversation
from ovis_model.processing.tokenization import tokenize_with_placeholders
from ovis_model.processing.visual_tokens import expand_placeholders
from ovis_model.tokens import IGNORE_ID, IMAGE_PLACEHOLDER_ID, VIDEO_PLACEHOLDER_ID

from .conftest import needs_golden, read

pytestmark = needs_golden

FORMATS = read("conversation/train_format.json")
TEMPLATE = read("conversation/chat_template.json")


def named(entries):
    return [pytest.param(entry, id=entry["name"]) for entry in entries]


def training(*, fails):
    entries = FORMATS.get("training", [])
    return named(entry for entry in entries if ("reference_error" in entry) == fails)


def turns(case):
    return [SimpleNamespace(role=t["from"], value=t["value"]) for t in case["conversations"]]


# ---- training -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", training(fails=False))
def test_ids_and_labels_are_equal(case, tokenizer):
    ids, labels = format_conversation(turns(case), tokenizer)
    assert (ids, labels) == (case["input_ids"], case["labels"])
    assert all(label in (IGNORE_ID, token) for token, label in zip(ids, labels, strict=True))
    learned = tokenizer.decode([label for label in labels if label >= 0])
    assert learned == case["labelled_text"]


@pytest.mark.parametrize("case", training(fails=False))
def test_the_text_of_a_conversation_is_the_reference_prompt(case, tokenizer):
    """All ids but the placeholders decode to it; a last newline is neither read nor learned."""
    ids, _ = format_conversation(turns(case), tokenizer)
    pieces: list[list[int] | str] = [[]]
    names = {IMAGE_PLACEHOLDER_ID: "<image>", VIDEO_PLACEHOLDER_ID: "<video>"}
    for token in ids:
        if token in names:
            pieces += [names[token], []]
        else:
            pieces[-1].append(token)
    text = "".join(p if isinstance(p, str) else tokenizer.decode(p) for p in pieces)
    ends_with_answer = case["conversations"][-1]["from"] == "gpt"
    assert text + ("\n" if ends_with_answer else "") == case["prompt"]


@pytest.mark.parametrize("case", training(fails=True))
def test_what_the_reference_fails_on_is_an_error_in_words(case, tokenizer):
    """Of the data where it can be: a turn without text does not even become a sample."""

    def read_and_format():
        sample = parse_sample({"id": 1, "conversations": case["conversations"]})
        return format_conversation(sample.conversations, tokenizer)

    with pytest.raises(DataError):
        read_and_format()


def test_the_special_ids_are_the_reference_ones():
    ids = {"ignore": IGNORE_ID, "<image>": IMAGE_PLACEHOLDER_ID, "<video>": VIDEO_PLACEHOLDER_ID}
    assert ids == FORMATS["ids"]


# ---- inference ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", named(FORMATS.get("inference_with_generation_preface", [])))
def test_prompts_with_a_generation_preface_are_equal(case, tokenizer):
    preface = case["generation_preface"]
    ids, labels = format_conversation(turns(case), tokenizer, generation_preface=preface)
    assert (ids, labels) == (case["input_ids"], case["labels"])
    assert case["labelled_text"] == ""


def render(processor, case, **arguments):
    return processor.tokenizer.apply_chat_template(
        case["messages"], chat_template=processor.chat_template, tokenize=False, **arguments
    )


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id="-".join(
                [
                    case["name"],
                    "think" if case["enable_thinking"] else "no_think",
                    "prompt" if case["add_generation_prompt"] else "history",
                ]
            ),
        )
        for case in TEMPLATE.get("cases", [])
    ],
)
def test_chat_prompts_render_and_tokenize_equally(case, processor):
    thinking = case["enable_thinking"]
    if case["add_generation_prompt"]:
        text = processor.render_prompt(case["messages"], enable_thinking=thinking)
    else:
        text = render(processor, case, enable_thinking=thinking, add_generation_prompt=False)
    assert text == case["text"]
    assert tokenize_with_placeholders(text, processor.tokenizer) == case["raw_input_ids"]


def test_a_template_that_is_not_told_lets_the_model_think(processor):
    expected = TEMPLATE["enable_thinking_not_passed"]
    case = next(c for c in TEMPLATE["cases"] if c["name"] == expected["name"])
    assert render(processor, case, add_generation_prompt=True) == expected["text"]
    assert processor.render_prompt(case["messages"], enable_thinking=True) == expected["text"]


@pytest.mark.parametrize("case", named(TEMPLATE.get("errors", [])))
def test_messages_that_the_template_refuses_are_refused(case, processor):
    with pytest.raises((ValueError, TemplateError), match=r"role|type"):
        processor.encode_prompt(case["messages"], enable_thinking=False)


# ---- placeholders ---------------------------------------------------------------------------


def test_placeholders_expand_equally():
    cases = read("conversation/placeholder_expansion.json")["cases"]
    assert {case["kind"] for case in cases} == {"image", "video"}
    for case in cases:
        grids = [tuple(grid) for grid in case["grid_thws"]]
        ids, labels = expand_placeholders(case["raw"], case["raw"], grids)
        assert [int(token) for token in ids] == case["input_ids"]
        assert [int(label) for label in labels] == case["labels"]
