r"""How a question is put to Ovis2.5: the words that its published numbers were measured with.

    verbatim             the question as it is, `<image>` where an image belongs
    question             images, then the question as it is
    multiple_choice      hint, question, `A. text` lines and FINAL_ANSWER
    interleaved_choice   the same, with images where `<image 1>` stands (MMMU)
    option_letter        the same, but asking for the letter alone (AI2D)
    yes_no               the question, " Please answer yes or no." and FINAL_ANSWER
    final_answer         the question and FINAL_ANSWER (mathematics)
    short_answer         the question, asking for a word or phrase
    video_choice         Video-MME's words around question and candidates
    grounding            the question as a `<ref>`, asking for a box

The chat template joins parts with line breaks, so that images come on lines of their own.

Source: VLMEvalKit @ 6f67cef5, `Ovis2_5.build_prompt` and the benchmarks' own `build_prompt`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ovis_model.evaluation.item import BenchmarkItem
from ovis_model.inference.messages import REQUESTS, Message, grounding_prompt, user_message
from ovis_model.tokens import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER

PromptStyle = Literal[
    "verbatim",
    "question",
    "multiple_choice",
    "interleaved_choice",
    "option_letter",
    "yes_no",
    "final_answer",
    "short_answer",
    "video_choice",
    "grounding",
]
#: Where a prompt asks for it, only what follows "Final answer:" is marked.
FINAL_ANSWER = "End your response with 'Final answer: '."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."
YES_NO = " Please answer yes or no."
SHORT_ANSWER = "Answer the question using a single word or phrase."
ABOUT_FRAMES = (
    "\nThese are the frames of a video. Select the best answer to the following multiple-choice "
    "question based on the video. Respond with only the letter (A, B, C, or D) of the correct "
    "option.\n"
)
_IMAGE_NUMBER = re.compile(r"<image (\d+)>")


@dataclass(frozen=True)
class Prompt:
    """A question as a chat-template message, and what it shows.

    Attributes:
        message: Of the user; one part of type image or video for each medium.
        image: Names of the images, in the order of the message; one may come twice.
        video: The video file, or its frames.
    """

    message: Message
    image: tuple[str, ...] = ()
    video: str | tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """The user's turn as the chat template writes it."""
        words = {"image": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}
        parts = self.message["content"]
        return "\n".join(part.get("text", words.get(part["type"], "")) for part in parts)

    @property
    def asks_for_final_answer(self) -> bool:
        """Whether only what follows "Final answer:" is marked."""
        return FINAL_ANSWER in self.text


def build_prompt(item: BenchmarkItem, style: PromptStyle) -> Prompt:
    """Put a question.

    Args:
        item: What is asked, and what it shows.
        style: See the module's table.

    Raises:
        ValueError: If the question speaks of images that are not there.
    """
    if style == "verbatim":
        return _prompt(item, user_message(item.question)["content"])
    if style == "interleaved_choice":
        return _interleaved(item, _WORDS["multiple_choice"](item))
    parts = [{"type": "text", "text": _WORDS[style](item)}]
    if style == "video_choice":
        parts.insert(0, {"type": "text", "text": ABOUT_FRAMES})
    return _prompt(item, [*_media_parts(item), *parts])


def check_placeholders(item: BenchmarkItem) -> None:
    """Check that a question says where each of its media belongs.

    Raises:
        ValueError: If it names more or fewer than the item has, or not on lines of their own.
    """
    for placeholder, media in (
        (IMAGE_PLACEHOLDER, item.image),
        (VIDEO_PLACEHOLDER, item.videos),
    ):
        in_text = item.question.count(placeholder)
        if in_text != len(media):
            raise ValueError(
                f"the question has {in_text} {placeholder} placeholder(s) but the item "
                f"carries {len(media)} such file(s)"
            )
    user_message(item.question)


def _prompt(item: BenchmarkItem, parts: list[dict[str, Any]]) -> Prompt:
    return Prompt({"role": "user", "content": parts}, item.image, item.video)


def _media_parts(item: BenchmarkItem) -> list[dict[str, str]]:
    if item.video is not None:
        return [{"type": "video"}]
    return [{"type": "image"} for _ in item.image]


def _interleaved(item: BenchmarkItem, text: str) -> Prompt:
    """Put images where the text names them; without such a place they come first."""
    if not _IMAGE_NUMBER.search(text):
        return _prompt(item, [*_media_parts(item), {"type": "text", "text": text}])
    first, *rest = _IMAGE_NUMBER.split(text)
    parts: list[dict[str, str]] = [{"type": "text", "text": first}]
    shown: list[str] = []
    for number, after in zip(rest[::2], rest[1::2], strict=True):
        if not 1 <= int(number) <= len(item.image):
            raise ValueError(
                f"the text speaks of <image {number}>, and there are {len(item.image)} image(s)"
            )
        shown.append(item.image[int(number) - 1])
        parts += [{"type": "image"}, {"type": "text", "text": after}]
    return Prompt({"role": "user", "content": parts}, tuple(shown))


def _with_options(item: BenchmarkItem) -> str:
    question = f"{item.hint}\n{item.question}" if item.hint else item.question
    return "\n".join([question, *(f"{key}. {text}" for key, text in item.options.items())])


def _about_video(item: BenchmarkItem) -> str:
    return "\n".join([f"Question: {item.question}", *item.options.values(), "Answer: "])


def _asking_for_a_box(item: BenchmarkItem) -> str:
    question = item.question.strip()
    if question.endswith(REQUESTS["box"]):
        return question
    if "<ref>" not in question:
        question = f"Find the <ref>{question}</ref> in the image"
    return grounding_prompt(question, "box")


_WORDS: Mapping[str, Callable[[BenchmarkItem], str]] = {
    "question": lambda item: item.question,
    "multiple_choice": lambda item: f"{_with_options(item)}\n{FINAL_ANSWER}",
    "option_letter": lambda item: f"{_with_options(item)}\n{OPTION_LETTER}",
    "yes_no": lambda item: f"{item.question}{YES_NO}\n{FINAL_ANSWER}",
    "final_answer": lambda item: f"{item.question}\n{FINAL_ANSWER}",
    "short_answer": lambda item: f"{item.question}\n{SHORT_ANSWER}",
    "video_choice": _about_video,
    "grounding": _asking_for_a_box,
}
