"""HallusionBench: yes or no, as whole words.

Source: VLMEvalKit @ e8e78f05, `YOrN_Extraction` in `dataset/utils/yorn.py`.
"""

from typing import NamedTuple

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.vqa import strip_punctuation

UNKNOWN = "Unknown"


def extract_yes_or_no(answer: str) -> str:
    """Return "Yes", "No" or "Unknown".

    Asterisks, colons and single quotes are not removed, so `**Yes**` and `No:` are unknown.

    Example:
        >>> extract_yes_or_no("No, they are equal."), extract_yes_or_no("**No**")
        ('No', 'Unknown')
    """
    words = strip_punctuation(answer.lower()).split()
    if ("yes" in words) == ("no" in words):
        return UNKNOWN
    return "Yes" if "yes" in words else "No"


def mark_yes_or_no(answer: str, truth: str) -> Mark:
    """Mark an answer; one that is unknown would go to a judge."""
    found = extract_yes_or_no(answer)
    correct = found.lower() == truth.lower()
    return Mark(
        correct,
        float(correct),
        invalid=not answer.strip(),
        needs_judge=found == UNKNOWN,
        extracted=found,
    )


class HallusionIndex(NamedTuple):
    """What the index of a row says: `VD_figure_1_0_1_2`."""

    category: str
    l2_category: str
    set_id: str
    figure_id: str
    question_id: str

    @classmethod
    def parse(cls, index: str) -> "HallusionIndex":
        """Take an index apart.

        Raises:
            ValueError: If it has not six parts.

        Example:
            >>> HallusionIndex.parse("VD_figure_1_0_3_2").figure_id
            '3'
        """
        parts = index.split("_")
        if len(parts) != 6:
            raise ValueError(f"{index!r} is not category_subcategory_visual_set_figure_question")
        category, sub, _, set_id, figure, question = parts
        return cls(category, f"{category}_{sub}", set_id, figure, question)
