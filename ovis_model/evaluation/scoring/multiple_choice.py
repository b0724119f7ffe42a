"""Which option an answer means, as VLMEvalKit reads it: MMStar, AI2D, MMMU, each MMBench roll.

Some of the rule is surprising and stays: "A dog runs fast" is option A, "'B'" is none, and with
nine options the pronoun "I" is one of them.

Source: VLMEvalKit @ e8e78f05, `can_infer` in `utils/matching_util.py`.
"""

import re
from collections.abc import Mapping, Sequence

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile

#: What the official rule calls an answer that chooses no option.
NO_OPTION = "Z"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
#: What an evaluation through an API stores where the call failed.
API_FAILURE = "Failed to obtain answer via API"
_TO_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
#: A letter counts only among the last words of an answer.
NUM_LAST_WORDS = 4
#: No word boundary after the letter, as in the original: "answer is black" means B.
_ANSWER_PHRASE = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def infer_option(
    answer: str, options: Mapping[str, str], profile: Profile = DEFAULT_PROFILE
) -> str | None:
    """Find the option an answer chooses.

    Args:
        answer: What is left of the output after its thought and the words "final answer".
        options: Texts by letter, upper case.
        profile: The revision to follow.

    Returns:
        A letter, "Z" for a refusal, or None if the rule cannot tell.

    Example:
        >>> infer_option("(B) a dog", {"A": "a cat", "B": "a dog"})
        'B'
        >>> infer_option("A or B", {"A": "a cat", "B": "a dog"}) is None
        True
    """
    return _by_letter(answer, options, profile) or _by_text(answer, options)


def mark_choice(
    answer: str, options: Mapping[str, str], truth: str, profile: Profile = DEFAULT_PROFILE
) -> Mark:
    """Mark an answer that chooses one of several options.

    Args:
        answer: See `infer_option`.
        options: See `infer_option`.
        truth: The letter of the right option.
        profile: The revision to follow.
    """
    letter = infer_option(answer, options, profile)
    return Mark(
        correct=letter == truth,
        value=float(letter == truth),
        invalid=not answer.strip(),
        needs_judge=letter is None,
        extracted=letter or NO_OPTION,
    )


def _by_letter(answer: str, options: Mapping[str, str], profile: Profile) -> str | None:
    if API_FAILURE in answer:
        return None
    if any(refusal in answer for refusal in REFUSALS):
        return NO_OPTION
    words = answer.translate(_TO_BLANKS).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) >= len(words) - NUM_LAST_WORDS:
        return letters[0]
    if not letters and NO_OPTION in words:
        return NO_OPTION
    return _by_phrase(answer, options) if profile.reads_answer_phrase else None


def _by_phrase(answer: str, options: Mapping[str, str]) -> str | None:
    found = _ANSWER_PHRASE.search(answer)
    letter = found[1].upper() if found else ""
    return letter if letter in options else None


def _by_text(answer: str, options: Mapping[str, str]) -> str | None:
    lowered = answer.lower()
    if len(lowered) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def letter_options(texts: Sequence[str]) -> dict[str, str]:
    """Name options A, B and so on, in their order.

    Raises:
        ValueError: If there are more options than letters.

    Example:
        >>> letter_options(["cup", "house"])
        {'A': 'cup', 'B': 'house'}
    """
    if len(texts) > 26:
        raise ValueError(f"{len(texts)} options, but there are 26 letters")
    return {chr(ord("A") + index): text for index, text in enumerate(texts)}
