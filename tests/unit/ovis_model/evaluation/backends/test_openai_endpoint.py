"""A served model is asked what ours is: words, pictures, settings, thinking in two phases."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ovis_model.errors import ConfigError
from ovis_model.evaluation.backends.openai_endpoint import (
    Endpoint,
    OpenAIBackend,
    continuation_template,
    read_api_key,
    with_data_urls,
)
from ovis_model.evaluation.running import ask
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.pictures import Media
from ovis_model.processing.processing_ovis2_5 import Ovis2_5Processor
from ovis_model.tokens import CLOSING_SENTENCE
from tests.support.exams import SETTINGS, exam, question
from tests.support.stub_server import serving

QUESTIONS = [question(0, colour=9), question(1, colour=None, text="Why?")]
PIXELS = (1024, 4000)
DIRECT = GenerationSettings(max_new_tokens=16)
SAMPLED = replace(
    SETTINGS, do_sample=True, temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05
)


@pytest.fixture(scope="session")
def processor(tiny):
    return Ovis2_5Processor.from_pretrained(tiny)


def asked(stub, tiny, working, *, questions=QUESTIONS, settings=DIRECT, **endpoint):
    """Ask the server; return the rows."""
    patience = {"retries": 2, "first_wait_s": 0.001, **endpoint}
    backend = OpenAIBackend.load(
        tiny, seen_as=tiny, endpoint=Endpoint(stub.url, "ovis", **patience)
    )
    asked_exam = replace(exam(questions, settings=settings), pixels=PIXELS)
    return ask([asked_exam], backend, working=working).rows["digits"]


@pytest.mark.parametrize("settings", [DIRECT, SETTINGS], ids=["direct", "thinking"])
def test_the_prompt_is_that_of_our_own_model(processor, tiny, tmp_path, settings):
    with serving(processor, lambda seen: ("7", "stop")) as stub:
        asked(stub, tiny, tmp_path, settings=settings, concurrency=1)
    ours = [
        processor.render_prompt(one.messages, enable_thinking=settings.enable_thinking)
        for one in QUESTIONS
    ]
    assert [seen.prompt for seen in stub.seen] == ours
    assert [seen.sizes for seen in stub.seen] == [[(32, 32)], []]


def test_settings_reach_the_server(processor, tiny, tmp_path):
    with serving(processor, lambda seen: ("7", "stop")) as stub:
        asked(stub, tiny, tmp_path / "1", settings=SAMPLED, concurrency=1)
        asked(stub, tiny, tmp_path / "2", settings=DIRECT, concurrency=1)
    sampled, _, direct, _ = (seen.body for seen in stub.seen)
    sent = {name: sampled[name] for name in ("temperature", "top_p", "top_k", "max_tokens")}
    assert sent == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4}
    assert sampled["repetition_penalty"] == 1.05
    assert sampled["mm_processor_kwargs"] == {"min_pixels": 1024, "max_pixels": 4000}
    assert sampled["chat_template_kwargs"] == {"enable_thinking": True}
    assert sampled["stream"] is False
    assert isinstance(sampled["seed"], int)
    assert direct["temperature"] == 0
    assert direct["max_tokens"] == 16
    assert not {"top_p", "top_k", "seed", "repetition_penalty", "stop"} & set(direct)


def test_a_thought_that_spent_its_budget_is_closed_and_continued(processor, tiny, tmp_path):
    def reply(seen):
        return ("7", "stop") if "continue_final_message" in seen.body else ("<think>hm", "length")

    with serving(processor, reply) as stub:
        (row,) = asked(stub, tiny, tmp_path, settings=SETTINGS, questions=QUESTIONS[:1])
    first, second = stub.seen
    assert second.prompt == f"{first.prompt}<think>hm{CLOSING_SENTENCE}"
    num_closing = len(processor.token_ids.closing_sentence)
    assert second.body["max_tokens"] == SETTINGS.max_new_tokens - 4 - num_closing
    assert second.body["add_generation_prompt"] is False
    assert (row.thinking, row.response, row.score) == ("hm", "7", 1)
    assert row.raw_output == f"<think>hm{CLOSING_SENTENCE}7"
    assert row.flags.forced_close
    assert row.tokens.thinking == len(processor.tokenizer.encode("<think>hm"))
    assert row.tokens.generated == row.tokens.thinking + num_closing + row.tokens.answer


def test_an_answer_that_was_cut_goes_on_without_the_sentence(processor, tiny, tmp_path):
    def reply(seen):
        again = "continue_final_message" in seen.body
        return ("7", "length") if again else ("<think>hm</think>\n\nIt is ", "length")

    with serving(processor, reply) as stub:
        (row,) = asked(stub, tiny, tmp_path, settings=SETTINGS, questions=QUESTIONS[:1])
    first, second = stub.seen
    assert second.prompt == f"{first.prompt}<think>hm</think>\n\nIt is "
    assert second.body["max_tokens"] == SETTINGS.max_new_tokens - 4
    assert (row.response, row.finish_reason) == ("It is 7", "length")
    assert row.flags.answer_truncated
    assert not row.flags.forced_close


ENDINGS = {
    "closed": ("<think>hm</think>\n\n7", "hm", "7", None),
    "parted": ({"content": "7", "reasoning_content": "hm"}, "hm", "7", None),
    "parted and open": ({"content": None, "reasoning": "hm"}, "hm", "", "unclosed_thinking"),
    "open": ("<think>hm", "hm", "", "unclosed_thinking"),
    "no thought": ("7", "", "7", "no_think_block"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_thought_and_answer_are_told_apart(processor, tiny, tmp_path, ending):
    said, thinking, response, flag = ENDINGS[ending]
    with serving(processor, lambda seen: (said, "stop")) as stub:
        (row,) = asked(stub, tiny, tmp_path, settings=SETTINGS, questions=QUESTIONS[:1])
    assert (row.thinking, row.response) == (thinking, response)
    assert [name for name, raised in row.flags.model_dump().items() if raised] == (
        [] if flag is None else [flag]
    )


def test_visual_tokens_are_what_the_text_does_not_explain(processor, tiny, tmp_path):
    with serving(processor, lambda seen: ("7", "stop")) as stub:
        rows = asked(stub, tiny, tmp_path)
    assert [row.tokens.visual for row in rows] == [3, 0]


@pytest.mark.parametrize("trouble", [(500, "oh"), (503, "busy"), (0, "")])
def test_trouble_of_the_server_is_tried_again(processor, tiny, tmp_path, trouble):
    replies = [trouble, ("7", "stop")]
    with serving(processor, lambda seen: replies.pop(0)) as stub:
        (row,) = asked(stub, tiny, tmp_path, questions=QUESTIONS[:1])
    assert (row.response, len(stub.seen)) == ("7", 2)


def test_trouble_that_stays_is_a_row_with_the_reason(processor, tiny, tmp_path):
    with serving(processor, lambda seen: (500, "out of memory")) as stub:
        (row,) = asked(stub, tiny, tmp_path, questions=QUESTIONS[:1])
    assert row.status == "error"
    assert row.error == ("the server did not answer in 3 attempts; last 500: out of memory")
    assert len(stub.seen) == 3


def test_silence_is_a_row_with_the_reason(processor, tiny, tmp_path):
    with serving(processor, lambda seen: ("7", "stop")) as stub:
        url = stub.url
    gone = replace(stub, url=url)
    (row,) = asked(gone, tiny, tmp_path, questions=QUESTIONS[:1], retries=0)
    assert row.error.startswith("the server did not answer in 1 attempts; last ConnectError")


def test_a_question_that_the_server_refuses_is_not_tried_again(processor, tiny, tmp_path):
    with serving(processor, lambda seen: (400, {"error": "too long"})) as stub:
        rows = asked(stub, tiny, tmp_path)
    assert {row.status for row in rows} == {"error"}
    assert "refuses the question with 400" in rows[0].error
    assert "too long" in rows[0].error
    assert len(stub.seen) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_every_question_would_get_ends_the_run(processor, tiny, tmp_path, status):
    with (
        serving(processor, lambda seen: (status, "no")) as stub,
        pytest.raises(ConfigError, match=rf"answers {status} to /v1/chat/completions"),
    ):
        asked(stub, tiny, tmp_path)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((200, "<html>"), "no chat completion .*<html>"),
        ((200, {"choices": []}), "no chat completion"),
        (("7", "content_filter"), "ended the answer with 'content_filter'"),
    ],
)
def test_an_answer_that_is_none_is_a_row_with_the_reason(
    processor, tiny, tmp_path, reply, message
):
    with serving(processor, lambda seen: reply) as stub:
        (row,) = asked(stub, tiny, tmp_path, questions=QUESTIONS[:1])
    assert re.search(message, row.error)


def test_a_template_that_drops_the_thought_is_refused_by_the_server(processor, tiny, tmp_path):
    """What the continuation's own template is for."""

    def reply(seen):
        return "<think>hm", "length"

    with serving(processor, reply) as stub:
        original = stub._render

        def render(seen):
            seen.body.pop("chat_template", None)
            return original(seen)

        stub._render = render
        (row,) = asked(stub, tiny, tmp_path, settings=SETTINGS, questions=QUESTIONS[:1])
    assert row.status == "error"
    assert "the final message does not appear in the chat" in row.error


def test_the_key_is_sent_and_written_nowhere(processor, tiny, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("A_KEY", "s3cret")
    key = read_api_key("A_KEY")
    with serving(processor, lambda seen: (500, "no")) as stub:
        rows = asked(stub, tiny, tmp_path, api_key=key)
    assert {seen.headers["authorization"] for seen in stub.seen} == {"Bearer s3cret"}
    written = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    endpoint = Endpoint(stub.url, "ovis", api_key=key)
    assert "s3cret" not in written + caplog.text + repr(endpoint) + repr(rows)
    assert read_api_key("ANOTHER_KEY") is None


def test_who_logs_in_is_not_part_of_the_provenance(tiny, processor):
    backend = OpenAIBackend(Endpoint("http://me:pw@host:8000/v1", "ovis"), processor, "m")
    assert backend.provenance["endpoint"] == "http://host:8000/v1"


def test_frames_travel_as_one_video():
    frames = tuple(Image.fromarray(np.full((8, 8, 3), n, dtype=np.uint8)) for n in (0, 99))
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Why?"}]}
    (sent,) = with_data_urls([message], Media(frames=frames))
    video, text = sent["content"]
    assert video["video_url"]["url"].startswith("data:video/jpeg;base64,")
    assert video["video_url"]["url"].count(",") == 2
    assert text == {"type": "text", "text": "Why?"}


def test_the_official_template_keeps_a_thought_that_goes_on():
    official = "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{{- content }}"
    assert continuation_template(official) == "{%- set content = content %}{{- content }}"
