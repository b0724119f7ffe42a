"""ChartQA: a number may be off by 5 %, anything else must be equal.

Source: VLMEvalKit @ e8e78f05, `relaxed_correctness` in `dataset/utils/vqa_eval.py`.
"""

from collections.abc import Sequence

from ovis_model.evaluation.scoring.mark import Mark
from ovis_model.evaluation.scoring.profiles import DEFAULT_PROFILE, Profile

MAX_RELATIVE_CHANGE = 0.05


def mark_chartqa(answer: str, truths: Sequence[str], profile: Profile = DEFAULT_PROFILE) -> Mark:
    """Mark an answer; the best of the true ones counts.

    Args:
        answer: What the model wrote; blanks around it do not count, those of a truth do.
        truths: What is right.
        profile: The revision to follow.
    """
    given = answer.strip()
    if profile.divides_by_prediction:
        correct = any(is_close(given, truth) for truth in truths)
    else:
        correct = any(is_close(truth, given) for truth in truths)
    return Mark(correct, float(correct), invalid=not given, extracted=given)


def is_close(base: str, other: str) -> bool:
    """Whether two texts are equal, or numbers at most 5 % of the first apart.

    Example:
        >>> is_close("100", "105"), is_close("0", "0.0"), is_close("5%", "0.05")
        (True, False, True)
    """
    base_number, other_number = _to_number(base), _to_number(other)
    if other_number is not None and base_number:
        return abs(other_number - base_number) / abs(base_number) <= MAX_RELATIVE_CHANGE
    return base.lower() == other.lower()


def _to_number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
