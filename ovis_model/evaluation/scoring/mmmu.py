"""MMMU: open questions are marked as multiple choice with two options.

MMMU's own parser, and lmms-eval's, take the last letter in brackets and guess where nothing can
be read; numbers by that rule and by this one do not compare.

Source: VLMEvalKit @ e8e78f05, `MMMU_preproc` and `mcq_vanilla_eval`.
"""

import string
from collections.abc import Mapping

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.multiple_choice import mark_choice
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile

OTHER_ANSWERS = "Other Answers"


def mark_mmmu(
    answer: str, options: Mapping[str, str], truth: str, profile: Profile = DEFAULT_PROFILE
) -> Mark:
    """Mark an answer to a question with options, or an open one.

    An open question becomes one with the options A, its true answer, and B, "Other Answers".  So
    "124" is right where "24" is true, and the letter A is always right.

    Args:
        answer: See `infer_option`.
        options: Texts by letter; without A the question is open.
        truth: The letter of the right option, or the true answer.
        profile: The revision to follow.
    """
    if "A" not in options:
        options = {**options, "A": truth, "B": OTHER_ANSWERS}
    # The original tells a letter from a text by its look: a true answer "C" stays the letter C.
    is_letter = len(truth) == 1 and truth in string.ascii_uppercase
    return mark_choice(answer, options, truth if is_letter else "A", profile)
