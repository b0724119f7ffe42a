"""What is measured of a sample: numbers and categories, one value of each per sample.

One value per sample, however many pictures, turns or words it has: values of one sample depend on
each other, and tests that took them for independent would see drift where there is none.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from ovis_model.data.checks.statistics import count_thought_characters, features_of, kind_of
from ovis_model.data.checks.text_facts import normalised
from ovis_model.data.schema import Sample
from ovis_model.tokens import IMAGE_PLACEHOLDER, THINK_CLOSE, THINK_OPEN, VIDEO_PLACEHOLDER

#: Answers up to this long are told apart; of longer ones hardly two are equal.
MAX_SHORT_ANSWER = 32
#: A script counts as used in a text from this share of its letters on.
MIN_SCRIPT_SHARE = 0.1
#: Letters that are looked at to find the scripts of a text.
MAX_LETTERS = 500
LONG_ANSWER, NO_ANSWER, NO_WORD, NO_SOURCE = "(longer)", "(none)", "(none)", "(none)"

_PLACEHOLDER = re.compile(f"{IMAGE_PLACEHOLDER}|{VIDEO_PLACEHOLDER}")


@dataclass(frozen=True)
class Feature:
    """One thing that is measured.

    Attributes:
        name: Key in profiles and reports.
        topic: "pictures", "questions", "answers" or "samples".
        title: What a person reads.
        unit: What a number is counted in; "" for a category.
    """

    name: str
    topic: str
    title: str
    unit: str = ""


NUMBERS = (
    Feature("images", "pictures", "images", "per sample without a video"),
    Feature("width", "pictures", "width", "px"),
    Feature("height", "pictures", "height", "px"),
    Feature("aspect", "pictures", "width : height", "ratio"),
    Feature("brightness", "pictures", "brightness", "mean grey, 0 to 255"),
    Feature("contrast", "pictures", "contrast", "standard deviation of the greys"),
    Feature("saturation", "pictures", "saturation", "mean of HSV, 0 to 255"),
    Feature("sharpness", "pictures", "sharpness", "mean difference of neighbouring greys"),
    Feature("questions", "questions", "questions", "per sample"),
    Feature("question_characters", "questions", "question length", "characters"),
    Feature("answer_characters", "answers", "answer length", "characters, without the thought"),
    Feature("thinking_characters", "answers", "thinking length", "characters, if there is any"),
)
#: Not a value of a sample alone, but how much its first picture looks like the one side's.
LOOK = Feature("look", "pictures", "look of the picture", "score of its 8 x 8 greys")
CATEGORIES = (
    Feature("kind", "samples", "kind of media"),
    Feature("source", "samples", "source"),
    Feature("conversation", "samples", "form of the conversation"),
    Feature("script", "questions", "scripts"),
    Feature("question_word", "questions", "a word of the question"),
    Feature("answer", "answers", "short answer"),
    Feature("answer_word", "answers", "a word of the answer"),
    Feature("thinking", "answers", "thinking"),
)
#: Categories that are words of the data: a profile has their digests.
PRIVATE = frozenset({"question_word", "answer", "answer_word"})

_VIDEO_KINDS = {"video_file": "video", "video_frames": "video"}


def text_numbers(sample: Sample) -> dict[str, float | None]:
    """Measure what can be counted without looking at a picture; None where there is nothing."""
    questions = [turn.value for turn in sample.conversations if turn.role == "human"]
    return {
        "images": None if sample.video is not None else len(sample.image),
        "questions": len(questions),
        "question_characters": sum(len(_PLACEHOLDER.sub("", q).strip()) for q in questions),
        "answer_characters": sum(map(len, _answers(sample))),
        "thinking_characters": count_thought_characters(sample),
    }


def categories(sample: Sample) -> dict[str, str]:
    """Sort a sample into one category of each feature."""
    question = " ".join(turn.value for turn in sample.conversations if turn.role == "human")
    answers = _answers(sample)
    kind = kind_of(sample)
    features = [name for name in features_of(sample) if name != "with_think"]
    thinks = count_thought_characters(sample)
    return {
        # Extraction turns video files into frames: the same video on either side of it.
        "kind": _VIDEO_KINDS.get(kind, kind),
        "source": sample.source or NO_SOURCE,
        "conversation": " + ".join(features) or "plain",
        "script": scripts_of(" ".join([_PLACEHOLDER.sub(" ", question), *answers])),
        "question_word": draw_word(question),
        "answer": _short(answers[-1]) if answers else NO_ANSWER,
        "answer_word": draw_word(" ".join(answers)),
        "thinking": "with" if thinks else "without",
    }


def _answers(sample: Sample) -> list[str]:
    """Return what is left of every learned answer without its thought."""
    texts = [turn.value for turn in sample.conversations if turn.role == "gpt"]
    return [_without_thought(text).strip() for text in texts]


def _without_thought(text: str) -> str:
    # A thought that never closes leaves no answer.
    return (
        text.rpartition(THINK_CLOSE)[2] if THINK_CLOSE in text else text.partition(THINK_OPEN)[0]
    )


def _short(answer: str) -> str:
    return answer.casefold() if len(answer) <= MAX_SHORT_ANSWER else LONG_ANSWER


def draw_word(text: str) -> str:
    """Draw one word of a text, the same one every time.

    All words of all texts would be more, but not independent of each other.  The draw depends
    on the text alone, so that it needs neither an order nor a seed.

    Example:
        >>> draw_word("<image>"), draw_word("Read!")
        ('(none)', 'read')
    """
    words = normalised(text).split()
    if not words:
        return NO_WORD
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return words[int.from_bytes(digest[:8], "big") % len(words)]


def scripts_of(text: str) -> str:
    """Name the scripts that a text is written in, by Unicode's names of its letters.

    Example:
        >>> scripts_of("Which digit?"), scripts_of("这是什么 digit"), scripts_of("7 + 7")
        ('latin', 'cjk + latin', 'no letters')
    """
    letters = [letter for letter in text if letter.isalpha()][:MAX_LETTERS]
    counts: dict[str, int] = {}
    for letter in letters:
        script = _script_of(letter)
        counts[script] = counts.get(script, 0) + 1
    used = [name for name, count in counts.items() if count >= MIN_SCRIPT_SHARE * len(letters)]
    return " + ".join(sorted(used)) or "no letters"


@cache
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "unnamed").partition(" ")[0].lower()
