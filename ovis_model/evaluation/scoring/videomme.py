"""Video-MME: the first capital A to D anywhere in the answer, after a few openings.

Source: VLMEvalKit @ e8e78f05, `extract_characters_regex` in `dataset/utils/videomme.py`.
"""

import re

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.multiple_choice import NO_OPTION

#: Two of them are missing a comma in the original, which runs them into one another.
_OPENINGS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)


def extract_letter(answer: str) -> str | None:
    """Return the letter an answer chooses, or None.

    Example:
        >>> extract_letter("The answer is (B)"), extract_letter("Because it is red: D")
        ('B', 'B')
    """
    text = answer.strip()
    for opening in _OPENINGS:
        text = text.replace(opening, "")
    found = re.search(r"[ABCD]", text)
    return found[0] if found else None


def mark_videomme(answer: str, truth: str) -> Mark:
    """Mark an answer; one without a letter would go to a judge."""
    letter = extract_letter(answer)
    return Mark(
        correct=letter == truth,
        value=float(letter == truth),
        invalid=not answer.strip(),
        needs_judge=letter is None,
        extracted=letter or NO_OPTION,
    )
