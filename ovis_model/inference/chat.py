"""A conversation with an Ovis2.5: each turn may show more images, and sees all that came before.

    chat = ovis.chat(system="Answer in one word.")
    chat.send("Which digit is this?", images=["seven.png"])
    chat.send("And this one?", images=["two.png"])

Every turn's prompt is what one encoding of the whole conversation gives: past thoughts are left
out, as the chat template does.
"""

# The arguments are those of Ovis25Inference's methods.
# ruff: noqa: PLR0913

from collections.abc import Sequence
from typing import Unpack

from ovis_model.inference.defaults import (
    BUDGET,
    MAX_NEW_TOKENS,
    NUM_FRAMES,
    Budget,
    Options,
    given,
)
from ovis_model.inference.engine import (
    OWN_PIXELS,
    Engine,
    Pixels,
    Question,
    answered,
    first_messages,
    streamed,
)
from ovis_model.inference.generation import GenerationSettings
from ovis_model.inference.messages import Message, system_message
from ovis_model.inference.pictures import ImageInput, Media, VideoInput, open_media
from ovis_model.inference.results import InferenceResult, Usage
from ovis_model.inference.thinking import ParsedOutput


class ChatSession:
    """Turns so far; `send` and `send_streaming` add one."""

    def __init__(
        self, engine: Engine, *, system: str | None = None, pixels: Pixels = OWN_PIXELS
    ) -> None:
        """Begin a conversation.

        Args:
            engine: What answers.
            system: A system message, or None.
            pixels: Smallest and largest area of a picture.
        """
        self.engine = engine
        self._pixels = pixels
        self._messages: list[Message] = [] if system is None else [system_message(system)]
        self._media = Media()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The finished turns as chat-template messages."""
        return tuple(self._messages)

    def _send(
        self,
        text: str,
        images: Sequence[ImageInput] = (),
        video: VideoInput | None = None,
        *,
        enable_thinking: bool = False,
        enable_thinking_budget: bool = False,
        thinking_budget: Budget = BUDGET,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = 0.6,
        do_sample: bool = True,
        num_frames: int = NUM_FRAMES,
        **options: Unpack[Options],
    ) -> Question[InferenceResult]:
        """Say something and hear the answer.

        The turn becomes part of the conversation when its answer is complete; a stream that is
        closed before, or an error, leaves the conversation as it was.

        Args:
            text: What the user says.
            images: What the user shows with it.
            video: A video; a conversation has at most one, and then no images.
            enable_thinking: Let the model think before it answers.
            enable_thinking_budget: Limit the thought; passing `thinking_budget` does so too.
            thinking_budget: Tokens after which the thought is closed.
            max_new_tokens: Tokens in all; not given, 3072 with thinking and 1024 without.
            temperature: Of sampling.
            do_sample: Sample; False takes the likeliest token.
            num_frames: Frames taken of a video; not given, as many as in training.
            **options: See `Options`.

        Raises:
            ValueError: If the arguments cannot work, or the conversation would show images and a
                video, or two videos.
            DataError: If a picture cannot be used.
        """
        if options.get("system") is not None:
            raise ValueError("a conversation's system message is given to chat(system=...)")
        thinking = (enable_thinking, enable_thinking_budget, thinking_budget)
        choose = self.engine.settings.choose
        settings = choose(thinking, max_new_tokens, temperature, do_sample, options)
        sampling = self.engine.processor.frame_sampling
        new = open_media(images, video, sampling, given(num_frames))
        [message] = first_messages(text, new)
        media = _together(self._media, new)
        messages = [*self._messages, message]
        prompt = self.engine.encode(messages, settings, media, self._pixels)
        turn = len(self._messages)

        def record(
            output: ParsedOutput, usage: Usage, settings: GenerationSettings
        ) -> InferenceResult:
            if len(self._messages) != turn:
                raise ValueError(
                    "another turn was finished while this answer was being written; read or "
                    "close one stream before the next turn"
                )
            # The template cannot know a thought that never closed for what it is.
            said = "" if output.thinking_closed == "never" else output.text
            self._messages += [message, {"role": "assistant", "content": said}]
            self._media = media
            return InferenceResult(output, usage, settings)

        return Question(prompt, settings, record)

    send = answered(_send)
    send_streaming = streamed(_send)


def _together(shown: Media, new: Media) -> Media:
    """Add what a turn shows to what was shown before."""
    if new.frames is not None and shown.frames is not None:
        raise ValueError("the conversation already has a video; begin another one for this video")
    if (new.frames is not None and shown.images) or (shown.frames is not None and new.images):
        raise ValueError(
            "a conversation shows images or one video, not both; begin another one for the other"
        )
    frames = shown.frames if new.frames is None else new.frames
    return Media(images=(*shown.images, *new.images), frames=frames)
