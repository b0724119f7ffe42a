"""Each turn sees the whole conversation, exactly as if it were encoded at once."""

import asyncio

import pytest
import torch
from PIL import Image

from ovis_model.inference.chat import ChatSession
from ovis_model.inference.messages import question_message, system_message
from ovis_model.inference.results import Usage
from ovis_model.inference.thinking import ParsedOutput

GREEDY = {"do_sample": False, "max_new_tokens": 6}
THINKING = {**GREEDY, "enable_thinking": True, "thinking_budget": 4, "max_new_tokens": 40}


@pytest.fixture
def red():
    return Image.new("RGB", (40, 50), "red")


@pytest.fixture
def blue():
    return Image.new("RGB", (64, 64), "blue")


def prompt_of(chat, text, **options):
    """The encoded prompt of a turn that is not taken."""
    return chat._send(text, **options).prompt


def test_the_third_turn_is_encoded_as_the_whole_history_at_once(ovis, red, blue):
    chat = ovis.chat(system="Be brief.")
    first = chat.send("Which digit is this?", images=[red], **THINKING)
    second = chat.send("And this one?", images=[blue], **GREEDY)
    third = prompt_of(chat, "Same?", **THINKING)
    history = [
        system_message("Be brief."),
        question_message("Which digit is this?", num_images=1),
        {"role": "assistant", "content": first.text},
        question_message("And this one?", num_images=1),
        {"role": "assistant", "content": second.text},
        question_message("Same?"),
    ]
    whole = ovis.processor.encode_prompt(history, images=[red, blue], enable_thinking=True)
    assert third.input_ids.tolist() == whole.input_ids.tolist()
    assert torch.equal(third.pixel_values, whole.pixel_values)
    assert torch.equal(third.grid_thws, whole.grid_thws)


def test_past_thoughts_are_left_out(ovis):
    chat = ovis.chat()
    reply = chat.send("Why?", **THINKING)
    assert reply.thinking_closed == "forced"
    ids = prompt_of(chat, "How?", **THINKING).input_ids.tolist()
    assert ovis.processor.token_ids.think_close not in ids
    said = ovis.processor.tokenizer.decode(ids)
    assert f"assistant\n{reply.text.split('</think>')[-1].lstrip()}<|im_end|>" in said


def test_a_thought_that_never_closed_is_left_out_too(ovis):
    chat = ovis.chat()
    turn = chat._send("Why?", **GREEDY)
    output = ParsedOutput("<think>so", "so", "", "length", "never", 2, 0, 2)
    assert turn.wrap(output, Usage.of(turn.prompt, output), turn.settings).answer == ""
    assert chat.messages[-1] == {"role": "assistant", "content": ""}


def test_a_streamed_turn_says_the_same_and_becomes_history(ovis, red):
    spoken, streamed = ovis.chat(), ovis.chat()
    for text, images in (("What is it?", [red]), ("Why?", ())):
        reply = spoken.send(text, images, **THINKING)
        pieces = streamed.send_streaming(text, images, **THINKING)
        assert "".join(pieces) == reply
        assert pieces.result == reply
    assert streamed.messages == spoken.messages


def test_a_turn_is_streamed_by_async_for(ovis):
    chat = ovis.chat()

    async def read():
        return [piece async for piece in chat.send_streaming("Why?", **GREEDY)]

    assert "".join(asyncio.run(read())) == ovis.chat().send("Why?", **GREEDY)
    assert len(chat.messages) == 2


def test_a_stream_that_is_closed_leaves_the_conversation_as_it_was(ovis, red):
    chat = ovis.chat()
    with chat.send_streaming("What is it?", [red], **THINKING) as pieces:
        next(pieces)
    assert chat.messages == ()
    chat.send("Why?", **GREEDY)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]


def test_two_turns_at_once_are_refused(ovis):
    chat = ovis.chat()
    pieces = chat.send_streaming("Why?", **GREEDY)
    next(pieces)
    chat.send("How?", **GREEDY)
    with pytest.raises(ValueError, match="read or close one stream before the next turn"):
        list(pieces)


def test_a_video_stays_in_the_conversation(ovis, red, blue):
    chat = ovis.chat()
    first = chat.send("What happens?", video=[red, red], **GREEDY)
    second = chat.send("Why?", **GREEDY)
    assert first.usage.visual_tokens == second.usage.visual_tokens == 2 * 2 + 2
    with pytest.raises(ValueError, match="already has a video"):
        chat.send("And now?", video=[blue], **GREEDY)
    with pytest.raises(ValueError, match="images or one video, not both"):
        chat.send("And this?", images=[blue], **GREEDY)


def test_images_and_then_a_video_are_refused(ovis, red):
    chat = ovis.chat()
    chat.send("What is it?", images=[red], **GREEDY)
    with pytest.raises(ValueError, match="images or one video, not both"):
        chat.send("And now?", video=[red], **GREEDY)


def test_a_refused_turn_leaves_the_conversation_as_it_was(ovis):
    chat = ovis.chat()
    with pytest.raises(ValueError, match="the prompt is empty"):
        chat.send(" ", **GREEDY)
    assert chat.messages == ()


def test_the_system_message_belongs_to_the_conversation(ovis):
    with pytest.raises(ValueError, match=r"given to chat\(system=...\)"):
        ovis.chat().send("Why?", system="Be brief.")


def test_pixel_limits_hold_for_the_conversation(ovis):
    large = Image.new("RGB", (640, 640))
    chat = ovis.chat(max_pixels=128 * 128)
    assert isinstance(chat, ChatSession)
    assert chat.send("Why?", [large], **GREEDY).usage.visual_tokens == 16 + 2
