"""VQA score: how many of ten people gave the model's answer, after a common spelling.

Source: VLMEvalKit @ e8e78f05, `process_line` and `process_punctuation`, which follow the original
evaluator (GT-Vision-Lab/VQA, `vqaEval.py`).
"""

import re
from collections.abc import Iterator, Sequence

from ovis_model.evaluation.scoring.mark import Mark

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
#: Meant to spare full stops between digits, the original spares those before a digit.
_FULL_STOP = re.compile(r"\.(?!\d)")
#: The original hands over a flag where a count is expected: no more are removed.
_MAX_FULL_STOPS = 32
_ARTICLES = {"a", "an", "the"}
_NUMBER_WORDS = {
    word: str(number)
    for number, words in enumerate(
        (
            "none zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
        )
    )
    for word in words.split()
}
_CONTRACTIONS_OF_TWO = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's "
    "how'd how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've "
    "o'clock oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll "
    "someone's something'd something'll that's there'd there're there's they'd they'll they're "
    "they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd "
    "you'll you're you've"
)
_CONTRACTIONS_OF_THREE = (
    "couldn't've hadn't've he'd've it'd've mightn't've 'ow's'at she'd've shouldn't've "
    "somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've "
    "y'all'll y'all'd've you'd've"
)
#: So many others must agree for a full score.
NUM_AGREEING = 3


def _misspelt() -> Iterator[tuple[str, str]]:
    """Yield each contraction with one apostrophe left out, and the contraction."""
    for right in f"{_CONTRACTIONS_OF_TWO} {_CONTRACTIONS_OF_THREE}".split():
        for index, letter in enumerate(right):
            if letter == "'":
                yield right[:index] + right[index + 1 :], right
    yield "somebody'd", "somebodyd"  # the other way round, in the original too


_CONTRACTIONS = dict(_misspelt())


def strip_punctuation(text: str) -> str:
    """Remove punctuation, or put a blank in its place, as the original evaluator does.

    A mark is removed if a blank stands on either side of it somewhere in the text, or if the text
    holds a number with a comma; else it becomes a blank.

    Example:
        >>> strip_punctuation("coca-cola"), strip_punctuation("1,000"), strip_punctuation("9.5.")
        ('coca cola', '1000', '9.5')
    """
    stripped = text
    has_comma_in_number = bool(_COMMA_IN_NUMBER.search(text))
    for mark in _PUNCTUATION:
        is_apart = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if is_apart or has_comma_in_number else " ")
    return _FULL_STOP.sub("", stripped, count=_MAX_FULL_STOPS)


def normalise(text: str) -> str:
    """Spell an answer the common way.

    Example:
        >>> normalise("The two dogs dont bark!")
        "2 dogs don't bark"
    """
    plain = strip_punctuation(_one_line(text)).lower()
    words = [_NUMBER_WORDS.get(word, word) for word in plain.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def mark_vqa(answer: str, truths: Sequence[str], *, original: bool = False) -> Mark:
    """Mark an answer by the share of annotators who agree.

    Each annotator in turn is left out: three others with the same answer make a full score.  So
    a single annotator never gives any.

    Args:
        answer: What the model wrote.
        truths: One answer per annotator, ten as a rule.
        original: Compare as the original evaluator does, letter by letter, where all annotators
            wrote the same.
    """
    spell = _one_line if original and len(set(truths)) <= 1 else normalise
    given = spell(answer)
    agreeing = [spell(truth) == given for truth in truths]
    value = sum(min(1.0, (sum(agreeing) - agrees) / NUM_AGREEING) for agrees in agreeing) / len(
        agreeing
    )
    return Mark(value > 0, value, invalid=not answer.strip(), extracted=given)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
